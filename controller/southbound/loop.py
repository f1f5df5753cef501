"""Keeps one switch connected and in agreement with the store, for as long as it is known."""

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.patience import Limiting
from wiresum.controller.southbound.apart import apart
from wiresum.controller.southbound.desired import Tables, desired
from wiresum.controller.southbound.p4runtime import ELECTION_ID, SwitchConnection, connect, explain
from wiresum.controller.southbound.reconcile import reconcile
from wiresum.controller.southbound.switch_tls import SwitchTls
from wiresum.controller.state.model import Job, JobState, Switch
from wiresum.controller.state.store import Store
from wiresum.p4 import Program

log = logging.getLogger(__name__)

_R = TypeVar("_R")


@dataclass(frozen=True)
class LoopOptions:
    """The time limits of the loop, in seconds, and its certificates."""

    period_s: float = 10.0
    """A pass is made this often even if nothing has changed."""
    connect_s: float = 15.0
    pass_s: float = 30.0
    counters_s: float = 2.0
    retry_s: float = 0.2
    """The first pause before a new attempt to connect; it doubles up to ``max_retry_s``."""
    max_retry_s: float = 5.0
    farewell_s: float = 3.0
    """How long emptying the tables of a removed switch may take."""
    election_id: int = ELECTION_ID
    """P4Runtime's: of two controllers, a switch obeys the one with the higher."""
    tls: SwitchTls = field(default_factory=SwitchTls)
    """The files for switches at ``https://…``."""


