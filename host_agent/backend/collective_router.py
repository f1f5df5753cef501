"""Sends each collective of a process group to the engine or to the fallback group."""

import contextlib
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from wiresum.common.errors import WiresumError
from wiresum.host_agent import errors, lines
from wiresum.host_agent.agent.carriers import RANKS
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.face import Call, Finished
from wiresum.host_agent.agent.issued import FALLBACK, SWITCH, Issued, Ledger
from wiresum.host_agent.backend import exposed
from wiresum.host_agent.backend.agent_face import AgentFace
from wiresum.host_agent.backend.agreement import AgreedWork, Agreement
from wiresum.host_agent.backend.callbacks import current_scope, note_issued, watch_callbacks
from wiresum.host_agent.backend.completion import CompletionPool, Poller
from wiresum.host_agent.backend.connections import Connections
from wiresum.host_agent.backend.detail import Detail
from wiresum.host_agent.backend.dispatch import dispatched
from wiresum.host_agent.backend.fallback import let_gloo_finish
from wiresum.host_agent.backend.gloo_sums import GlooSums
from wiresum.host_agent.backend.integer_average import average, is_integer_average
from wiresum.host_agent.backend.routing import engine_dtype, op_name, why_not_tensors
from wiresum.host_agent.backend.tensors import buffers_of, plain, size_of
from wiresum.host_agent.backend.trace import Traced, profiling
from wiresum.host_agent.backend.work import Memory, SwitchWork

log = logging.getLogger("wiresum")

IN_CALLBACK = (
    "it is issued from a future's callback, and callbacks run in another order on every rank"
)
ENGINE_FIRST_S = 5.0
LEAVE_S = 2.0
GLOO_FINISHES_S = 0.2
NOT_AN_ALL_REDUCE = "only all-reduces use the switch"
OTHER_THREAD = (
    "a second group of all ranks uses the switch only while the thread that made the default group "
    "issues the sums of both: the order of several threads may differ between ranks"
)

LABELS = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce_coalesced",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather",
    "alltoall": "all_to_all",
    "recv_anysource": "recv",
}
"""The users' name of a method of ``ProcessGroup``, where it differs."""

# New name → the name that older releases of torch know.
_OLD_NAMES = {
    "all_gather_single": "_allgather_base",
    "all_gather_single_coalesced": "allgather_into_tensor_coalesced",
    "reduce_scatter_single": "_reduce_scatter_base",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
    "all_to_all_single": "alltoall_base",
}
_POINT_TO_POINT = frozenset({"send", "recv", "recv_anysource"})

_numbers = itertools.count()

routers: "weakref.WeakSet[CollectiveRouter]" = weakref.WeakSet()
"""Every router of this process that is still referenced, for the debug dump and the exit."""


def method_of(group: dist.ProcessGroup, name: str) -> Callable[..., Any]:
    """``group``'s method of that name, by its older name where torch has no other."""
    return getattr(group, name, None) or getattr(group, _OLD_NAMES[name])  # type: ignore[no-any-return]


@dataclass(frozen=True)
class GroupOptions:
    """What torch gives a new process group."""

    name: str
    """The group's name among those of this process; the same on all ranks."""
    rank: int
    size: int
    timeout: timedelta
    """The limit of collectives that bring none of their own."""
    store: Store
    """For this group alone."""
    torch_name: str = ""
    """torch's own name of the group, by which traces know it."""


