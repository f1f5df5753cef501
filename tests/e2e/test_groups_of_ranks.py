"""Groups of some of the ranks while the switch dies and ranks die: the same bits, and no hang."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support import background
from support.processes import Commands
from support.training import serving

GROUPED = Path(__file__).with_name("grouped.py")
STEPS = ("--steps", "60", "--pause", "0")


@pytest.fixture
def start(cli: Commands, tmp_path: Path) -> Callable[..., background.Training]:
    def started(*options: str, **env: str) -> background.Training:
        return background.train(cli, tmp_path, *options, script=STEPS, program=GROUPED, **env)

    return started


def test_groups_come_back_to_a_switch_that_died_and_keep_their_bits(
    cli: Commands, start: Callable[..., background.Training]
) -> None:
    expected, _ = start("--field", "8", "--carrier", "ranks").end()
    assert all(report["carriers"] == ["ranks"] for report in expected)
    training = start("--field", "8", "--switch-timeout", "1")
    training.slow()
    training.reach(0)
    training.until("switch")
    (switch,) = serving(cli, "switch serve")
    os.kill(switch, signal.SIGSTOP)  # the world and all groups find it silent
    training.until("ranks")
    os.kill(switch, signal.SIGKILL)  # the launcher starts another one
    training.until("switch")
    reports, said = training.end()
    assert [each["digest"] for each in reports] == [each["digest"] for each in expected], said
    for report in reports:
        assert report["carriers"] == ["ranks", "switch", "ranks", "switch"]
        assert report["stats"]["fallback"] == {}
        assert report["stats"]["failed"] == {}
