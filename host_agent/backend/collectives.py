"""Every collective that torch may call on a group or a backend, each sent to the router.

A method that C++ can call and that Python does not override runs while C++ holds the GIL, and
ends in a deadlock against gloo. So this overrides all of them, under the new names and the old.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from wiresum.host_agent.backend.collective_router import CollectiveRouter
from wiresum.host_agent.backend.dynamo import not_traced
from wiresum.host_agent.backend.routing import reduce_op


def _delegate(name: str) -> Callable[..., Any]:
    """A method that does what the fallback group's method of that name does."""

    def method(self: "Collectives", *args: Any, **kwargs: Any) -> Any:
        return self.router.fall_back(name, None, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"``ProcessGroup.{name}`` over the fallback group."
    return method


def _carried(name: str) -> Callable[..., Any]:
    """``ProcessGroup``'s method of that name, over the switch where it can."""

    def method(self: "Collectives", *args: Any, **kwargs: Any) -> Any:
        return self.router.collective(name, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"``ProcessGroup.{name}``, over the switch where it can."
    return method


def _options(kind: type, opts: Any, op: Any, timeout: timedelta | None) -> Any:
    """Options of a call in any of its forms: (…, opts), (…, op, timeout) or neither."""
    if opts is not None and not isinstance(opts, dist.ReduceOp | dist.ReduceOp.RedOpType):
        return opts
    made = kind()
    made.reduceOp = reduce_op(opts if opts is not None else op or dist.ReduceOp.SUM)
    if timeout is not None:
        made.timeout = timeout
    return made


@not_traced
class Collectives:
    """Mixin over ``dist.ProcessGroup`` (up to torch 2.14) and ``dist.Backend`` (from 2.15)."""

    router: CollectiveRouter

    def allreduce(
        self, tensors: Any, opts: Any = None, timeout: timedelta | None = None, op: Any = None
    ) -> Any:
        """All-reduce in place a tensor or a list of tensors: over the switch where it can."""
        if isinstance(tensors, torch.Tensor):
            tensors = [tensors]
        options = _options(dist.AllreduceOptions, opts, op, timeout)
        return self.router.collective("allreduce", list(tensors), options)

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> Any:
        """All-reduce in place a list of tensors."""
        options = _options(dist.AllreduceCoalescedOptions, opts, None, None)
        return self.router.collective("allreduce_coalesced", list(tensors), options)

    allgather = _carried("allgather")
    allgather_coalesced = _carried("allgather_coalesced")
    all_gather_single = _carried("all_gather_single")
    _allgather_base = all_gather_single
    all_gather_single_coalesced = _carried("all_gather_single_coalesced")
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    reduce_scatter = _carried("reduce_scatter")
    reduce_scatter_single = _carried("reduce_scatter_single")
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_single_coalesced = _carried("reduce_scatter_single_coalesced")
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    broadcast = _carried("broadcast")
    reduce = _carried("reduce")
    gather = _carried("gather")
    scatter = _carried("scatter")
    barrier = _carried("barrier")
    all_to_all_single = _delegate("all_to_all_single")
    alltoall_base = all_to_all_single
    alltoall = _delegate("alltoall")
    send = _delegate("send")
    recv = _delegate("recv")
    recv_anysource = _delegate("recv_anysource")
    monitored_barrier = _delegate("monitored_barrier")

    def _start_coalescing(self, device: torch.device) -> None:
        self.router.inner._start_coalescing(device)

    def _end_coalescing(self, device: torch.device) -> dist.Work:
        return self.router.inner._end_coalescing(device)

    def _set_sequence_number_for_group(self) -> None:
        # The fallback's sequence numbers were set when it was made.
        return

    def _get_sequence_number_for_group(self) -> int:
        return int(self.router.inner._get_sequence_number_for_group())  # type: ignore[attr-defined]

    def set_timeout(self, timeout: timedelta) -> None:
        """The limit of collectives that bring none of their own."""
        self.router.set_timeout(timeout)

    _set_default_timeout = set_timeout

    def shutdown(self) -> None:
        """Leave the job; called by ``destroy_process_group``."""
        self.router.shutdown()

    abort = shutdown

    def getBackendName(self) -> str:
        """The name under which the backend is registered."""
        return "wiresum"

    name = _get_backend_name = getBackendName

    def rank(self) -> int:
        """This process's rank in the group."""
        return self.router.rank

    def size(self) -> int:
        """How many ranks the group has."""
        return self.router.size

    getRank = rank
    getSize = size