class CollectiveRouter:
    """Sends each collective to the engine or to the fallback group, and counts both."""

    def __init__(
        self,
        options: GroupOptions,
        make_group: Callable[[str], dist.ProcessGroup],
        agent: AgentFace | None,
        why_no_agent: str | None = None,
        *,
        said: bool = False,
        world: "CollectiveRouter | None" = None,
    ) -> None:
        """``agent`` is None where this group does not use the switch; ``why_no_agent`` says why.

        ``said``: whoever makes the group has logged that.
        ``make_group(prefix)`` makes a fallback group; all ranks call it with the same prefixes.
        ``world``: the router of another group of the same ranks, which has the agent: what the
        switch can do for this group is done as the next collective of that one.
        """
        rank, size, store = options.rank, options.size, options.store
        self.number = next(_numbers)  # in the order in which this process has made them
        self.name = options.name
        self._torch_name = options.torch_name
        self.rank = rank
        self.size = size
        self.timeout = options.timeout
        self.agent = agent
        self.why_no_agent = why_no_agent
        self._said = said
        self._world = world
        self._thread = threading.get_ident()
        self._several_threads = False  # whether another one has issued sums for the switch, too
        self._process = os.getpid()
        self._lock = threading.Lock()
        self.closed = False
        self._last: dict[str, Any] = {}
        self._ledger = Ledger()
        self._pool = CompletionPool()
        self._agreement = Agreement(store, size, lambda: make_group("callbacks"), self._pool.submit)
        self._detail = Detail(rank, lambda: make_group("detail"))
        self._poller = Poller(agent.engine, self._error_of) if agent is not None else None
        self._connections = Connections()
        if agent is not None:
            watch_callbacks()
        try:
            with self._connections:
                self.inner = make_group("main")
        except BaseException:
            self.shutdown()
            raise
        if agent is not None and agent.leaves_switch:
            try:
                agent.use_ranks(GlooSums(lambda: make_group("ranks"), size, agent.collective_s))
            except BaseException:
                self.shutdown()
                raise
        routers.add(self)
        if agent is not None:
            agent.watch(self)

    # -- the switch ---------------------------------------------------------------------------

    def allreduce(self, tensors: Sequence[torch.Tensor], opts: Any, method: str) -> dist.Work:
        """All-reduce in place, over the switch if it can.

        ``method`` is that of ``ProcessGroup``: ``allreduce`` or ``allreduce_coalesced``.
        """
        self._check_process()
        tensors = list(tensors)
        op = op_name(opts.reduceOp)
        reason = self._why_not(tensors, op, method)
        if reason is not None:
            fallen: dist.Work = self.fall_back(method, reason, tensors, opts)
            return fallen
        if self._world is not None:
            return self._world.allreduce(tensors, opts, method)
        self._several_threads |= threading.get_ident() != self._thread
        name = self._next_name(method, SWITCH, op, tensors)
        values = [plain(tensor) for tensor in tensors]
        viewed = [(v, t) for v, t in zip(values, tensors, strict=True) if v is not t]

        def carry(given: list[torch.Tensor]) -> dist.Work:
            buffers, copies = buffers_of(given, op)
            work = SwitchWork(
                name,
                Memory(tensors if viewed else given, buffers, [*copies, *viewed]),
                self._limit_s(opts.timeout),
                self._late,
                self._pool.submit,
                lambda pieces, done: self._sum_over_ranks(name, pieces, op == "AVG", done),
            )
            with self._traced(method, given, work):
                self._hand_over(work, buffers, op)
            size = size_of(given)
            ranks = self.agent is not None and self.agent.carrier == RANKS
            why = "" if not ranks or COUNTERS.ranks_why else self._why_ranks()
            COUNTERS.count_carried(LABELS[method], len(buffers), size, ranks=ranks, why=why)
            return work

        return dispatched(self.inner, method, values, opts, carry)

    def _traced(
        self, method: str, buffers: Sequence[torch.Tensor], work: SwitchWork
    ) -> contextlib.AbstractContextManager[object]:
        """Around the handing over of a collective: it is in the trace until its work ends."""
        if not profiling():
            return contextlib.nullcontext()
        # Only groups of all ranks use the switch.
        traced = Traced(LABELS[method], buffers, self._torch_name, range(self.size))
        work.when_ended = traced.end
        return traced

    def _why_ranks(self) -> str:
        state = {} if self.agent is None else self.agent.describe()
        return str(state.get("why_ranks") or "")

    def _why_not(self, tensors: Sequence[torch.Tensor], op: str, method: str) -> str | None:
        if self.closed:
            raise errors.EngineClosed(lines.SHUT_DOWN.of())
        if self._world is not None:
            return self._world._why_not_for_another_group(tensors, op, method)
        if self.agent is None:
            return self.why_no_agent
        if current_scope() is not None:
            return IN_CALLBACK
        if method == "allreduce" and len(tensors) != 1:
            return f"all-reduces take one tensor, not {len(tensors)}"
        return why_not_tensors(tensors, op)

    def _why_not_for_another_group(
        self, tensors: Sequence[torch.Tensor], op: str, method: str
    ) -> str | None:
        """For a group of the same ranks, whose sums and this group's get one order.

        One thread keeps it. Which thread that is must not depend on chance, or the ranks would go
        different ways: a pool's thread that has made the other group would do.
        """
        if self._several_threads or threading.get_ident() != self._thread:
            return OTHER_THREAD
        return self._why_not(tensors, op, method)

    def _next_name(self, method: str, path: str, op: str, tensors: Sequence[torch.Tensor]) -> str:
        """Number a collective of the script's own order; check it against the other ranks'.

        ``op`` and ``tensors``: what must be alike on all ranks.
        """
        what = _what(tensors) if method in ("allreduce", "allreduce_coalesced") else ("", None)
        number = self._ledger.issue(LABELS.get(method, method), path, op, *what)
        name = f"{self.name}:{number}"
        note_issued(name)
        self._detail.check(number, method, tensors, op)
        return name

    def _hand_over(self, work: SwitchWork, buffers: Sequence[torch.Tensor], op: str) -> None:
        # One lock from the tickets to the engine: they count up in the order in which it gets them.
        with self._lock:
            if self.agent is None or self._poller is None:
                raise errors.EngineClosed(lines.SHUT_DOWN.of())
            self.agent.check()
            engine = self.agent.engine
            tickets = self._poller.expect(work, len(buffers))
            pieces = [
                Call(b.data_ptr(), b.numel(), engine_dtype(b, op), op == "AVG", ticket)
                for ticket, b in zip(tickets, buffers, strict=True)
            ]
            try:
                if pieces:
                    engine.collect(pieces)
            except WiresumError:
                self._poller.forget(tickets)
                raise
        exposed.issued(work)

    def _sum_over_ranks(
        self,
        name: str,
        pieces: list[torch.Tensor],
        average: bool,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Sum pieces of a tensor that hold Inf or NaN on some rank, which no integer can carry."""
        values = torch.cat([piece.float() for piece in pieces])
        COUNTERS.count_fallback(
            "all_reduce of blocks with Inf or NaN",
            "integers carry neither",
            size_of(values),
            level=logging.DEBUG,
        )

        def finish(_ended: object) -> None:
            if work.exception() is None:
                if average:
                    values.div_(self.size)
                for piece, total in zip(
                    pieces, torch.split(values, [piece.numel() for piece in pieces]), strict=True
                ):
                    piece.copy_(total)
            done(work.exception())

        work = self._agreement.submit(
            f"{name}/nonfinite",
            "the sum of the blocks that hold Inf or NaN",
            lambda group: group.allreduce([values], dist.AllreduceOptions()),
            self._limit_s(None),
        )
        work.when_ended(finish)

    def _error_of(self, finished: Finished) -> Exception:
        """The typed exception for a ticket that failed; a lost lease explains all that follow."""
        try:
            if self.agent is not None:
                self.agent.check()
        except WiresumError as gone:
            return gone
        return errors.engine_error(finished.kind, finished.error or "the all-reduce failed")

    def _late(self, seconds: float) -> WiresumError:
        name = "the switch"
        if self.agent is not None and self.agent.carrier == RANKS:
            name = "the ranks"
        elif self.agent is not None:
            name = self.agent.describe().get("switch", name)
        return errors.CollectiveTimeout(lines.LATE.of(name=name, seconds=seconds, rank=self.rank))

    def _limit_s(self, timeout: timedelta | None) -> float:
        """How long ``wait()`` waits for a collective that was issued with ``timeout``."""
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        if seconds <= 0 or timeout == self.timeout:
            # The engine has the same limit, and its error says who is missing: let it come first.
            return self.timeout.total_seconds() + ENGINE_FIRST_S
        return seconds

    # -- the fallback -------------------------------------------------------------------------

    def fall_back(self, method: str, reason: str | None, *args: Any, **kwargs: Any) -> Any:
        """Do what the fallback group's method of that name does; count it, log the first."""
        self._check_process()
        label = LABELS.get(method, method)
        scope = current_scope()
        why = self.why_no_agent or reason
        level = logging.DEBUG
        if self.rank == 0 and not self._said:
            level = logging.INFO if why is None else logging.WARNING
        tensors = Detail.tensors_of(method, args)
        size = size_of(tensors or args[:1])
        COUNTERS.count_fallback(label, why or NOT_AN_ALL_REDUCE, size, level=level)
        if scope is None or method in _POINT_TO_POINT:
            if method not in _POINT_TO_POINT:
                self._next_name(method, FALLBACK, Detail.options_of(args), tensors)
            return _run(self.inner, method, args, kwargs)
        return self._agreed(scope.next_collective(), label, method, args, kwargs)

    def _agreed(
        self, name: str, label: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AgreedWork:
        # The group of callbacks runs beside the script's own collectives, on another thread.
        return self._agreement.submit(
            name,
            label,
            lambda group: _run(group, method, args, kwargs),
            self._limit_s(None),
        )

    def set_timeout(self, timeout: timedelta) -> None:
        """The limit of collectives that bring none of their own."""
        self.timeout = timeout
        self.inner.set_timeout(timeout)

    # -- for the other ranks: see agent.issued.Group --------------------------------------------

    def issued(self) -> Sequence[Issued]:
        """The latest collectives, the oldest first."""
        return self._ledger.issued()

    def abort(self, error: WiresumError) -> None:
        """End what the fallback has in flight, and what the ranks have not agreed on yet."""
        self._agreement.fail(error)
        if not self._connections.sever(self.size - 1):
            log.debug("wiresum: the fallback cannot be ended: %s", error)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise errors.EngineClosed(lines.FORKED.of(rank=self.rank))

    # -- the end ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Leave the job. What is in flight ends with an error. May be called twice."""
        if os.getpid() != self._process:
            return  # the group is the parent's
        with self._lock:
            if self.closed:
                return
            self.closed = True
        agent, poller = self.agent, self._poller
        if agent is not None:
            self._last = agent.describe()
            agent.close()
            COUNTERS.count_engine(agent.engine.stats())
        if poller is not None:
            poller.close()
        self._agreement.fail(errors.EngineClosed(lines.SHUT_DOWN.of()))
        self._agreement.join(LEAVE_S)
        self._pool.close()
        let_gloo_finish(GLOO_FINISHES_S)  # other groups may keep its threads busy
        # A group that something still refers to at the interpreter's end must not keep the engine.
        self.agent = self._poller = None

    def engine_stats(self) -> dict[str, Any]:
        """The engine's counters; empty without an agent, and after :meth:`shutdown`."""
        if self.agent is None or self.closed:
            return {}
        return dict(self.agent.engine.stats())

    def describe(self) -> dict[str, Any]:
        """State for the debug dump."""
        state: dict[str, Any] = {"rank": self.rank, "size": self.size, "why": self.why_no_agent}
        if self._world is not None:
            state["lease_of"] = self._world.name
        if self.agent is not None and self._poller is not None:
            state["lease"] = self.agent.describe()
            state["engine"] = self.engine_stats()
            state["pending_tickets"] = self._poller.pending()
        elif self._last:
            state["lease"] = self._last
        return state


def _run(
    group: dist.ProcessGroup, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Do it on a fallback group."""
    start = method_of(group, method)
    if method in ("allreduce", "allreduce_coalesced"):
        tensors, options = args
        if is_integer_average(tensors, op_name(options.reduceOp)):
            return average(start, tensors, options, group.size())
    return start(*args, **kwargs)


def _what(tensors: Sequence[torch.Tensor]) -> tuple[str, int | None]:
    """Dtype and number of elements of all together."""
    if not tensors:
        return "", None
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    return "+".join(dtypes)[:64], sum(tensor.numel() for tensor in tensors)
