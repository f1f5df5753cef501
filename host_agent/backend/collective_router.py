"""Sends each collective of a process group to the engine or to the fallback group."""

import contextlib
import itertools
import logging
import os
import threading
import weakref
from collections import Counter
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
from wiresum.host_agent.agent.face import Finished
from wiresum.host_agent.agent.issued import FALLBACK, SWITCH, Issued, Ledger
from wiresum.host_agent.agent.peers.judge import with_numbers
from wiresum.host_agent.backend import exposed
from wiresum.host_agent.backend.agent_face import AgentFace
from wiresum.host_agent.backend.agreement import AgreedWork, Agreement
from wiresum.host_agent.backend.callbacks import current_scope, note_issued, watch_callbacks
from wiresum.host_agent.backend.completion import CompletionPool, Poller, Waiting
from wiresum.host_agent.backend.connections import Connections
from wiresum.host_agent.backend.cuda.agreed import on_stream_of_issuer
from wiresum.host_agent.backend.cuda.device import Device, Devices
from wiresum.host_agent.backend.cuda.staging import Staging
from wiresum.host_agent.backend.cuda.torch_device import TorchDevices
from wiresum.host_agent.backend.cuda.work import StagedWork
from wiresum.host_agent.backend.detail import Detail
from wiresum.host_agent.backend.dispatch import dispatched, method_of
from wiresum.host_agent.backend.fallback import let_gloo_finish
from wiresum.host_agent.backend.gloo_sums import GlooSums
from wiresum.host_agent.backend.integer_average import average, is_integer_average
from wiresum.host_agent.backend.patterns import MOST, Key, Pattern, key_of
from wiresum.host_agent.backend.plans import Piece, plan
from wiresum.host_agent.backend.request import Request, described, label_of, read
from wiresum.host_agent.backend.routing import ARGUMENTS, NEVER, op_name, why_not
from wiresum.host_agent.backend.tensors import copy_back, size_of
from wiresum.host_agent.backend.trace import Traced, profiling
from wiresum.host_agent.backend.work import Span, SwitchWork

log = logging.getLogger("wiresum")

IN_CALLBACK = (
    "it is issued from a future's callback, and callbacks run in another order on every rank"
)
ENGINE_FIRST_S = 5.0
LEAVE_S = 2.0
GLOO_FINISHES_S = 0.2
FORM = "this form of the call is for gloo"
NO_SWITCH = "no switch can come in this run, and gloo copies as fast as the ranks would"
OTHER_THREAD = (
    "a second group of all ranks uses the switch only while the thread that made the default group "
    "issues the collectives of both: the order of several threads may differ between ranks"
)

_OPTIONS = {"opts"}
_POINT_TO_POINT = frozenset({"send", "recv", "recv_anysource"})

_numbers = itertools.count()

