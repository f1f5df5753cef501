"""Ranks that die, leave, differ, lose a result or are suspended: the other ranks' errors.

The limit of a collective is torch's own, 30 minutes: that a run ends within the test's limit shows
that it did not wait for that. A busy machine takes minutes to import torch in a few processes.
"""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands, commands, marked
from support.training import spawned

pytestmark = pytest.mark.timeout(900)

SCRIPT = Path(__file__).with_name("ranks.py")
LIMIT_S = 400.0
EXPIRY_S = 3.0


class Place:
    """A switch over UDP and a controller, and a job there."""

    def __init__(self, cli: Commands) -> None:
        self.cli = cli
        self.switch, facts = self._switch("127.0.0.1:0", "127.0.0.1:0")
        self.p4runtime = facts["p4runtime"]
        self.address = facts["ports"]["1"].removeprefix("udp:")
        self.controller, ready = cli.serve(
            "controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:", "--plaintext",
            "--expiry", str(EXPIRY_S),
        )  # fmt: skip
        self.where = ready["address"]
        done = cli.run(
            "switch", "add", "s1", "--p4runtime", self.p4runtime, "--address", self.address,
            "--host", "127.0.0.0/8=1", "--lanes", "64", "--controller", self.where,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _switch(self, p4runtime: str, address: str) -> "tuple[subprocess.Popen[str], Any]":
        return self.cli.serve(
            "switch", "serve", "--lanes", "64", "--p4runtime", p4runtime, "--port",
            f"1=udp:{address}",
        )  # fmt: skip

    def restart_switch(self) -> None:
        """Restart the switch: its registers are zero."""
        self.switch.kill()
        self.switch.wait()
        self.switch, _ = self._switch(self.p4runtime, self.address)

    def run(self, folder: Path, scenario: str, count: int = 2, **env: str) -> list[dict[str, str]]:
        """Run all ranks of a scenario to their ends; return the notes of the survivors."""
        folder.mkdir(exist_ok=True)
        _, err = self.start(folder, scenario, count, **env).communicate(timeout=LIMIT_S)
        (folder / "stderr").write_text(err)
        return self.outcomes(folder, count)

    def start(
        self, folder: Path, scenario: str, count: int = 2, **env: str
    ) -> "subprocess.Popen[str]":
        """The failure of one rank does not end the others."""
        command = [*spawned(count, until="last"), str(SCRIPT), scenario, str(folder)]
        return self.cli.popen(command, **{"WIRESUM_CONTROLLER": self.where} | env)

    def outcomes(self, folder: Path, count: int) -> list[dict[str, str]]:
        paths = [folder / f"{rank}.json" for rank in range(count)]
        dead = {"kind": "dead", "line": ""}
        return [json.loads(p.read_text()) if p.exists() else dead for p in paths]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with commands(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture(scope="module")
def place(shared: Commands) -> Place:
    return Place(shared)


def said(folder: Path) -> str:
    """The stderr of all ranks."""
    return (folder / "stderr").read_text()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("lacking", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_result_that_one_rank_lacks_is_made_again_though_the_others_are_at_their_end(
    cli: Commands, tmp_path: Path, lacking: int
) -> None:
    """The switch is killed when all others have the last result, and leave."""
    place, out = Place(cli), tmp_path / "out"
    out.mkdir()
    limit = {"WIRESUM_SWITCH_TIMEOUT": "2"}
    started = place.start(out, f"rank_{lacking}_lacks_its_last_sum", 3, **limit)
    others = [rank for rank in range(3) if rank != lacking]
    wait_for(lambda: all((out / f"{rank}.json").exists() for rank in others), "the others' end")
    assert not (out / f"{lacking}.json").exists()
    place.switch.kill()
    _, err = started.communicate(timeout=LIMIT_S)
    assert started.returncode == 0, err
    assert place.outcomes(out, 3) == [{"kind": "", "line": ""}] * 3


def test_a_killed_rank_is_named_by_all_others(place: Place, tmp_path: Path) -> None:
    first, dead, third = place.run(tmp_path / "out", "killed", 3)
    assert dead["kind"] == "dead"
    for number, each in ((0, first), (2, third)):
        assert each["kind"] == "PeerLost", each
        assert each["line"].startswith("rank 1 on "), each
        assert "has ended without leaving the group" in each["line"]
        assert f"rank {number} waits in all_reduce 3 (1000 float32 SUM, over" in each["line"]


@pytest.mark.parametrize("scenario", ["killed", "leaves", "ends_together"])
def test_ranks_that_sum_by_themselves_notice_the_same(
    place: Place, tmp_path: Path, scenario: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    place.start(folder, scenario, 3, WIRESUM_CARRIER="ranks").communicate(timeout=LIMIT_S)
    first, gone, third = place.outcomes(folder, 3)
    assert gone["kind"] == ("dead" if scenario == "killed" else ""), gone
    for each in (first, third):
        if scenario == "ends_together":
            assert each["kind"] == "", each
            continue
        assert each["kind"] == "PeerLost", each
        how = "ended without leaving" if scenario == "killed" else "left the group after"
        assert f"has {how}" in each["line"]


@pytest.mark.parametrize(
    "scenario", ["leaves", pytest.param("leaves_while_others_compute", marks=pytest.mark.slow)]
)
def test_a_rank_that_leaves_early_is_named_by_all_others(
    place: Place, tmp_path: Path, scenario: str
) -> None:
    first, left, third = place.run(tmp_path / "out", scenario, 3)
    assert left["kind"] == ""
    for each in (first, third):
        # Either of the others may give up first and be named.
        assert each["kind"] == "PeerLost", each
        assert "has left the group after" in each["line"]
    assert any(each["line"].startswith("rank 1 on ") for each in (first, third))


@pytest.mark.slow
def test_ranks_that_end_at_about_the_same_time_cause_no_error(place: Place, tmp_path: Path) -> None:
    outcomes = place.run(tmp_path / "out", "ends_together", 3)
    assert [each["kind"] for each in outcomes] == ["", "", ""], outcomes


@pytest.mark.parametrize(
    "scenario", ["differs", pytest.param("another_collective", marks=pytest.mark.slow)]
)
def test_different_collectives_end_with_an_error_on_both_paths(
    place: Place, tmp_path: Path, scenario: str
) -> None:
    """One rank waits at the switch, the other in gloo, whose error cannot say why: the log does."""
    first, second = place.run(tmp_path / "out", scenario)
    assert first["kind"] == "CollectiveMismatch", first
    assert "over the switch) of rank 0 on " in first["line"]
    assert "over the fallback) of rank 1 on " in first["line"]
    assert second["kind"] != "", second
    assert said(tmp_path / "out").count(first["line"]) >= 2


def test_a_result_that_a_restarted_switch_has_forgotten_ends_a_run_that_insists_on_it(
    place: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    started = place.start(
        folder, "result_lost", WIRESUM_SWITCH_TIMEOUT=str(LIMIT_S), WIRESUM_CARRIER="switch"
    )
    wait_for((folder / "0.has_it").exists, "rank 0's result")
    place.restart_switch()
    (folder / "restarted").touch()
    started.communicate(timeout=LIMIT_S)
    for each in place.outcomes(folder, 2):
        assert each["kind"] == "ResultLost", each
        assert "has received and rank 1 on" in each["line"]


def test_ranks_that_can_leave_the_switch_make_a_forgotten_result_again(
    place: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    started = place.start(folder, "result_lost", WIRESUM_SWITCH_TIMEOUT=str(LIMIT_S))
    wait_for((folder / "0.has_it").exists, "rank 0's result")
    place.restart_switch()
    (folder / "restarted").touch()
    started.communicate(timeout=LIMIT_S)
    assert place.outcomes(folder, 2) == [{"kind": "", "line": ""}] * 2


# -- several groups, restarts ---------------------------------------------------------------------


def wiresum_run(cli: Commands, *command: str) -> "subprocess.CompletedProcess[str]":
    return cli.run("run", "--transport", "udp", "--", *command, limit_s=LIMIT_S)


def trains(folder: Path, scenario: str) -> str:
    folder.mkdir(exist_ok=True)
    return shlex.join([*spawned(2), str(SCRIPT), scenario, str(folder)])


@pytest.mark.slow
def test_a_helpers_group_leaves_the_job_alone(cli: Commands, tmp_path: Path) -> None:
    done = wiresum_run(cli, "sh", "-c", trains(tmp_path / "out", "helper"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("belongs to another process group of this run") == 1
    for rank in (0, 1):
        assert json.loads((tmp_path / "out" / f"{rank}.json").read_text())["kind"] == ""


@pytest.mark.parametrize(
    "first",
    ["again", *(pytest.param(each, marks=pytest.mark.slow) for each in ("killed", "sums"))],
)
def test_the_next_group_of_a_run_gets_the_job(cli: Commands, tmp_path: Path, first: str) -> None:
    """After a group that ended well, one that was made anew, and one that was killed."""
    one, two = trains(tmp_path / "one", first), trains(tmp_path / "two", "sums")
    done = wiresum_run(cli, "sh", "-c", f"{one}; exec {two}")
    assert done.returncode == 0, done.stderr
    assert "everything goes over gloo" not in done.stderr


# -- joining late, and standing still -------------------------------------------------------------


def test_the_others_wait_for_a_late_rank_and_name_it(place: Place, tmp_path: Path) -> None:
    first, second = place.run(tmp_path / "in-time", "late")
    assert (first["kind"], second["kind"]) == ("", "")

    folder = tmp_path / "too-late"
    outcomes = place.run(folder, "late", WIRESUM_TIMEOUT="1.5")
    assert [each["kind"] for each in outcomes] == ["dead", "dead"]
    assert "rank 0 has not joined within 1.5 s (there of 2: rank 1 on " in said(folder)


def test_a_run_that_is_suspended_goes_on(place: Place, tmp_path: Path) -> None:
    """SIGSTOP to everything for longer than leases last, the controller and the switch included."""
    cli, folder = place.cli, tmp_path / "out"
    folder.mkdir()
    launcher = cli.start(
        "run", "--controller", place.where, "--", *spawned(2), str(SCRIPT), "steady", str(folder)
    )
    wait_for(lambda: len(list(folder.glob("*.steps"))) == 2, "the first steps")
    stopped = list(marked(cli.mark))
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4 * EXPIRY_S)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    for path in folder.glob("*.steps"):
        path.unlink()
    wait_for(lambda: len(list(folder.glob("*.steps"))) == 2, "a step after the pause")
    time.sleep(2 * EXPIRY_S)  # every expiry is decided by now
    (folder / "stop").touch()
    _, err = launcher.communicate(timeout=LIMIT_S)
    assert launcher.returncode == 0, err
    assert [each["kind"] for each in place.outcomes(folder, 2)] == ["", ""]
