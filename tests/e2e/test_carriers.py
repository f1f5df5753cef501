"""The switch dies, hangs and comes back under a training: it never stops, and keeps its bits."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from support.background import LIMIT_S, STEADY, WORKERS, Training
from support.processes import Commands, commands
from support.training import add_switch, rack, serving, spawned
from wiresum.controller.client import ControllerClient


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


def test_the_ranks_go_to_another_switch_when_theirs_has_died(
    cli: Commands, start: Callable[..., Training]
) -> None:
    steps = ("--steps", "150", "--pause", "0")
    reports, _ = start("--field", "8", "--carrier", "ranks", script=steps).end()
    controller = rack(cli)
    (first,) = serving(cli, "switch serve")
    add_switch(cli, controller, "s2")
    training = start(
        "--controller", controller, "--field", "8", "--switch-timeout", "1", script=steps
    )
    training.reach(5)
    with ControllerClient(controller, token=cli.mark) as client:
        (job,) = client.list_jobs(live_only=True)
        assert job.switch == "s1"
        os.kill(first, signal.SIGKILL)
        training.until("ranks")
        training.until("switch")
        moved = client.get_job(job.id)
        assert (moved.switch, moved.slots) == ("s2", job.slots)
    after, _ = training.end()
    same(after, reports[0]["digest"])
    assert all(report["carriers"] == ["switch", "ranks", "switch"] for report in after)


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