routers: "weakref.WeakSet[CollectiveRouter]" = weakref.WeakSet()
"""Every router of this process that is still referenced, for the debug dump and the exit."""


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
    members: tuple[int, ...] = ()
    """Its ranks, by their numbers in the default group; empty: all of them in their order."""


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
        below: "Callable[[], CollectiveRouter] | None" = None,
    ) -> None:
        """``agent`` is None where this group does not use the switch; ``why_no_agent`` says why.

        ``said``: whoever makes the group has logged that.
        ``make_group(prefix)`` makes a fallback group; all ranks call it with the same prefixes.
        ``world``: the router of another group of the same ranks, which has the agent: what the
        switch can do for this group is done as the next collective of that one.
        ``below`` makes the router of another group of the same ranks, which carries what callbacks
        issue, in the order that the ranks agree on. None: a fallback group alone does.
        """
        rank, size, store = options.rank, options.size, options.store
        self.number = next(_numbers)  # in the order in which this process has made them
        self.name = options.name
        self._torch_name = options.torch_name
        self.members = options.members or tuple(range(size))
        self._part = bool(options.members)
        self._begin: Callable[[], None] | None = None
        self._counts: Counter[str] = Counter()
        self._patterns: dict[Key, Pattern] = {}
        self.rank = rank
        self.size = size
        self.timeout = options.timeout
        self.agent = agent
        self.why_no_agent = why_no_agent
        self._said = said
        self._world = world
        self._thread = threading.get_ident()
        self._several_threads = False  # whether another one has used the switch, too
        self._process = os.getpid()
        self._lock = threading.Lock()
        self.closed = False
        self._last: dict[str, Any] = {}
        self._ledger = Ledger()
        self._pool = CompletionPool()

        self._has_below = below is not None

        def make_below() -> Below:
            router = None if below is None else below()
            return Below(router, make_group("callbacks") if router is None else router.inner)

        self._agreement = Agreement(store, size, make_below, self._pool.submit)
        self._detail = Detail(rank, self.members, lambda: make_group("detail"))
        self._poller = Poller(agent.engine, self._error_of) if agent is not None else None
        self._connections = Connections()
        self.devices: Devices = TorchDevices()
        """The devices whose tensors are carried by way of the host's memory."""
        self._staging: Staging | None = None
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
                self._give_sums(agent, lambda: make_group("ranks"))
            except BaseException:
                self.shutdown()
                raise
        routers.add(self)
        if agent is not None:
            agent.watch(self)
            agent.register(self._torch_name)

    def _give_sums(self, agent: AgentFace, make_group: Callable[[], dist.ProcessGroup]) -> None:
        def make() -> GlooSums:
            return GlooSums(make_group, self.size, agent.collective_s)

        if agent.begins_later:
            self._begin = lambda: agent.begin(make)
        else:
            agent.use_ranks(make())

    # -- the switch ---------------------------------------------------------------------------

    def collective(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A collective, over the switch if it can.

        ``method`` and its arguments are those of ``ProcessGroup``.
        """
        self._check_process()
        if kwargs.keys() == _OPTIONS:
            args, kwargs = (*args, kwargs["opts"]), {}
        request = key = None
        if not kwargs:
            key = key_of(method, args)
            work = self._repeated(key, args)
            if work is not None:
                return work
            request = read(method, args, self.rank, self.size)
        reason = FORM if request is None else self._why_not(request)
        if request is None or reason is not None:
            return self.fall_back(method, reason, *args, **kwargs)
        carrier, scope = self._world or self, current_scope()
        if scope is None:
            return carrier._over_switch(request, self, key)
        return carrier._agreed(
            scope.next_collective(),
            label_of(method),
            lambda below: below.collective(method, args),
            self._limit_s(request.timeout),
            request.all_tensors,
        )

    def _repeated(self, key: Key | None, args: Sequence[Any]) -> SwitchWork | None:
        """A collective for which there is a pattern; None if it has to go the whole way."""
        carrier = self._world or self
        pattern = carrier._patterns.get(key) if key is not None else None
        if pattern is None or self.closed or carrier.closed or current_scope() is not None:
            return None
        if carrier._detail.on or carrier._staging is not None:
            return None
        if carrier is not self and not carrier._on_its_one_thread():
            return None
        return carrier._like(pattern, args, self)

    def _like(self, pattern: Pattern, args: Sequence[Any], group: "CollectiveRouter") -> SwitchWork:
        """Carry a collective of this pattern, of this group or of another one of its ranks."""
        self._several_threads |= threading.get_ident() != self._thread
        piece, memory, data, outputs = pattern.piece, None, None, []
        options = args[-1] if args else None
        if piece.memory is None:
            outputs = list(args[0])
            # As `detach()`, which would let another thread have the interpreter.
            memory = outputs[0].data
            data = memory.data_ptr()
        work = SwitchWork(
            *(self, group, self._number(pattern.listed)[1], outputs, (piece,), options),
            average=pattern.average,
            memory=memory,
        )
        self._to_engine(work, (piece,), data)
        exposed.issued(work)
        self._count(pattern.label, pattern.bytes, 1)
        return work

    def _over_switch(self, given: Request, group: "CollectiveRouter", key: Key | None) -> dist.Work:
        """Carry a collective of this group, or of another one of its ranks."""
        self._several_threads |= threading.get_ident() != self._thread
        compared = Detail.tensors_of(given.method, given.tensors)
        name = self._next_name(given.method, SWITCH, given.described, given.agreed, compared)
        values, viewed = given.plain()

        def carry(tensors: Sequence[Any]) -> dist.Work:
            request = values.with_tensors(tensors)
            outputs = given.outputs if viewed else request.outputs
            device = self.devices.of(request.all_tensors)
            if device is not None:
                limit_s = group.limit_of(given.options)
                return self._by_way_of_host(device, name, request, outputs, viewed, limit_s)
            made = plan(request)
            work = SwitchWork(
                *(self, group, name, outputs, made.pieces, given.options),
                average=given.op == "AVG",
            )
            work.copy_in_the_end([*made.copies, *viewed])
            if key is not None and request is given and len(self._patterns) < MOST:
                pattern = Pattern.of(request, made)
                if pattern is not None:
                    self._patterns[key] = pattern
            with self._traced(request, work):
                self._hand_over(work, made.pieces)
            self._count(label_of(request.method), request.bytes, len(made.pieces))
            return work

        return dispatched(self.inner, given.method, values.tensors, given.options, carry)

    def _by_way_of_host(
        self,
        device: Device,
        name: str,
        request: Request,
        outputs: list[torch.Tensor],
        viewed: list[tuple[torch.Tensor, torch.Tensor]],
        limit_s: float,
    ) -> dist.Work:
        """Carry a collective of tensors on a device."""
        if self._staging is None:
            self._staging = Staging(self.rank, self.size, self._field(), self._to_engine)
        average = request.op == "AVG"
        work = StagedWork(name, outputs, device, limit_s, self.late, self.complete_later)
        with self._traced(request, work):
            pieces = self._staging.begin(
                device,
                request,
                [*viewed],
                work,
                self._limit_s(None),
                lambda spans, done: self._sum_over_ranks(name, spans, average, done),
            )
        exposed.issued(work)
        self._count(label_of(request.method), request.bytes, pieces)
        return work

    def _field(self) -> int:
        """Bits of an element on the wire; 32 where the ranks change them while they train."""
        state = {} if self.agent is None else self.agent.describe()
        return 32 if "tuning" in state else int(state.get("field", 32))

    def _count(self, label: str, size: int, pieces: int) -> None:
        ranks = self.agent is not None and self.agent.carrier == RANKS
        why = "" if not ranks or COUNTERS.ranks_why else self._why_ranks()
        self._counts[RANKS if ranks else SWITCH] += 1
        COUNTERS.count_carried(label, pieces, size, ranks=ranks, why=why)

    def _traced(
        self, request: Request, work: SwitchWork | StagedWork
    ) -> contextlib.AbstractContextManager[object]:
        """Around the handing over of a collective: it is in the trace until its work ends."""
        if not profiling():
            return contextlib.nullcontext()
        traced = Traced(
            label_of(request.method),
            *(request.inputs, request.outputs),
            *(self._torch_name, self.members),
        )
        work.when_ended = traced.end
        return traced

    def _why_ranks(self) -> str:
        state = {} if self.agent is None else self.agent.describe()
        return str(state.get("why_ranks") or "")

    def _why_not(self, request: Request) -> str | None:
        if self.closed:
            raise errors.EngineClosed(lines.SHUT_DOWN.of())
        if self._world is not None:
            return self._world._why_not_for_another_group(request)
        if self.agent is None:
            return self.why_no_agent
        if current_scope() is not None and not self._has_below:
            return IN_CALLBACK
        if not (request.op or self.agent.may_have_switch):
            return NO_SWITCH
        if request.method == "allreduce" and len(request.outputs) != 1:
            return f"all-reduces take one tensor, not {len(request.outputs)}"
        tensors = request.all_tensors
        self._check_devices(request.method, tensors)
        largest = max((tensor.numel() for tensor in tensors), default=0)
        reason = why_not(request.op, tensors, largest) or self.devices.why_not(tensors)
        return reason or (None if request.fits else ARGUMENTS)

    def _check_devices(self, method: str, tensors: Sequence[torch.Tensor]) -> None:
        """Refuse tensors of several devices: on another rank they may be of one."""
        found = list(dict.fromkeys(str(tensor.device) for tensor in tensors))
        if len(found) > 1:
            line = lines.SEVERAL_DEVICES.of(
                collective=label_of(method), devices=" and ".join(found), rank=self.number_in_run
            )
            raise errors.EngineError(line)

    def _why_not_for_another_group(self, request: Request) -> str | None:
        """For a group of the same ranks, whose collectives and this group's get one order.

        One thread keeps it. Which thread that is must not depend on chance, or the ranks would go
        different ways: a pool's thread that has made the other group would do.
        """
        # What callbacks issue has an order that does not depend on threads.
        if current_scope() is None and not self._on_its_one_thread():
            return OTHER_THREAD
        return self._why_not(request)

    def _on_its_one_thread(self) -> bool:
        """Whether the thread that made this group is the calling one, and alone uses the switch."""
        return not self._several_threads and threading.get_ident() == self._thread

    def _next_name(
        self,
        method: str,
        path: str,
        options: str,
        what: tuple[str, int | None],
        tensors: Sequence[torch.Tensor],
    ) -> str:
        """Number a collective of the script's own order; check it against the other ranks'.

        All that is given must be alike on all ranks. ``what``: dtype and elements.
        """
        number, name = self._number((label_of(method), path, options, *what))
        self._detail.check(number, method, tensors, options)
        return name

    def _number(self, listed: tuple[str, str, str, str, int | None]) -> tuple[int, str]:
        """Its number, and its name."""
        number = self._ledger.issue(*listed)
        begin = self._begin
        if begin is not None:
            self._begin = None
            begin()
        name = f"{self.name}:{number}"
        note_issued(name)
        return number, name

    def _hand_over(self, work: SwitchWork, pieces: Sequence[Piece]) -> None:
        if self._staging is not None and self._staging.busy:
            self._staging.follow(lambda: self._to_engine(work, pieces), work.fail)
        else:
            self._to_engine(work, pieces)
        exposed.issued(work)

    def _to_engine(self, work: Waiting, pieces: Sequence[Piece], data: int | None = None) -> None:
        # `data`: the address of a piece without memory of its own.
        # One lock from the tickets to the engine: they count up in the order in which it gets them.
        with self._lock:
            if self.agent is None or self._poller is None:
                raise errors.EngineClosed(lines.SHUT_DOWN.of())
            self.agent.check()
            engine = self.agent.engine
            tickets = self._poller.expect(work, len(pieces))
            calls = [
                piece.call(ticket, data) for piece, ticket in zip(pieces, tickets, strict=True)
            ]
            try:
                if calls:
                    engine.collect(calls)
            except WiresumError:
                self._poller.forget(tickets)
                raise

    def _sum_over_ranks(
        self,
        name: str,
        spans: Sequence[Span],
        average: bool,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Sum spans of tensors that hold Inf or NaN on some rank, which no integer can carry."""
        values = torch.cat([span.memory.float() for span in spans])
        COUNTERS.count_fallback(
            "all_reduce of blocks with Inf or NaN",
            "integers carry neither",
            size_of(values),
            level=logging.DEBUG,
        )

        def finish(_ended: object) -> None:
            error = work.exception()
            if error is None:
                try:
                    if average:
                        values.div_(self.size)
                    totals = torch.split(values, [span.memory.numel() for span in spans])
                    pairs = zip(totals, spans, strict=True)
                    copy_back([(total, span.memory) for total, span in pairs if span.reads])
                except Exception as failure:
                    error = failure
            done(error)

        work = self._agreement.submit(
            f"{name}/nonfinite",
            "the sum of the blocks that hold Inf or NaN",
            lambda below: below.plain.allreduce([values], dist.AllreduceOptions()),
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
        line = finished.error or "the collective failed"
        if self._part:
            line = with_numbers(line, self.members)
        return errors.engine_error(finished.kind, line)

    def complete_later(self, job: Callable[[], None]) -> None:
        """See ``work.Owner``."""
        self._pool.submit(job)

    def repair(
        self,
        work: SwitchWork,
        spans: Sequence[Span],
        done: Callable[[BaseException | None], None],
    ) -> None:
        """See ``work.Owner``."""
        self._sum_over_ranks(work.name, spans, work.average, done)

    def limit_of(self, options: Any) -> float:
        """See ``work.Limits``."""
        return self._limit_s(getattr(options, "timeout", None))

    def late(self, seconds: float) -> WiresumError:
        """See ``work.Owner``."""
        name = "the switch"
        if self.agent is not None and self.agent.carrier == RANKS:
            name = "the ranks"
        elif self.agent is not None:
            name = self.agent.describe().get("switch", name)
        return errors.CollectiveTimeout(
            lines.LATE.of(name=name, seconds=seconds, rank=self.number_in_run)
        )

    def _limit_s(self, timeout: timedelta | None) -> float:
        """How long ``wait()`` waits for a collective that was issued with ``timeout``."""
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        own = self.timeout.total_seconds()
        if self._world is not None and own < self._world.timeout.total_seconds():
            return seconds if seconds > 0 else own  # the engine has the world's limit
        if seconds <= 0 or timeout == self.timeout:
            # The engine has the same limit, and its error says who is missing: let it come first.
            return own + ENGINE_FIRST_S
        return seconds

    # -- the fallback -------------------------------------------------------------------------

    def fall_back(self, method: str, reason: str | None, *args: Any, **kwargs: Any) -> Any:
        """Do what the fallback group's method of that name does; count it, log the first."""
        self._check_process()
        label = label_of(method)
        scope = current_scope()
        why = self.why_no_agent or reason
        level = logging.DEBUG
        if self.rank == 0 and not self._said:
            level = logging.INFO if why is None else logging.WARNING
        tensors = Detail.tensors_of(method, args)
        size = size_of(tensors or args[:1])
        self._counts[FALLBACK] += 1
        COUNTERS.count_fallback(label, why or NEVER.get(label, FORM), size, level=level)
        if scope is None or method in _POINT_TO_POINT:
            if method not in _POINT_TO_POINT:
                summed = method in ("allreduce", "allreduce_coalesced")
                what = described(tensors) if summed else ("", None)
                self._next_name(method, FALLBACK, Detail.options_of(args), what, tensors)
            return _run(self.inner, method, args, kwargs)
        return self._agreed(
            *(scope.next_collective(), label),
            lambda below: _run(below.plain, method, args, kwargs),
            self._limit_s(None),
            tensors,
        )

    def _agreed(
        self,
        name: str,
        label: str,
        issue: "Callable[[Below], dist.Work]",
        limit_s: float,
        tensors: Sequence[torch.Tensor],
    ) -> AgreedWork:
        # The group of callbacks runs beside the script's own collectives, on another thread.
        issue = on_stream_of_issuer(self.devices, tensors, issue, limit_s)
        return self._agreement.submit(name, label, issue, limit_s)

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

    @property
    def number_in_run(self) -> int:
        """This rank, as errors call it: by its number in the default group."""
        return self.members[self.rank]

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise errors.EngineClosed(lines.FORKED.of(rank=self.number_in_run))

    # -- the end ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Leave the job. What is in flight ends with an error. May be called twice."""
        if os.getpid() != self._process:
            return  # the group is the parent's
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._agreement.fail(errors.EngineClosed(lines.SHUT_DOWN.of()))
        self._agreement.join(LEAVE_S)
        below = self._agreement.group
        if below is not None and below.router is not None:
            below.router.shutdown()
        agent, poller = self.agent, self._poller
        self.settle()
        if agent is not None:
            self._last = agent.describe()
            agent.close()
            COUNTERS.count_engine(agent.engine.stats())
        if poller is not None:
            poller.close()
        if self._staging is not None:
            self._staging.close()
        self._pool.close()
        let_gloo_finish(GLOO_FINISHES_S)  # other groups may keep its threads busy
        # A group that something still refers to at the interpreter's end must not keep the engine.
        self.agent = self._poller = None

    def settle(self) -> None:
        """Let what has been waited for be counted."""
        if self._poller is not None:
            self._poller.settle()

    def engine_stats(self) -> dict[str, Any]:
        """The engine's counters; empty without an agent, and after :meth:`shutdown`."""
        if self.agent is None or self.closed:
            return {}
        return dict(self.agent.engine.stats())

    def describe(self) -> dict[str, Any]:
        """State for the debug dump."""
        state: dict[str, Any] = {
            "name": self.name,
            "rank": self.rank,
            "size": self.size,
            "ranks": list(self.members),
            "collectives": dict(self._counts),
            "why": self.why_no_agent,
        }
        if self._world is not None:
            state["lease_of"] = self._world.name
        if self.agent is not None and self._poller is not None:
            state["lease"] = self.agent.describe()
            state["engine"] = self.engine_stats()
            state["pending_tickets"] = self._poller.pending()
        elif self._last:
            state["lease"] = self._last
        return state


@dataclass(frozen=True)
class Below:
    """What callbacks' collectives are carried out on, one after the other."""

    router: CollectiveRouter | None
    """The way to the switch; None where the group does not use it."""
    plain: dist.ProcessGroup
    """The fallback."""

    def collective(self, method: str, args: tuple[Any, ...]) -> dist.Work:
        """One that the switch can carry."""
        if self.router is None:
            return _run(self.plain, method, args, {})  # type: ignore[no-any-return]
        return self.router.collective(method, *args)  # type: ignore[no-any-return]


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
