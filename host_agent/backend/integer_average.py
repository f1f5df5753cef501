"""AVG of integers over the fallback group: gloo has none, and fails.

It is the sum, divided by the number of ranks towards zero, as in nccl.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.futures import Future

from wiresum.host_agent.backend import callbacks

Tensors = list[torch.Tensor]


def is_integer_average(tensors: Sequence[torch.Tensor], op: str) -> bool:
    """Whether it is an average of integers on CPUs."""
    return op == "AVG" and all(
        tensor.device.type == "cpu"
        and tensor.dtype is not torch.bool
        and not (tensor.is_floating_point() or tensor.is_complex())
        for tensor in tensors
    )


def average(
    start: Callable[[Sequence[torch.Tensor], Any], dist.Work],
    tensors: Sequence[torch.Tensor],
    options: Any,
    ranks: int,
) -> dist.Work:
    """Average in place; ``start(tensors, options)`` starts an all-reduce over so many ranks."""
    summed = type(options)()
    summed.reduceOp = dist.ReduceOp(dist.ReduceOp.SUM)
    summed.timeout = options.timeout
    return _AveragedWork(start(tensors, summed), tensors, ranks)


class _AveragedWork(dist.Work):
    """Divides the sums of ``work`` once it has ended well, before anybody is told."""

    def __init__(self, work: dist.Work, tensors: Sequence[torch.Tensor], ranks: int) -> None:
        super().__init__()
        self._work = work
        self._tensors = list(tensors)
        self._ranks = ranks
        self._divided = False
        self._lock = threading.Lock()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for the averages; without a timeout for as long as the group's limit."""
        self._work.wait(*(() if timeout is None else (timeout,)))
        self._divide()
        return True

    def get_future(self) -> "Future[Tensors]":
        """A future of the tensors; it carries the error if there is one."""

        def value(ended: "Future[Any]") -> Tensors:
            ended.value()
            self._divide()
            return self._tensors

        return callbacks.chain(self._work.get_future(), value)  # type: ignore[no-any-return]

    def _divide(self) -> None:
        with self._lock:
            if not self._divided:
                self._divided = True
                for tensor in self._tensors:
                    tensor.copy_(torch.div(tensor, self._ranks, rounding_mode="trunc"))

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self._work.is_completed()

    def is_success(self) -> bool:
        """Whether it has ended well."""
        return self._work.is_success()

    def exception(self) -> Any:
        """The error with which it ended, or None."""
        return self._work.exception()

    def result(self) -> Tensors:
        """The tensors."""
        return self._tensors

    def synchronize(self) -> None:
        """Same as ``wait()``."""
        self.wait()
