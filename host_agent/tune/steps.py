"""Measures the steps of the training, and hands them to the tuning of this process's job."""

import os
import threading
import time
import weakref
from typing import Any

from wiresum.host_agent import lines, reported
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.tuning import ballot
from wiresum.host_agent.agent.tuning.wish import Wish, parse
from wiresum.host_agent.environment import TUNE, AgentError

_installed = threading.Event()


def tune(wish: Wish) -> None:
    """See :func:`wiresum.tune`."""
    import torch.distributed as dist

    if dist.is_initialized():
        raise AgentError(lines.TUNE_TOO_LATE.of())
    wish = parse(str(wish))
    os.environ[TUNE] = str(wish)
    install()


def install() -> None:
    """Follow the steps of the first optimizer, and the losses. Does nothing the second time.

    When that optimizer is gone, the next one that makes a step is followed.
    """
    from torch.optim import optimizer

    if _installed.is_set():
        return
    _installed.set()
    follow = _Steps()
    optimizer.register_optimizer_step_post_hook(lambda which, *_: follow.after(which))
    reported.listen(_loss)


def _loss(value: float) -> None:
    tuning = ballot.current()
    if tuning is not None:
        tuning.loss(value)


class _Steps:
    def __init__(self) -> None:
        self._optimizer: weakref.ref[Any] | None = None
        self._at: float | None = None
        self._exposed_s = 0.0

    def after(self, optimizer: Any) -> None:
        if self._optimizer is None or self._optimizer() is None:
            self._optimizer = weakref.ref(optimizer)
        if self._optimizer() is not optimizer:
            return
        now, exposed_s = time.monotonic(), COUNTERS.exposed_s
        tuning = ballot.current()
        if tuning is not None and self._at is not None:
            tuning.step(now - self._at, exposed_s - self._exposed_s)
        self._at, self._exposed_s = now, exposed_s
