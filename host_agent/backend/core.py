"""What a ``wiresum`` process group does, whichever torch class it hides behind."""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from wiresum.common.errors import WiresumError
from wiresum.host_agent import errors
from wiresum.host_agent.backend import exposed
from wiresum.host_agent.backend.completion import CompletionPool, Poller, inside_callback
from wiresum.host_agent.backend.connections import Connections
from wiresum.host_agent.backend.counters import COUNTERS
from wiresum.host_agent.backend.link import Finished, Link
from wiresum.host_agent.backend.routing import SWITCH_DTYPES, op_name, why_not_tensors
from wiresum.host_agent.backend.work import SwitchWork
from wiresum.host_agent.issued import FALLBACK, SWITCH, Issued, Ledger

log = logging.getLogger("wiresum")

IN_CALLBACK = (
    "it is issued from a future's callback, and callbacks run in another order on every rank"
)
ENGINE_FIRST_S = 5.0
NOT_AN_ALL_REDUCE = "only all-reduces use the switch"
_ONE_SIDED = ("send", "recv")  # not issued by all ranks in the same order

cores: "weakref.WeakSet[Core]" = weakref.WeakSet()
"""Every core of this process that is still referenced, for the debug dump and the exit."""


class Core:
    """Sends each collective to the engine or to the fallback group, and counts both."""

    def __init__(
        self,
        rank: int,
        size: int,
        timeout: timedelta,
        make_group: Callable[[str], dist.ProcessGroup],
        link: Link | None,
        why_no_link: str | None,
    ) -> None:
        """``link`` is None where this group does not use the switch; ``why_no_link`` says why.

        ``make_group(prefix)`` makes a fallback group; all ranks call it with the same prefixes.
        """
        self.rank = rank
        self.size = size
        self.timeout = timeout
        self.link = link
        self.why_no_link = why_no_link
        self._make_group = make_group
        self._callback_group: dist.ProcessGroup | None = None
        self._lock = threading.Lock()
        # Not the same one: making that group waits for the other ranks, which may wait for us.
        self._callback_lock = threading.Lock()
        self.closed = False
        self._last: dict[str, Any] = {}
        self._ledger = Ledger()
        self._pool = CompletionPool()
        self._poller = Poller(link.engine, self._error_of) if link is not None else None
        self._connections = Connections()
        try:
            with self._connections:
                self.inner = make_group("main")
        except BaseException:
            self.shutdown()
            raise
        cores.add(self)
        if link is not None:
            link.watch(self)

    # -- the switch ---------------------------------------------------------------------------

    def allreduce(self, tensors: Sequence[torch.Tensor], opts: Any, collective: str) -> dist.Work:
        """All-reduce in place, over the switch if it can."""
        tensors = list(tensors)
        op = op_name(opts.reduceOp)
        reason = self._why_not(tensors, op)
        if reason is not None:
            inner = self.fallback(collective, reason, op, tensors)
            method = "allreduce_coalesced" if "coalesced" in collective else "allreduce"
            return getattr(inner, method)(tensors, opts)  # type: ignore[no-any-return]
        timeout: timedelta = opts.timeout
        return self._over_switch(tensors, op == "AVG", timeout, collective)

    def _why_not(self, tensors: Sequence[torch.Tensor], op: str) -> str | None:
        if self.closed:
            raise errors.EngineClosed("this process group has been shut down")
        if self.link is None:
            return self.why_no_link
        reason = why_not_tensors(tensors, op)
        if reason is None and inside_callback():
            reason = IN_CALLBACK
        return reason

    def _over_switch(
        self, tensors: list[torch.Tensor], average: bool, timeout: timedelta, collective: str
    ) -> dist.Work:
        assert self.link is not None
        assert self._poller is not None
        self.link.check()
        limit = timeout.total_seconds()
        if limit <= 0 or timeout == self.timeout:
            # The engine has the same limit, and its error says who is missing: let it come first.
            limit = self.timeout.total_seconds() + ENGINE_FIRST_S
        copies = []
        buffers = []
        for tensor in tensors:
            buffer = tensor.detach()
            if not buffer.is_contiguous():
                buffer = buffer.contiguous()
                copies.append((buffer, tensor))
            buffers.append(buffer)
        work = SwitchWork(tensors, copies, limit, self._late, self._pool.submit)
        work.keep_alive(buffers)
        size = sum(b.numel() * b.element_size() for b in buffers)
        # One lock over all tickets of a collective: the engine matches tensors between ranks by
        # the order in which they come, and two threads must not interleave theirs.
        with self._lock:
            engine = self.link.engine
            tickets = [
                engine.all_reduce(b.data_ptr(), b.numel(), SWITCH_DTYPES[b.dtype], average)
                for b in buffers
            ]
            self._poller.watch(work, tickets)
            op = "AVG" if average else "SUM"
            self._ledger.issue(collective, SWITCH, op, *_what(tensors))
        exposed.issued(work)
        COUNTERS.count_switch(collective, len(tensors), size)
        return work

    def _error_of(self, finished: Finished) -> Exception:
        """The typed exception for a ticket that failed; a lost lease explains all that follow."""
        try:
            if self.link is not None:
                self.link.check()
        except WiresumError as gone:
            return gone
        return errors.engine_error(finished.kind, finished.error or "the all-reduce failed")

    def _late(self, seconds: float) -> WiresumError:
        name = self.link.describe().get("switch", "the switch") if self.link else "the switch"
        return errors.CollectiveTimeout(
            f"an all-reduce over {name} did not end within {seconds:g} s on rank {self.rank}"
        )

    # -- the fallback -------------------------------------------------------------------------

    def fallback(
        self,
        collective: str,
        reason: str | None = None,
        op: str = "",
        tensors: Sequence[torch.Tensor] = (),
    ) -> dist.ProcessGroup:
        """The group that shall do this collective; counts it, and logs the first of its kind.

        ``op`` and ``tensors``: if they must be alike on all ranks.
        """
        if collective not in _ONE_SIDED and not inside_callback():
            self._ledger.issue(collective, FALLBACK, op, *_what(tensors))
        level = logging.DEBUG
        if self.link is not None and self.rank == 0:
            level = logging.INFO if reason is None else logging.WARNING
        reason = self.why_no_link or reason or NOT_AN_ALL_REDUCE
        COUNTERS.count_fallback(collective, reason, level=level)
        return self._callbacks() if inside_callback() else self.inner

    def _callbacks(self) -> dist.ProcessGroup:
        """A second gloo group for callbacks: they run beside the training thread."""
        with self._callback_lock:
            if self._callback_group is None:
                self._callback_group = self._make_group("callbacks")
            return self._callback_group

    def set_timeout(self, timeout: timedelta) -> None:
        """The limit of collectives that bring none of their own."""
        self.timeout = timeout
        self.inner.set_timeout(timeout)

    # -- for the other ranks: wiresum.host_agent.issued.Group ----------------------------------

    def issued(self) -> Sequence[Issued]:
        """The latest collectives, the oldest first."""
        return self._ledger.issued()

    def abort(self, error: WiresumError) -> None:
        """End what the fallback has in flight."""
        if not self._connections.sever(self.size - 1):
            log.debug("wiresum: the fallback cannot be ended: %s", error)

    # -- the end ------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Leave the job. What is in flight ends with an error. May be called twice."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        link, poller = self.link, self._poller
        if link is not None:
            self._last = link.describe()
            link.close()
            COUNTERS.count_engine(link.engine.stats())
        if poller is not None:
            poller.close()
        self._pool.close()
        # A group that something still refers to at the interpreter's end must not keep the engine.
        self.link = self._poller = None

    def engine_stats(self) -> dict[str, Any]:
        """The engine's counters; empty without a link, and after :meth:`shutdown`."""
        if self.link is None or self.closed:
            return {}
        return dict(self.link.engine.stats())

    def describe(self) -> dict[str, Any]:
        """State for the debug dump."""
        state: dict[str, Any] = {"rank": self.rank, "size": self.size, "why": self.why_no_link}
        if self.link is not None and self._poller is not None:
            state["lease"] = self.link.describe()
            state["engine"] = self.engine_stats()
            state["pending_tickets"] = self._poller.pending()
        elif self._last:
            state["lease"] = self._last
        return state


def _what(tensors: Sequence[torch.Tensor]) -> tuple[str, int | None]:
    """Dtype and number of elements of all together."""
    if not tensors:
        return "", None
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    return "+".join(dtypes)[:64], sum(tensor.numel() for tensor in tensors)
