"""How long the training waited for collectives that computation did not hide.

Two places are measured: ``Work.wait()``, and the end of ``backward()``, where DDP waits in C++ for
the futures of its buckets (it never calls ``Work.wait()``). Waiting for a future by other means is
not seen.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import torch

from wiresum.host_agent.agent.counters import COUNTERS

log = logging.getLogger("wiresum")

_NO_BACKWARD = -1
_MOST = 16  # backward passes at once; one that ended in an error never says that it has ended


class Timed(Protocol):
    """A collective that knows when it ended."""

    @property
    def ended_at(self) -> float | None:
        """``time.monotonic()`` of its end; None while it is in flight."""


class _Backward:
    """The collectives that one backward pass has issued."""

    def __init__(self) -> None:
        self.works: list[Timed] = []
        self.began = 0.0
        self.waited_before = 0.0


_backwards: dict[int, _Backward] = {}
_here = threading.local()


def add_wait(seconds: float) -> None:
    """Count time that this thread was blocked in ``Work.wait()``."""
    _here.waited = _waited() + seconds
    COUNTERS.count_exposed(seconds)


def issued(work: Timed) -> None:
    """Note a collective that was handed over; the end of one of a backward pass is measured."""
    task = torch._C._current_graph_task_id()
    if task == _NO_BACKWARD:
        return
    backward = _backwards.get(task)
    if backward is None:
        while len(_backwards) >= _MOST:
            del _backwards[next(iter(_backwards))]
        backward = _backwards[task] = _Backward()
        # DDP queues its own callback, in which it waits, when it has issued its last bucket, so
        # after this one. A callback that is queued by a callback comes last of all.
        _queue_callback(lambda: _graph_done(task))
    backward.works.append(work)


def _graph_done(task: int) -> None:
    backward = _backwards.pop(task, None)
    if backward is None:
        return
    backward.works = [work for work in backward.works if work.ended_at is None]
    if backward.works:
        backward.began, backward.waited_before = time.monotonic(), _waited()
        _queue_callback(lambda: _all_done(backward))


def _all_done(backward: _Backward) -> None:
    now = time.monotonic()
    last = max(work.ended_at or now for work in backward.works)
    # Time in a wait() in between has been counted already.
    exposed = min(last, now) - backward.began - (_waited() - backward.waited_before)
    if exposed > 0:
        COUNTERS.count_exposed(exposed)


def _waited() -> float:
    return getattr(_here, "waited", 0.0)


def _queue_callback(callback: Callable[[], None]) -> None:
    torch.autograd.Variable._execution_engine.queue_callback(callback)
