"""The controller without its network face: decisions, switches, and who waits for what."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

from wiresum.common import wall_clock
from wiresum.controller.clock import Clock, SystemClock
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.office.leases import Leases
from wiresum.controller.office.owners import Owners
from wiresum.controller.office.queueing import Queueing
from wiresum.controller.office.reports import Reports
from wiresum.controller.office.waiting import Waiting
from wiresum.controller.patience import Patience
from wiresum.controller.rules.admission import Admission
from wiresum.controller.rules.changes import Changes
from wiresum.controller.rules.jobs import Jobs, Limits
from wiresum.controller.rules.joining import Joining
from wiresum.controller.rules.switches import Switches
from wiresum.controller.rules.tenants import Tenants
from wiresum.controller.southbound.fleet import Fleet
from wiresum.controller.southbound.loop import LoopOptions
from wiresum.controller.state.model import Job, JobState, Switch, Tenant
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import LANE_COUNTS, Program
from wiresum.p4 import program as committed_program

log = logging.getLogger(__name__)

# How often the history is looked through for what is too old.
_FORGET_S = 60.0


class Core:
    """Everything that the service offers. Methods raise :class:`ControllerError`."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        loop_options: LoopOptions | None = None,
        programs: Callable[[int], Program] = committed_program,
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.limits = limits or Limits()
        self.waiting = Waiting()
        self.reports = Reports(self.clock)
        self.owners = Owners(self.clock, self.limits.heartbeat_s, self.limits.expiry_s)
        self.ended: Counter[JobState] = Counter()
        """Jobs that have ended since the controller began, by how."""
        self.patience = Patience(self.clock, self._stood_still)
        limit = self.patience.limit
        self.fleet = Fleet(
            store, programs, self._confirmed_jobs, loop_options or LoopOptions(), limit
        )
        self.switches = Switches(store, self.clock, programs, LANE_COUNTS)
        self.tenants = Tenants(store, self.clock)
        self.jobs = Jobs(store, self.clock, self.limits)
        self.changes = Changes(store, self.clock, vote_s=self.limits.change_s)
        self.admission = Admission(
            store, self.clock, self.jobs, self.changes, usable=self.fleet.is_up
        )
        self.queueing = Queueing(
            store,
            self.clock,
            self.limits,
            self.jobs,
            self.admission,
            self.waiting,
            self.fleet,
            limit,
        )
        self.leases = Leases(
            store,
            self.limits,
            self.jobs,
            Joining(store, self.clock, self.jobs),
            self.changes,
            self.waiting,
            self.fleet,
            self._job_changed,
            limit,
        )
        self._sweeper: asyncio.Task[None] | None = None
        self._forget_at = 0.0

    async def start(self) -> None:
        """Take over what the store knows, and drive its switches."""
        if not wall_clock.plausible(self.clock.now()):
            log.warning(
                "this machine's clock is wrong, it is not between 2025 and 2050: set it; until the "
                "next start, times in lists are wrong, and epochs go on without it"
            )
        for job in self.switches.recover():
            log.warning("job %s: %s", job.label, job.reason, extra={"job": job.id})
            self.ended[job.state] += 1
        self.jobs.recover()
        self.changes.recover()
        self.admission.recover()
        self.patience.start()
        await self.fleet.refresh()
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="expiry")

    async def stop(self) -> None:
        """End all tasks; switches and jobs stay as they are."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        self.patience.stop()
        await self.fleet.stop()

    # ---- switches

    async def add_switch(self, request: pb.AddSwitchRequest) -> Switch:
        """Register or update a switch and start to drive it."""
        switch = self.switches.add(request)
        await self.fleet.refresh()
        self.queueing.rebalance()
        return switch

    async def remove_switch(self, name: str) -> None:
        """Forget a switch; its tables are emptied if it can be reached."""
        self.switches.remove(name)
        # Jobs that wait for it, or for any at all, are told before its tables are emptied.
        self.queueing.rebalance()
        await self.fleet.refresh()

    def drain_switch(self, name: str, *, drain: bool) -> Switch:
        """Give a switch no new jobs, or give it new jobs again."""
        switch = self.switches.drain(name, drain)
        self.queueing.rebalance()
        return switch

    # ---- jobs

    def claim(self, job: Job, request: pb.ClaimJobRequest) -> pb.ClaimJobResponse:
        """A process group wants the job."""
        if not job.state.live:
            raise self.jobs.ended_error(job)
        joined = job.state is JobState.READY
        claim = self.owners.claim(job.id, request.owner, request.where, joined=joined)
        return pb.ClaimJobResponse(
            granted=claim.granted,
            lives=claim.lives,
            where=claim.where,
            attempt=0 if job.attempt is None else job.attempt + 1,
        )

    async def heartbeat(
        self, job: Job, request: pb.HeartbeatRequest, time_left: float | None
    ) -> Job:
        """A sign of life; returns when there is news for the caller, or after ``wait_s``."""
        if request.HasField("report"):
            self.reports.heard(job, request.report)
        return await self.leases.heartbeat(job, request, time_left)

    async def end(self, job: Job, state: JobState, reason: str) -> Job:
        """Release or evict a job; its counters are remembered if the switch tells them."""
        events = await self._last_events(job) if job.state.live else None
        was_live = self.jobs.get(job.id).state.live
        job = self.jobs.end(job, state, reason, events)
        self.ended[job.state] += was_live
        self._job_changed(job)
        return job

    # ---- tenants

    def set_tenant(self, request: pb.SetTenantRequest) -> Tenant:
        """Change a tenant's limits and priority."""
        tenant = self.tenants.set(request)
        self.queueing.rebalance()
        return tenant

    def dismiss(self, job: Job, reason: str) -> None:
        """Take a job out of the queue; whoever waits for it is told the reason."""
        self.admission.dismiss(job, _taken_out(job, reason))
        self.queueing.rebalance()

    async def remove_tenant(self, name: str, *, evict: bool) -> None:
        """Forget a tenant and its jobs that wait; with ``evict``, its live jobs end first."""
        reason = f"tenant {name} was removed"
        jobs = self.tenants.check_removable(name, evict=evict)
        counters = await asyncio.gather(*(self._last_events(job) for job in jobs))
        events = {job.id: counts for job, counts in zip(jobs, counters, strict=True)}
        # Nothing can come in between here: what its queue would be given is never free for it.
        ended, dismissed = self.tenants.remove(name, evict=evict, reason=reason, events=events)
        for job in dismissed:
            self.admission.remember(job, _taken_out(job, reason))
        for job in ended:
            self.ended[job.state] += 1
            self._tell(job)
        self.queueing.rebalance()

    async def sweep(self) -> list[Job]:
        """Expire the jobs that have gone silent; returns them.

        What cannot be done because the store fails is done by a later sweep; the store says so.
        """
        for job_id in self.waiting.jobs():
            self.jobs.heard(job_id)
        expired: list[Job] = []
        with suppress(StoreFailed):
            self.store.probe()
            expired = await self._expire_silent()
        for step in (
            self._end_overdue_changes,
            self.leases.settle,
            self.queueing.forget_absent,
            self._forget_old,
            self.queueing.rebalance,
        ):
            with suppress(StoreFailed):
                step()
        with suppress(StoreFailed):
            await self._evict_stubborn()
        return expired

    # ----

    async def _expire_silent(self) -> list[Job]:
        silent = self.jobs.silent()
        events = await asyncio.gather(*(self._last_events(job) for job in silent))
        expired = []
        for job, counts in zip(silent, events, strict=True):
            ended = self.jobs.expire(job.id, counts)
            if not ended.state.live:
                log.warning("job %s: %s", ended.label, ended.reason, extra={"job": ended.id})
                self.ended[ended.state] += 1
                self._job_changed(ended)
                expired.append(ended)
        return expired

    def _stood_still(self, seconds: float) -> None:
        """The clock has stood still with us; who would be late by it all the same is not."""
        if 4 * seconds >= self.limits.expiry_s:
            self.jobs.give_time()
        if 4 * seconds >= self.limits.change_s:
            self.changes.give_time()

    def _end_overdue_changes(self) -> None:
        for job in self.changes.overdue():
            log.warning("job %s: its ranks did not agree to a change of its lease", job.label)
            self.waiting.notify(job.id)

    async def _evict_stubborn(self) -> None:
        """End the jobs that keep one of higher priority out and have had their chances."""
        for job, reason in self.changes.stubborn():
            if self.admission.needs(job):
                log.warning("job %s: %s", job.label, reason, extra={"job": job.id})
                await self.end(job, JobState.EVICTED, reason)

    def _forget_old(self) -> None:
        now = self.clock.now()
        if now >= self._forget_at:
            self.jobs.forget_old()
            self.owners.keep(self.store.live_job_ids())
            self._forget_at = now + _FORGET_S

    async def _last_events(self, job: Job) -> dict[str, int] | None:
        try:
            number = job.lease.number
            return (await self.fleet.loop(job.lease.switch).read_events([number]))[number]
        except ControllerError as error:
            log.info("job %s: last counters are not known: %s", job.label, error)
            return None

    def _job_changed(self, job: Job) -> None:
        self._tell(job)
        self.queueing.rebalance()

    def _tell(self, job: Job) -> None:
        """Let all who are concerned know that a job has changed, apart from the queue."""
        if not job.state.live:
            self.reports.forget(job)
            self.owners.forget(job.id)
        self.fleet.wake(job.lease.switch)
        self.waiting.notify(job.id)

    def _confirmed_jobs(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self.waiting.notify(job_id)

    async def _sweep_forever(self) -> None:
        interval = min(1.0, self.limits.expiry_s / 10)
        told = ""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.sweep()
                told = ""
            except Exception as error:
                # The next sweep may fare better; without sweeps, slots would leak for ever.
                if told != repr(error):
                    log.exception("looking for silent jobs failed")
                told = repr(error)


def _taken_out(job: Job, reason: str) -> ControllerError:
    return ControllerError("ABORTED", f"job {job.label} was taken out of the queue: {reason}")
