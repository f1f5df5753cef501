"""What ends late: after its pool was closed, or never on the other ranks."""

import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from wiresum.host_agent import errors
from wiresum.host_agent.backend import agreement
from wiresum.host_agent.backend.agreement import Agreement
from wiresum.host_agent.backend.completion import CompletionPool

LIMIT_S = 30.0


def test_a_job_that_comes_after_the_pool_was_closed_is_run() -> None:
    pool = CompletionPool()
    ran = [threading.Event() for _ in range(3)]
    held = threading.Event()
    pool.submit(ran[0].set)
    pool.submit(lambda: held.wait(LIMIT_S))  # a thread that takes the closing's word only later
    assert ran[0].wait(LIMIT_S)
    closing = threading.Thread(target=pool.close)
    closing.start()
    while not pool._closed:
        time.sleep(0.001)
    for event in ran[1:]:
        pool.submit(event.set)
        assert event.wait(LIMIT_S)
    held.set()
    closing.join(LIMIT_S)
    assert not closing.is_alive()


class Asked:
    """A store that counts how often it is looked into."""

    def __init__(self) -> None:
        self._store = dist.HashStore()
        self.looks = 0

    def check(self, keys: list[str]) -> bool:
        self.looks += 1
        return self._store.check(keys)

    def add(self, key: str, amount: int) -> int:
        return self._store.add(key, amount)


@pytest.fixture
def agreed(monkeypatch: pytest.MonkeyPatch) -> tuple[Asked, "Agreement[None]"]:
    monkeypatch.setattr(agreement, "_OVERTIME_S", 0.2)
    store = Asked()

    def never() -> None:
        raise AssertionError("nothing is agreed on")

    return store, Agreement(store, 2, never, lambda run: run())  # type: ignore[arg-type]


def test_what_no_other_rank_issues_ends_with_nobody_in_its_wait(
    agreed: tuple[Asked, "Agreement[None]"],
) -> None:
    store, group = agreed
    ended = threading.Event()
    given_up = group.submit("a", "all_reduce", lambda _: dist.Work(), 0.1)
    given_up.when_ended(lambda _: ended.set())
    with pytest.raises(errors.CollectiveTimeout, match="1 of 2 ranks"):
        given_up.wait(timedelta(milliseconds=5))
    assert not given_up.is_completed()  # the waiter's limit was its own
    assert ended.wait(LIMIT_S)
    assert isinstance(given_up.exception(), errors.CollectiveTimeout)
    assert "all_reduce" in str(given_up.exception())
    group.join(LIMIT_S)
    looks = store.looks
    time.sleep(0.1)
    assert store.looks == looks
    with pytest.raises(errors.CollectiveTimeout):
        group.submit("b", "all_reduce", lambda _: dist.Work(), 0.1)


def test_what_comes_in_time_is_carried_out_however_long_the_wait_of_another_was(
    agreed: tuple[Asked, "Agreement[None]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, group = agreed
    made = torch.futures.Future[list[torch.Tensor]]()

    class Done(dist.Work):
        def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
            return made

    made.set_result([torch.ones(1)])
    monkeypatch.setattr(group, "_make_group", lambda: None)
    monkeypatch.setattr(store, "get", store._store.get, raising=False)
    monkeypatch.setattr(store, "set", store._store.set, raising=False)
    work = group.submit("a", "all_reduce", lambda _: Done(), LIMIT_S)
    with pytest.raises(errors.CollectiveTimeout):
        work.wait(timedelta(milliseconds=5))
    store.add("said/a", 1)
    store._store.set("place/0", "a")
    assert work.wait(timedelta(seconds=LIMIT_S))
    group.fail(errors.EngineClosed("over"))
    group.join(LIMIT_S)
