"""The switch dies, hangs and comes back under a training: it never stops, and keeps its bits."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands, commands
from support.training import rack, serving, spawned

STEADY = Path(__file__).with_name("steady.py")
WORKERS = 3
LIMIT_S = 120.0


@dataclass
class Training:
    """A training in the background."""

    process: "subprocess.Popen[str]"
    out: Path

    def step(self) -> int:
        """Of the slowest rank; -1 before its first."""
        assert self.process.poll() is None, self.process.communicate()
        paths = [self.out / f"step.{rank}" for rank in range(WORKERS)]
        return min(int(path.read_text().split()[0]) if path.exists() else -1 for path in paths)

    def carriers(self) -> set[str]:
        """What sums, by the ranks' last steps."""
        assert self.process.poll() is None, self.process.communicate()
        return {(self.out / f"step.{rank}").read_text().split()[1] for rank in range(WORKERS)}

    def until(self, carrier: str) -> None:
        """Wait until all ranks have this carrier. Steps are slow meanwhile."""
        (self.out / "slow").touch()
        deadline = time.monotonic() + LIMIT_S
        while self.carriers() != {carrier}:
            assert time.monotonic() < deadline, f"not over {carrier} within {LIMIT_S:g} s"
            time.sleep(0.02)
        (self.out / "slow").unlink()

    def reach(self, step: int) -> None:
        """Wait until all ranks have done that step."""
        deadline = time.monotonic() + LIMIT_S
        while self.step() < step:
            assert time.monotonic() < deadline, f"not at step {step} within {LIMIT_S:g} s"
            time.sleep(0.01)

    def end(self) -> tuple[list[dict[str, Any]], str]:
        """The ranks' reports, and what was said."""
        out, err = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, out + err
        reports = [
            json.loads((self.out / f"report.{rank}.json").read_text()) for rank in range(WORKERS)
        ]
        return reports, out + err


@pytest.fixture
def start(cli: Commands, tmp_path: Path) -> Callable[..., Training]:
    """Starts trainings: options of ``wiresum run``, then of the script."""

    def started(*options: str, script: tuple[str, ...] = (), **env: str) -> Training:
        out = tmp_path / f"run{time.monotonic_ns()}"
        out.mkdir()
        command = [*spawned(WORKERS), str(STEADY), "--out", str(out), *script]
        return Training(cli.start("run", *options, "--", *command, **env), out)

    return started


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """What the training of a field ends with if nothing happens, over the switch."""
    found: dict[str, str] = {}

    def digest(field: str) -> str:
        if field not in found:
            out = tmp_path_factory.mktemp(f"undisturbed{field}")
            with commands(out) as cli:
                command = [*spawned(WORKERS), str(STEADY), "--out", str(out), "--pause", "0"]
                options = ("--field", field, "--carrier", "switch")
                done = cli.run("run", *options, "--", *command)
            assert done.returncode == 0, done.stderr
            reports = [json.loads(path.read_text()) for path in out.glob("report.*.json")]
            assert all(report["carriers"] == ["switch"] for report in reports)
            (found[field],) = {report["digest"] for report in reports}
        return found[field]

    return digest


def same(reports: list[dict[str, Any]], digest: str) -> None:
    assert [report["digest"] for report in reports] == [digest] * WORKERS


