"""The controller without its network face: decisions, switches, and who waits for what."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

from wiresum.common.version import compatible, package_version
from wiresum.controller.access import Access, Caller
from wiresum.controller.checks import invalid
from wiresum.controller.clock import Clock, SystemClock
from wiresum.controller.errors import ControllerError
from wiresum.controller.fleet import Fleet
from wiresum.controller.jobs import Created, Jobs, Limits
from wiresum.controller.loop import LoopOptions
from wiresum.controller.messages import lease_message
from wiresum.controller.model import Job, JobState, Switch, Tenant
from wiresum.controller.reports import Reports
from wiresum.controller.store import Store
from wiresum.controller.switches import Switches
from wiresum.controller.tenants import Tenants
from wiresum.controller.text import format_ranks
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.waiting import Waiting
from wiresum.p4 import LANE_COUNTS, Program
from wiresum.p4 import program as committed_program

log = logging.getLogger(__name__)

_MAX_JOIN_TIMEOUT_S = 24 * 3600.0


class Core:
    """Everything that the service offers. Methods raise :class:`ControllerError`.

    ``fixed_admin`` is the hash of an admin's token that counts instead of the store's.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        loop_options: LoopOptions | None = None,
        programs: Callable[[int], Program] = committed_program,
        fixed_admin: str = "",
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.limits = limits or Limits()
        self.waiting = Waiting()
        self.reports = Reports(self.clock)
        self.ended: Counter[JobState] = Counter()
        """Jobs that have ended since the controller began, by how."""
        self.fleet = Fleet(store, programs, self._confirmed_jobs, loop_options or LoopOptions())
        self.switches = Switches(store, self.clock, programs, LANE_COUNTS)
        self.tenants = Tenants(store, self.clock)
        self.access = Access(store, fixed_admin)
        self.jobs = Jobs(store, self.clock, self.limits, self.fleet.is_up)
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what the store knows, and drive its switches."""
        self.jobs.recover()
        await self.fleet.refresh()
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="expiry")

    async def stop(self) -> None:
        """End all tasks; switches and jobs stay as they are."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await self.fleet.stop()

    # ---- switches

    async def add_switch(self, request: pb.AddSwitchRequest) -> Switch:
        """Register or update a switch and start to drive it."""
        switch = self.switches.add(request)
        await self.fleet.refresh()
        return switch

    async def remove_switch(self, name: str) -> None:
        """Forget a switch; its tables are emptied if it can be reached."""
        self.switches.remove(name)
        await self.fleet.refresh()

    def drain_switch(self, name: str, *, drain: bool) -> Switch:
        """Give a switch no new jobs, or give it new jobs again."""
        return self.switches.drain(name, drain)

    # ---- jobs

    def create(self, request: pb.CreateJobRequest, caller: Caller) -> Created:
        """A new job with its lease, or the live one of that name."""
        created = self.jobs.create(request, caller)
        self.fleet.wake(created.job.lease.switch)
        return created

    async def join(self, job: Job, request: pb.JoinJobRequest, time_left: float | None) -> pb.Lease:
        """Join a job, and wait for the other ranks and the switch.

        ``time_left`` is when the caller stops listening, if it said so.
        """
        limit = request.timeout_s or self.limits.join_timeout_s
        if not 0 < limit <= _MAX_JOIN_TIMEOUT_S:
            invalid(f"a timeout of {limit:g} s is not possible: at most {_MAX_JOIN_TIMEOUT_S:g}")
        if time_left is not None:
            limit = min(limit, time_left)
        before = job
        self._check_versions(job, request)
        with self.waiting.call(job.id, request.attempt, request.rank) as changed:
            try:
                job = self.jobs.join(job, request)
                # Most ranks are neither the first of an attempt nor the last.
                if (job.epoch, job.state) != (before.epoch, before.state):
                    self._job_changed(job)
                async with asyncio.timeout(limit):
                    job = await self._ready(job, request.attempt, changed)
            except TimeoutError:
                raise self._late(self.jobs.get(job.id), limit) from None
            finally:
                self._left(job, request)
        switch = self.switches.get(job.lease.switch)
        program_version = self.fleet.loop(switch.name).program.version
        return lease_message(job, request.rank, switch, program_version, self.limits)

    async def heartbeat(
        self, job: Job, request: pb.HeartbeatRequest, time_left: float | None
    ) -> Job:
        """A sign of life; returns when there is news for the caller, or after ``wait_s``."""
        self.jobs.touch(job)
        if request.HasField("report"):
            self.reports.heard(job, request.report)
        if not 0 <= request.wait_s <= _MAX_JOIN_TIMEOUT_S:
            invalid(f"a wait of {request.wait_s:g} s is not possible: at most a day")
        # The caller must show its next sign of life before the lease expires.
        limit = min(request.wait_s, self.limits.expiry_s / 2)
        if time_left is not None:
            limit = min(limit, time_left - min(1.0, time_left / 2))
        with self.waiting.watch(job.id) as changed, suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not _is_news(self.jobs.get(job.id), request):
                    changed.clear()
                    await changed.wait()
        return self.jobs.get(job.id)

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
        return self.tenants.set(request)

    async def remove_tenant(self, name: str, *, evict: bool) -> None:
        """Forget a tenant; with ``evict``, its live jobs end first."""
        for job in self.tenants.check_removable(name, evict=evict):
            await self.end(job, JobState.EVICTED, f"tenant {name} was removed")
        self.tenants.remove(name)

    async def sweep(self) -> list[Job]:
        """Expire the jobs that have gone silent; returns them."""
        for job_id in self.waiting.jobs():
            self.jobs.touch(self.jobs.get(job_id))
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
        self.jobs.forget_old()
        return expired

    # ----

    async def _ready(self, job: Job, attempt: int, changed: asyncio.Event) -> Job:
        while True:
            changed.clear()
            job = self.jobs.get(job.id)
            if not job.state.live:
                raise self.jobs.ended_error(job)
            if job.attempt != attempt:
                raise self.jobs.replaced_error(job, attempt)
            if job.state is JobState.READY and self.fleet.confirmed(job):
                return job
            await changed.wait()

    def _left(self, job: Job, request: pb.JoinJobRequest) -> None:
        """A call has ended: unless the attempt is complete, the rank has not joined after all."""
        others = self.waiting.count(job.id, request.attempt, request.rank) - 1
        if others == 0:
            self.waiting.give_up(job.id, request.attempt, request.rank)
            self.jobs.withdraw(job.id, request.attempt, request.rank)

    def _late(self, job: Job, limit: float) -> ControllerError:
        attempt = f"attempt {job.attempt} of job {job.label}"
        if job.state is JobState.READY:
            loop = self.fleet.loop(job.lease.switch)
            reason = loop.reason or "its tables are still being written"
            message = (
                f"{attempt}: all {job.workers} workers have joined, but switch "
                f"{loop.switch.name} was not ready within {limit:g} s: {reason}"
            )
        else:
            # Ranks that came and went are not those that all the others were waiting for.
            gone = self.waiting.gave_up(job.id, job.attempt or 0)
            absent = [rank for rank in job.missing if rank not in gone]
            ranks = format_ranks(absent or job.missing)
            noun = "rank" if len(absent or job.missing) == 1 else "ranks"
            what = "did not join" if absent else "gave up before all the others had joined,"
            message = (
                f"{attempt}: {noun} {ranks} of {job.workers} workers {what} within {limit:g} s"
            )
        return ControllerError("DEADLINE_EXCEEDED", message)

    def _check_versions(self, job: Job, request: pb.JoinJobRequest) -> None:
        ours = package_version()
        if not compatible(request.agent_version, ours):
            raise ControllerError(
                "FAILED_PRECONDITION",
                f"rank {request.rank} runs wiresum {request.agent_version or '(unknown)'}, the "
                f"controller {ours}: install the same version on both",
            )
        if job.state.live and request.program_version:
            program = self.fleet.loop(job.lease.switch).program
            if request.program_version != program.version:
                raise ControllerError(
                    "FAILED_PRECONDITION",
                    f"rank {request.rank} was built for switch program {request.program_version}, "
                    f"switch {job.lease.switch} runs {program.version}: "
                    "install the same version on both",
                )

    async def _last_events(self, job: Job) -> dict[str, int] | None:
        try:
            number = job.lease.number
            return (await self.fleet.loop(job.lease.switch).read_events([number]))[number]
        except ControllerError as error:
            log.info("job %s: last counters are not known: %s", job.label, error)
            return None

    def _job_changed(self, job: Job) -> None:
        if not job.state.live:
            self.reports.forget(job)
        self.fleet.wake(job.lease.switch)
        self.waiting.notify(job.id)

    def _confirmed_jobs(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self.waiting.notify(job_id)

    async def _sweep_forever(self) -> None:
        interval = min(1.0, self.limits.expiry_s / 10)
        while True:
            await asyncio.sleep(interval)
            try:
                await self.sweep()
            except Exception:
                # The next sweep may fare better; without sweeps, slots would leak for ever.
                log.exception("looking for silent jobs failed")


def _is_news(job: Job, request: pb.HeartbeatRequest) -> bool:
    return (
        not job.state.live
        or request.epoch not in (0, job.epoch)
        or request.change != job.announced_change
    )