class SwitchState(enum.Enum):
    """The state of a switch."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


@dataclass
class Tally:
    """Counts of a loop since it began."""

    connects: int = 0
    connect_failures: int = 0
    losses: int = 0
    """Connections that were lost, or given up because a pass had failed."""
    passes: int = 0
    pass_failures: int = 0
    pass_s: float = 0.0
    """Seconds that all passes took."""
    writes: int = 0
    last_pass: float | None = None
    """``time.time()`` at the end of the last pass that succeeded."""


class SwitchLoop:
    """One switch. ``run`` it in a task; everything else may be called at any time.

    ``confirmed_jobs`` is called with the ids of the jobs whose entries have just been confirmed,
    ``counters_reset`` with those whose counters have been set to zero, which must be stored;
    ``limit`` limits the time that the switch may take.
    """

    def __init__(
        self,
        switch: Switch,
        store: Store,
        program: Program,
        confirmed_jobs: Callable[[Iterable[str]], None],
        counters_reset: Callable[[Iterable[str]], None],
        options: LoopOptions,
        limit: Limiting = asyncio.timeout,
    ) -> None:
        self.switch = switch
        self.program = program
        self.state = SwitchState.CONNECTING
        self.reason = "connecting"
        self.tally = Tally()
        self._store = store
        self._confirmed_jobs = confirmed_jobs
        self._counters_reset = counters_reset
        self._options = options
        self._limit = limit
        self._wake = asyncio.Event()
        self._leaving = False
        self._connection: SwitchConnection | None = None
        self._confirmed: dict[str, int] = {}
        self._reset: set[str] = set()
        """Jobs whose counters have been set to zero, which is not in the store yet."""
        self._fields = {"switch": switch.name}

    def wake(self) -> None:
        """Make a pass soon: the store has changed."""
        self._wake.set()

    def confirmed(self, job: Job) -> bool:
        """Whether the switch has confirmed the entries of the job's current epoch."""
        return self._confirmed.get(job.id) == job.epoch

    async def run(self) -> None:
        """Drive the switch until cancelled, or until :meth:`leave` has emptied its tables."""
        retry_s = self._options.retry_s
        while not self._leaving:
            connects = self.tally.connects
            try:
                async with connect(
                    self.switch,
                    self.program,
                    self._options.connect_s,
                    self._limit,
                    self._options.tls,
                    self._options.election_id,
                    self._store.snapshot,
                ) as connection:
                    self.tally.connects += 1
                    await self._one_pass(connection)
                    retry_s = self._options.retry_s
                    self._connection = connection
                    await self._keep(connection)
            except Exception as error:
                if self.tally.connects > connects:
                    self.tally.losses += 1
                else:
                    self.tally.connect_failures += 1
                self._set_down(explain(error, self.switch.p4runtime))
            finally:
                self._connection = None
            if self._leaving:
                return
            # Only leaving cuts the pause short: a change in the store is no reason to connect.
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s):
                    while not self._leaving:
                        self._wake.clear()
                        await self._wake.wait()
            retry_s = min(2 * retry_s, self._options.max_retry_s)

    async def leave(self, task: asyncio.Task[None]) -> None:
        """Empty the switch's tables if it is up, and end ``task``, which runs this loop."""
        self._leaving = True
        self._wake.set()
        await asyncio.wait([task], timeout=self._options.farewell_s)
        task.cancel()
        await asyncio.wait([task])

    # ---- counters

    async def read_events(self, numbers: Iterable[int]) -> dict[int, dict[str, int]]:
        """The events of these job numbers. Raises :class:`ControllerError` UNAVAILABLE."""
        return await self._ask(lambda connection: connection.read_events(numbers))

    async def read_drops(self) -> dict[str, int]:
        """The packets dropped, by reason. Raises :class:`ControllerError` UNAVAILABLE."""
        return await self._ask(lambda connection: connection.read_drops())

    async def _ask(self, question: Callable[[SwitchConnection], Coroutine[Any, Any, _R]]) -> _R:
        if self._connection is None:
            raise ControllerError(
                "UNAVAILABLE",
                lines.SWITCH_DOWN.of(
                    switch=self.switch.name, state=self.state.value, why=self.reason
                ),
            )
        try:
            return await self._apart(
                self._connection, question(self._connection), self._options.counters_s
            )
        except Exception as error:
            reason = explain(error, self.switch.p4runtime)
            raise ControllerError(
                "UNAVAILABLE", lines.NO_COUNTERS.of(switch=self.switch.name, why=reason)
            ) from error

    # ----

    async def _keep(self, connection: SwitchConnection) -> None:
        """Make a pass whenever there is reason to; returns when leaving."""
        leaving = False
        while not leaving:
            await self._pause(connection)
            leaving = self._leaving
            with suppress(StoreFailed):  # the desired tables are not known: it keeps its tables
                await self._one_pass(connection)

    async def _one_pass(self, connection: SwitchConnection) -> None:
        self._wake.clear()
        jobs = [] if self._leaving else self._store.snapshot().jobs_on(self.switch.name)
        wanted = Tables({}, {}) if self._leaving else desired(self.switch, jobs)
        unrecorded = [job for job in jobs if not job.lease.counters_reset]
        fresh = [job for job in unrecorded if job.id not in self._reset]
        numbers = [job.lease.number for job in fresh]
        began = time.monotonic()
        try:
            writes = await self._apart(
                connection, reconcile(connection, wanted, numbers), self._options.pass_s
            )
        except Exception:
            self.tally.pass_failures += 1
            raise
        finally:
            self.tally.pass_s += time.monotonic() - began
        self.tally.passes += 1
        self.tally.writes += writes
        self.tally.last_pass = time.time()
        self._record_reset({job.id for job in unrecorded})
        if writes:
            log.info("switch %s: %d writes", self.switch.name, writes, extra=self._fields)
        before = self._confirmed
        self._confirmed = {job.id: job.epoch for job in jobs if job.state is JobState.READY}
        if self.state is not SwitchState.UP:
            log.info("switch %s is up", self.switch.name, extra=self._fields)
        self.state, self.reason = SwitchState.UP, ""
        self._confirmed_jobs(
            [job_id for job_id, epoch in self._confirmed.items() if before.get(job_id) != epoch]
        )

    def _record_reset(self, job_ids: set[str]) -> None:
        """The switch's counters of these jobs are zero now: do not set them to zero again."""
        # A store that fails is no reason to give the switch up: a later pass records it.
        self._reset = job_ids
        if job_ids:
            with suppress(StoreFailed):
                self._counters_reset(job_ids)

    async def _apart(
        self, connection: SwitchConnection, work: Coroutine[Any, Any, _R], limit_s: float
    ) -> _R:
        address = self.switch.p4runtime
        return await apart(
            work,
            limit_s=limit_s,
            late=lines.SWITCH_SILENT.of(address=address, limit_s=limit_s),
            lost=lines.SWITCH_LOST.of(address=address),
            down=connection.down,
            limit=self._limit,
        )

    async def _pause(self, connection: SwitchConnection) -> None:
        """Until there is something to do."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._wake, connection.down)]
        try:
            await asyncio.wait(
                waits, timeout=self._options.period_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()

    def _set_down(self, reason: str) -> None:
        if (self.state, self.reason) != (SwitchState.DOWN, reason):
            log.warning("switch %s is down: %s", self.switch.name, reason, extra=self._fields)
        self.state, self.reason = SwitchState.DOWN, reason
        self._confirmed = {}