@pytest.mark.parametrize("field", ["32", pytest.param("16", marks=pytest.mark.slow), "8"])
def test_the_ranks_sum_to_the_bits_of_the_switch(
    start: Callable[..., Training], undisturbed: Callable[[str], str], field: str
) -> None:
    reports, _ = start("--field", field, "--carrier", "ranks").end()
    same(reports, undisturbed(field))
    for report in reports:
        assert report["carriers"] == ["ranks"]
        assert report["stats"]["switch"] == {}
        assert report["stats"]["ranks"]["all_reduce"] > 0


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("number", "transport", "field"),
    [
        (signal.SIGKILL, "shm", "8"),
        pytest.param(signal.SIGKILL, "udp", "8", marks=SLOW),
        pytest.param(signal.SIGKILL, "udp", "32", marks=SLOW),
        (signal.SIGSTOP, "shm", "8"),
        pytest.param(signal.SIGSTOP, "shm", "16", marks=SLOW),
        (signal.SIGSTOP, "udp", "32"),
    ],
)
def test_a_switch_that_dies_or_hangs_costs_no_step_and_no_bit(
    cli: Commands,
    start: Callable[..., Training],
    undisturbed: Callable[[str], str],
    transport: str,
    field: str,
    number: signal.Signals,
) -> None:
    expected = undisturbed(field)
    training = start(
        "--field", field, "--transport", transport, "--switch-timeout", "1.5",
        script=("--pause", "0.01"),
    )  # fmt: skip
    training.reach(10)
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, number)
    reports, said = training.end()
    same(reports, expected)
    if number == signal.SIGSTOP:
        assert all("ranks" in report["carriers"] for report in reports)
        assert said.count("the ranks sum without the switch") == 1
    assert all(report["stats"]["failed"] == {} for report in reports)


@pytest.mark.parametrize("transport", ["shm", pytest.param("udp", marks=SLOW)])
def test_the_ranks_go_back_to_a_switch_that_is_started_again(
    cli: Commands, start: Callable[..., Training], transport: str
) -> None:
    steps = ("--steps", "150", "--pause", "0")
    reports, _ = start("--field", "8", "--carrier", "ranks", script=steps).end()
    training = start(
        "--field", "8", "--transport", transport, "--switch-timeout", "1", script=steps
    )
    training.reach(5)
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, signal.SIGSTOP)
    training.until("ranks")
    os.kill(switch, signal.SIGKILL)  # the launcher starts another one
    training.until("switch")
    after, said = training.end()
    same(after, reports[0]["digest"])
    assert all(report["carriers"] == ["switch", "ranks", "switch"] for report in after)
    assert said.count("the ranks sum without the switch") == 1
    assert said.count("the switch sums again") == 1


def test_the_ranks_go_back_to_a_switch_that_was_out_of_reach(
    cli: Commands, start: Callable[..., Training]
) -> None:
    steps = ("--steps", "150", "--pause", "0")
    reports, _ = start("--field", "16", "--carrier", "ranks", script=steps).end()
    controller = rack(cli)
    training = start(
        "--controller", controller, "--field", "16", "--switch-timeout", "1", script=steps
    )
    training.reach(5)
    (switch,) = serving(cli, "switch serve")
    for _ in range(2):
        os.kill(switch, signal.SIGSTOP)
        training.until("ranks")
        os.kill(switch, signal.SIGCONT)
        training.until("switch")
    after, _ = training.end()
    same(after, reports[0]["digest"])
    assert all(report["carriers"] == ["switch", *["ranks", "switch"] * 2] for report in after)


def test_a_run_starts_without_its_switch_and_goes_to_it_later(
    cli: Commands, start: Callable[..., Training]
) -> None:
    steps = ("--steps", "150", "--pause", "0")
    reports, _ = start("--field", "16", "--carrier", "ranks", script=steps).end()
    controller = rack(cli)
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, signal.SIGSTOP)
    training = start("--controller", controller, "--field", "16", script=steps)
    training.reach(5)
    training.until("ranks")
    os.kill(switch, signal.SIGCONT)
    training.until("switch")
    after, said = training.end()
    same(after, reports[0]["digest"])
    assert "was not ready within 10 s" in said
    assert all(report["carriers"] == ["ranks", "switch"] for report in after)


def test_a_run_that_insists_on_the_switch_ends_in_one_line_without_it(
    cli: Commands, start: Callable[..., Training]
) -> None:
    training = start("--carrier", "switch", "--switch-timeout", "1", "--transport", "udp")
    training.reach(5)
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, signal.SIGKILL)
    _, err = training.process.communicate(timeout=LIMIT_S)
    assert training.process.returncode == 1
    lines = [line for line in err.splitlines() if line.startswith("wiresum:")]
    assert lines[-1].startswith("wiresum: the embedded switch has ended (status 137)")
