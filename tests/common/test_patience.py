"""A limit that leaves out the time in which the process stood still."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from wiresum.common.patience import LATE_S, Patience, wait_for


@dataclass
class Hand:
    """A clock that the test sets."""

    time: float = 1000.0

    def __call__(self) -> float:
        return self.time


def test_steps_are_spent_as_they_are() -> None:
    clock = Hand()
    patience = Patience(10.0, clock)
    for left in (8.0, 6.0, 4.0):
        clock.time += 2.0
        assert patience.step(2.0) == left


def test_a_step_that_takes_an_hour_counts_as_one_that_was_a_little_late() -> None:
    clock = Hand()
    patience = Patience(10.0, clock)
    clock.time += 3600.0
    assert patience.step(2.0) == 10.0 - 2.0 - LATE_S
    clock.time += 0.5
    assert patience.step(2.0) == 10.0 - 2.5 - LATE_S


def test_a_restart_gives_the_whole_time_again() -> None:
    clock = Hand()
    patience = Patience(3.0, clock)
    clock.time += 2.0
    patience.step(2.0)
    patience.restart()
    clock.time += 2.5
    assert patience.step(2.5) == 0.5


def test_a_wait_for_an_event_ends_at_the_limit() -> None:
    event = threading.Event()
    assert not wait_for(event, 0.2, step_s=0.05)
    threading.Timer(0.1, event.set).start()
    assert wait_for(event, 60.0)
    assert wait_for(event, 0.0)


WAITER = """
import sys, threading
from wiresum.common.patience import wait_for
event = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), event.set()), daemon=True).start()
print("waits", flush=True)
print(wait_for(event, 6.0, step_s=0.5), flush=True)
"""


@pytest.mark.parametrize("how", ["stopped", "running"])
def test_a_wait_goes_on_after_a_pause_that_was_longer_than_its_limit(how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        if how == "stopped":
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(8.0)
            process.stdin.write("\n")
            process.stdin.flush()
            os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == ("True\n" if how == "stopped" else "False\n")
