"""When a group's slots are lent, and how the controller is told, without one."""

import threading

import pytest

from wiresum.host_agent.agent import parking
from wiresum.host_agent.agent.parking import Parking

LIMIT_S = 20.0


class Controller:
    """Hears what it is told; ``away`` while it cannot be reached."""

    def __init__(self) -> None:
        self.heard: list[bool] = []
        self.away = False
        self.called = threading.Event()

    def tell(self, parked: bool) -> bool:
        self.called.set()
        if self.away:
            return False
        self.heard.append(parked)
        return True

    def next(self) -> None:
        assert self.called.wait(LIMIT_S)
        self.called.clear()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "_RETRY_S", 0.01)


def until(parking: Parking, controller: Controller, heard: list[bool]) -> None:
    while controller.heard != heard:
        controller.next()
    parking.close()


def test_the_last_word_is_told_until_it_is_heard(quick: None) -> None:
    controller = Controller()
    parked = Parking(controller.tell)
    controller.away = True
    parked.want(True)
    controller.next()
    controller.next()
    parked.want(False)
    controller.away = False
    until(parked, controller, [False])


def test_another_word_does_not_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "_RETRY_S", 10 * LIMIT_S)
    said: list[bool] = []
    first, second = threading.Event(), threading.Event()

    def tell(parked: bool) -> bool:
        said.append(parked)
        (second if first.is_set() else first).set()
        return second.is_set()

    parked = Parking(tell)
    parked.want(True)
    assert first.wait(LIMIT_S)
    parked.want(False)
    assert second.wait(LIMIT_S)
    parked.close()
    assert said == [True, False]


def test_a_word_that_is_said_twice_is_told_twice(quick: None) -> None:
    """An attempt of the job may have begun in between, unparked."""
    controller = Controller()
    parked = Parking(controller.tell)
    for count in (1, 2):
        parked.want(True)
        while len(controller.heard) < count:
            controller.next()
    until(parked, controller, [True, True])


def test_a_group_without_a_job_of_its_own_is_left_alone(quick: None) -> None:
    controller = Controller()
    mine = Parking(controller.tell)
    parking.register("test-group", mine)
    parking.park("test-group", True)
    parking.park("another", True)
    until(mine, controller, [True])
    del mine, controller
    parking.park("test-group", False)  # its job is gone: nobody is told
