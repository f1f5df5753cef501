"""Collectives over the switch, seen by torch's dispatcher like those of any other backend.

``dist.all_reduce`` and the others call a Python ``ProcessGroup`` directly. torch's own groups go
through the dispatcher from there (operator ``c10d::allreduce_``), where tensor subclasses unwrap
themselves and modes and profilers look on. :func:`dispatched` does the same: it calls the operator
on a plain group, and a kernel below the subclasses' and the modes' key (``BackendSelect``) hands
the tensors back to the caller. Groups of other backends pass through the kernel to torch's own.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup

from wiresum.host_agent.backend.trace import profiling

Carry = Callable[[Sequence[Any]], dist.Work]
"""Starts the collective, with plain tensors in the place of its arguments with tensors."""

OPERATORS = {
    "allreduce": "allreduce_",
    "allreduce_coalesced": "allreduce_coalesced_",
    "broadcast": "broadcast_",
    "reduce": "reduce_",
    "allgather": "allgather_",
    "allgather_coalesced": "allgather_coalesced_",
    "all_gather_single": "_allgather_base_",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced_",
    "reduce_scatter": "reduce_scatter_",
    "reduce_scatter_single": "_reduce_scatter_base_",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced_",
    "gather": "gather_",
    "scatter": "scatter_",
    "barrier": "barrier",
}
"""torch's operator for each method of ``ProcessGroup``."""

# New name → the name that older releases of torch know.
_OLD_NAMES = {
    "all_gather_single": "_allgather_base",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced",
    "reduce_scatter_single": "_reduce_scatter_base",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
    "all_to_all_single": "alltoall_base",
}

_here = threading.local()
_library: torch.library.Library | None = None
_install_lock = threading.Lock()


def method_of(group: dist.ProcessGroup, name: str) -> Callable[..., Any]:
    """``group``'s method of that name, by its older name where torch has no other."""
    return getattr(group, name, None) or getattr(group, _OLD_NAMES[name])  # type: ignore[no-any-return]


@dataclass
class _Call:
    group: ProcessGroup
    carry: Carry
    work: dist.Work | None = None
    held: dist.Work | None = None


def dispatched(
    group: ProcessGroup, method: str, tensors: Sequence[Any], options: Any, carry: Carry
) -> dist.Work:
    """Call ``group.method(*tensors, options)``; ``carry`` does the work in place of its backend.

    ``method`` is one of :data:`OPERATORS`.
    """
    _install()
    if _unseen(tensors):
        return carry(tensors)
    before = getattr(_here, "call", None)
    _here.call = call = _Call(group, carry)
    try:
        returned = method_of(group, method)(*tensors, options)
    finally:
        _here.call = before
    if call.work is not None and returned is call.held:
        return call.work
    return returned  # type: ignore[no-any-return]


_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)
_profiler = torch.autograd.profiler
_included, _keys = torch._C._dispatch_tls_local_include_set, torch._C._dispatch_keys
_observed = False  # whether an observer of all operators has been started in this process


def _ordinary() -> tuple[frozenset[int], frozenset[int]]:
    """What the dispatcher includes in a thread without modes, transforms and tracers; and the keys
    of ordinary tensors on the CPU. With and without inference mode."""
    included, keys = set(), set()
    for inference in (False, True):
        with torch.inference_mode(inference):
            included.add(_included().raw_repr())
            keys.add(_keys(torch.empty(0, device="cpu")).raw_repr())
    return frozenset(included), frozenset(keys)


_INCLUDED, _KEYS = _ordinary()


def _unseen(given: Sequence[Any]) -> bool:
    """Whether nothing on the way through the dispatcher would see this call.

    That is so of ordinary tensors without a mode, a transform, a profiler or an observer: then the
    way, which takes longer than a small collective on the wire, is left out.
    """
    if _observed or profiling():
        return False
    return _included().raw_repr() in _INCLUDED and all(map(_plain, given))


def ordinary(tensor: torch.Tensor) -> bool:
    """Whether the dispatcher would see nothing of a call with this tensor, which is on the CPU."""
    return (
        not (_observed or _profiler._is_profiler_enabled)
        and type(tensor) in _PLAIN_TYPES
        and _keys(tensor).raw_repr() in _KEYS
        and _included().raw_repr() in _INCLUDED
    )


def _plain(given: Any) -> bool:
    if isinstance(given, list | tuple):
        return all(map(_plain, given))
    return type(given) in _PLAIN_TYPES and _keys(given).raw_repr() in _KEYS


class _Holder(dist.ProcessGroup):
    """Makes a C++ work that keeps a Python work alive: torch wraps the result of an override."""

    def __init__(self) -> None:
        dist.ProcessGroup.__init__(self, 0, 1)  # type: ignore[call-arg]
        self.works = threading.local()

    def barrier(self, _options: object = None) -> dist.Work:
        """The work to hold."""
        return self.works.now  # type: ignore[no-any-return]


_holder: _Holder | None = None


def held(work: dist.Work) -> dist.Work:
    """Wrap a work that is written in Python, so that C++ can keep it.

    Without this it would end with its last reference in Python, although C++ still points to it.
    """
    global _holder
    if _holder is None:
        _holder = _Holder()
    _holder.works.now = work
    try:
        return ProcessGroup.barrier(_holder, dist.BarrierOptions())
    finally:
        del _holder.works.now


def _install() -> None:
    global _library
    with _install_lock:
        if _library is None:
            library = torch.library.Library("c10d", "IMPL")  # type: ignore[no-untyped-call]
            for name in OPERATORS.values():
                kernel = _kernel(name)
                library.impl(name, kernel, "BackendSelect", with_keyset=True)  # type: ignore[no-untyped-call]
            _library = library


def _watch_observers() -> None:
    """Note when the first observer of all operators is started: nothing else tells of one."""
    observer = torch.profiler.ExecutionTraceObserver
    start = observer.start

    @functools.wraps(start)
    def noted(self: Any) -> None:
        global _observed
        _observed = True
        start(self)

    observer.start = noted  # type: ignore[method-assign]


_watch_observers()  # before the first collective: an observer may be started before it


def _kernel(name: str) -> Callable[..., Any]:
    operator = getattr(torch.ops.c10d, name).default
    returns = len(operator._schema.returns)
    at = [each.name for each in operator._schema.arguments].index("process_group")
    given = 0 if name == "barrier" else at  # its tensor is torch's own
    here = torch._C.DispatchKeySet(torch._C.DispatchKey.BackendSelect)

    def kernel(keys: Any, *args: Any, **named: Any) -> Any:
        call: _Call | None = getattr(_here, "call", None)
        if call is None or ProcessGroup.unbox(args[at]) is not call.group:
            return operator.redispatch(keys - here, *args, **named)
        _here.call = None  # what the work itself calls is not this call
        call.work = call.carry(args[:given])
        call.held = held(call.work)
        return call.held.boxed() if returns == 1 else (args[0], call.held.boxed())

    return kernel
