"""Collectives of a device that ranks carry out later than they are issued, on another thread."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from wiresum.host_agent.backend.cuda.device import Devices
from wiresum.host_agent.backend.cuda.pool import wait_until

Group = TypeVar("Group")
Issue = Callable[[Group], dist.Work]


def on_stream_of_issuer(
    devices: Devices, tensors: Sequence[torch.Tensor], issue: Issue[Group], limit_s: float
) -> Issue[Group]:
    """``issue``, to be called on any thread, after what the calling thread's stream has got now.

    It returns a work whose results are on the device: who waits for it has no stream to order.
    """
    device = devices.of(tensors)
    if device is None:
        return issue
    stream = device.current()

    def issue_and_wait(group: Group) -> dist.Work:
        with stream.using():
            work = issue(group)
            work.wait()
            ended = stream.record()
        wait_until(ended.done, limit_s, "a collective of a callback")
        return work

    return issue_and_wait
