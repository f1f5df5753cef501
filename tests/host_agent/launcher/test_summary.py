"""The last line of a run: from the files of its workers to the words."""

import json
import os
import shutil
from pathlib import Path

import pytest

from wiresum.host_agent.agent.counters import Counters
from wiresum.host_agent.agent.tally import Tally, Totals, read_all
from wiresum.host_agent.backend import report
from wiresum.host_agent.environment import TALLY, Carrier
from wiresum.host_agent.launcher.summary import last_line, summary


def line(*processes: Totals, as_default: bool = False, carrier: Carrier = Carrier.AUTO) -> str:
    text, used = last_line(processes, as_default, carrier)
    assert used == (text.code == "A050")
    return text


def test_a_command_that_removes_the_folder_ends_without_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with summary(as_default=False, carrier=Carrier.AUTO) as told:
        shutil.rmtree(told[TALLY])
    assert not caplog.records


def test_the_numbers_are_those_of_one_rank_with_its_restarts() -> None:
    first = Totals(rank=0, size=2, switch=10, switch_bytes=4000)
    again = Totals(rank=0, size=2, switch=5, switch_bytes=2_500_000_000, ranks=1, ranks_bytes=999,
                   ranks_why="the switch is silent")  # fmt: skip
    other = Totals(rank=1, size=2, switch=14, switch_bytes=4000, fallback=2, fallback_bytes=64_123,
                   fallback_why="send: bytes go from one rank to one other")  # fmt: skip
    assert line(first, again, other) == (
        "each of 2 ranks here: 15 collectives (2.5 GB) over the switch, "
        "1 collective (999 bytes; the switch is silent) over the ranks, "
        "2 collectives (64.1 kB; send: bytes go from one rank to one other) over the fallback"
    )


def test_a_run_that_did_not_use_the_switch_says_so_and_why() -> None:
    around = Totals(size=4, fallback=3, fallback_bytes=4, fallback_why="all_reduce: a sub-group")
    assert line(around) == (
        "nothing used the switch; 1 rank here: 0 over the ranks, "
        "3 collectives (4 bytes; all_reduce: a sub-group) over the fallback"
    )
    ranks = Totals(size=4, ranks=3, ranks_bytes=12, ranks_why="this run asks for it")
    assert line(ranks).startswith("nothing used the switch; 1 rank here: 3 collectives")
    assert line(ranks, carrier=Carrier.RANKS).startswith("1 rank here: 0 over the switch, 3 coll")
    assert "the group has one rank" in line(Totals(size=1, switch=7))
    assert "or give --as-default" in line()
    assert "--as-default" not in line(as_default=True)
    assert "ask for it, for gloo or for none" in line(as_default=True)


def test_a_process_leaves_its_totals_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TALLY, str(tmp_path))
    for name in ("_rank", "_size", "_tally"):
        monkeypatch.setattr(report, name, getattr(report, name))
    child = os.fork()
    if child == 0:
        counters = report.COUNTERS = Counters()
        report.set_group(3, 4)
        report.set_group(3, 2)  # a group within it
        counters.count_fallback("send", "bytes go from one rank to one other", 8, level=0)
        counters.count_fallback("all_reduce", "dtype ä", 16, level=0)
        counters.count_carried("all_reduce", 2, 100, ranks=False)
        counters.count_carried("all_reduce", 2, 50, ranks=True, why="the first")
        counters.count_carried("all_reduce", 2, 50, ranks=True, why="the second")
        counters.flush()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    (totals,) = read_all(tmp_path)
    assert totals == Totals(3, 4, 1, 100, 2, 100, "the first", 2, 24, "all_reduce: dtype ä")


def test_what_else_is_in_the_folder_is_no_tally(tmp_path: Path) -> None:
    Tally(str(tmp_path)).write(Totals(rank=2))
    Tally(str(tmp_path))  # and a process that was killed before it wrote
    (tmp_path / "other").write_bytes(b"\xff")
    (tmp_path / "earlier").write_text(json.dumps([1, 2]) + "\nof before")
    (tmp_path / "later").write_text(json.dumps([1] * 99) + "\n")
    (tmp_path / "number").write_text("1\n")
    (tmp_path / "folder").mkdir()
    assert [totals.rank for totals in read_all(tmp_path)] == [1, 2]


def test_without_a_place_for_the_files_the_command_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wiresum.common.temporary._bases", list)
    with summary(as_default=False, carrier=Carrier.AUTO) as variables:
        assert variables == {}
    assert capfd.readouterr().err == ""
