"""A limit that leaves out the time in which the process stood still."""

from dataclasses import dataclass

from wiresum.host_agent.patience import LATE_S, Patience


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
