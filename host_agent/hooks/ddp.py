"""The communication hook of DDP that sums what a state chooses of each bucket.

DDP calls it on the thread of the backward pass, bucket by bucket in one order on all ranks, and
waits for the futures at the end. Both all-reduces are issued on that thread: callbacks of futures
run in another order on each rank. A bucket's codes are waited for when the next bucket is ready, so
that they travel while the backward pass goes on; only the last bucket's are waited for at once.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket

from wiresum.host_agent.hooks.exchange import Exchange
from wiresum.host_agent.hooks.state import State


def compress(state: State, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Take the mean of a bucket's gradients as ``state`` says.

    ::

        model = DistributedDataParallel(model)
        model.register_comm_hook(wiresum.hooks.TopK(model, k=0.1), wiresum.hooks.compress)
    """
    gradients = bucket.gradients()
    exchange = state.exchange(bucket.index(), bucket.parameters())
    if bucket.index() == 0:
        state.held = None  # of a backward pass that has failed
    state.tell(bucket.index(), exchange.begin(gradients, state.group))
    mine = _Held(exchange, gradients, torch.futures.Future())
    before, state.held = state.held, mine
    if before is not None:
        before.send(state.group)
    if bucket.is_last():
        state.held = None
        mine.send(state.group)
    buffer: torch.Tensor = bucket.buffer()

    def give(done: torch.futures.Future[Any]) -> torch.Tensor:
        # An error set on a future ends the process in DDP; one that a callback raises does not.
        error = done.value()
        if error is not None:
            raise error
        return buffer

    return mine.done.then(give)


@dataclass
class _Held:
    """A bucket whose codes are on their way."""

    exchange: Exchange
    gradients: list[torch.Tensor]
    done: torch.futures.Future[Any]

    def send(self, group: dist.ProcessGroup | None) -> None:
        work = self.exchange.send(group)

        def finish(summed: torch.futures.Future[Any]) -> None:
            error = None
            try:
                summed.wait()
                self.exchange.finish(self.gradients)
            except Exception as caught:
                error = caught
            self.done.set_result(error)

        work.get_future().add_done_callback(finish)
