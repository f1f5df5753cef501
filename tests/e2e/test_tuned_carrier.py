"""Runs whose ranks choose the carrier while they train: by the time of a step, to the same bits."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.training import serving, spawned

SCRIPT = Path(__file__).with_name("tuned_carrier.py")
WORKERS = 2
LIMIT_S = 120.0
# No error is small enough for a narrower field: the sums do not depend on when one is chosen.
TUNE = ("--tune", "within=1%,steps=4,error=0")


class Run:
    """A training in the background."""

    def __init__(self, cli: Commands, out: Path, *options: str) -> None:
        self.out = out
        command = [*spawned(WORKERS), str(SCRIPT), "--out", str(out)]
        self.process: subprocess.Popen[str] = cli.start("run", *options, "--", *command)

    def slow(self, carrier: str) -> None:
        (self.out / "slow.new").write_text(carrier)
        (self.out / "slow.new").rename(self.out / "slow")

    def until(self, carrier: str, chosen: str) -> None:
        """Wait until all ranks have this carrier, and have chosen that one."""
        deadline = time.monotonic() + LIMIT_S
        while not all(self._state(rank) == f"{carrier} {chosen}" for rank in range(WORKERS)):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"not over {carrier} within {LIMIT_S:g} s"
            time.sleep(0.01)

    def _state(self, rank: int) -> str:
        path = self.out / f"state.{rank}"
        return path.read_text() if path.exists() else ""

    def end(self) -> tuple[list[dict[str, Any]], str]:
        (self.out / "end").touch()
        out, err = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, out + err
        return reports(self.out), err


def reports(out: Path) -> list[dict[str, Any]]:
    return [json.loads((out / f"report.{rank}.json").read_text()) for rank in range(WORKERS)]


@pytest.fixture
def start(cli: Commands, tmp_path: Path) -> Callable[..., Run]:
    def started(*options: str) -> Run:
        out = tmp_path / "run"
        out.mkdir()
        return Run(cli, out, *options)

    return started


def test_the_faster_carrier_is_chosen_over_a_death_of_the_switch_with_the_bits_of_one_carrier(
    cli: Commands, start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start(*TUNE, "--switch-timeout", "1")
    run.slow("switch")
    run.until("ranks", chosen="ranks")
    run.slow("ranks")  # much longer steps: they compare again, and go back
    run.until("switch", chosen="switch")
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, signal.SIGKILL)  # the launcher starts another one
    run.slow("none")
    run.until("ranks", chosen="switch")
    run.until("switch", chosen="switch")
    one, other = (found := run.end())[0]
    assert one == other
    assert one["failed"] == {}
    chosen = [(each["carrier"], each["reason"]) for each in one["choices"]]
    assert chosen[0] == ("ranks", "its steps are timed")
    # On a busy machine a try may find no difference beyond noise: there are more, then.
    there = chosen.index(("ranks", "its steps are shorter"))
    back = chosen.index(("switch", "its steps are shorter"))
    assert 0 < there < back
    took = one["choices"][there]["step_ms"]
    assert took["switch"] > max(100, took["ranks"])
    assert one["carriers"][:3] == ["switch", "ranks", "switch"]
    assert [each["field"] for each in one["fields"]] == [32]
    said = found[1]
    assert "wiresum: the ranks shall sum from collective" in said
    tries = r"(…, |the \w+ from collective \d+ on, )*"
    summary = rf"wiresum: fields of 32 bits; the switch first, {tries}the ranks from collective"
    assert re.search(summary, said)

    plain = tmp_path / "plain"
    plain.mkdir()
    steps = ("--steps", str(len(one["digests"])))
    command = [*spawned(WORKERS), str(SCRIPT), "--out", str(plain), *steps]
    done = cli.run("run", "--carrier", "ranks", "--", *command)
    assert done.returncode == 0, done.stderr
    for report in reports(plain):
        assert report["carriers"] == ["ranks"]
        assert report["digests"] == one["digests"]
        assert report["weights"] == one["weights"]


def test_a_run_that_shall_keep_its_carrier_tries_no_other(start: Callable[..., Run]) -> None:
    run = start("--tune", "steps=2,error=0,carrier=fixed")
    run.slow("switch")
    run.until("switch", chosen="")
    time.sleep(2.0)
    (one, other), _ = run.end()
    assert one["carriers"] == other["carriers"] == ["switch"]
    assert one["choices"] == other["choices"] == []
