"""The controller without its network face: everything that the service offers, and its tasks.

Without :meth:`Office.start` it runs no task and drives no switch: tests ask it about a store alone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress

from wiresum.common import wall_clock
from wiresum.controller import lines
from wiresum.controller.clock import Clock, SystemClock
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.office.calls import CallsInProgress
from wiresum.controller.office.changes import Changes
from wiresum.controller.office.desk import Desk
from wiresum.controller.office.jobs import Jobs
from wiresum.controller.office.launchers import Launchers
from wiresum.controller.office.owners import Owners
from wiresum.controller.office.queue import Queue, Queued
from wiresum.controller.office.queue_polls import QueuePolls
from wiresum.controller.office.rank_polls import RankPolls, Ready
from wiresum.controller.office.reports import Reports
from wiresum.controller.patience import Patience
from wiresum.controller.rules import relocation, switches, tenants
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.changes import Agreed, Cancelled, ChangeLimits
from wiresum.controller.rules.jobs import Created, ended_error
from wiresum.controller.rules.limits import Limits
from wiresum.controller.southbound.fleet import Fleet
from wiresum.controller.southbound.loop import LoopOptions
from wiresum.controller.state.model import Job, JobState, Switch, Tenant
from wiresum.controller.state.plan import CountersReset, EndJob, Plan
from wiresum.controller.state.store import Snapshot, Store
from wiresum.controller.tokens import TENANT, hashed, new_token
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import LANE_COUNTS, Program
from wiresum.p4 import program as committed_program

log = logging.getLogger(__name__)

# How often the controller looks for ended jobs that are too old.
_FORGET_S = 60.0


class Office:
    """Everything that the service offers. Methods raise :class:`ControllerError`.

    ``usable`` tells whether a switch can be reached now, instead of the fleet.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        loop_options: LoopOptions | None = None,
        programs: Callable[[int], Program] = committed_program,
        usable: Callable[[str], bool] | None = None,
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.limits = limits or Limits()
        self.desk = Desk(store, self.clock)
        self.ended: Counter[JobState] = Counter()
        """Jobs that have ended since the controller began, by their last state."""
        self.reports = Reports(self.clock)
        self.owners = Owners(self.clock, self.limits.heartbeat_s, self.limits.expiry_s)
        self.launchers = Launchers(self.clock, self.limits.heartbeat_s, self.limits.expiry_s)
        self.calls = CallsInProgress()
        self.patience = Patience(self.clock, self._stood_still)
        limit = self.patience.limit
        self.fleet = Fleet(
            store,
            programs,
            self._confirmed_jobs,
            self._counters_reset,
            loop_options or LoopOptions(),
            limit,
        )
        self.jobs = Jobs(self.desk, self.limits, self.launchers)
        self.changes = Changes(self.desk, ChangeLimits(vote_s=self.limits.change_s))
        self.queue = Queue(self.desk, self.jobs, self.changes, usable or self.fleet.is_up)
        self.queue_polls = QueuePolls(self.queue, self.calls, self.fleet, limit)
        self.rank_polls = RankPolls(
            self.desk,
            self.jobs,
            self.changes,
            self.calls,
            self.fleet,
            self._job_changed,
            self._parts_over,
            limit,
        )
        self._programs = programs
        self._sweeper: asyncio.Task[None] | None = None
        self._forget_at = 0.0

    @property
    def state(self) -> Snapshot:
        """What is stored now."""
        return self.desk.state

    async def start(self) -> None:
        """Take over the switches and jobs in the store, and drive the switches."""
        if not wall_clock.plausible(self.clock.now()):
            log.warning(
                "this machine's clock is wrong, it is not between 2025 and 2050: set it; until the "
                "next start, times in lists are wrong, and epochs go on without it"
            )
        self.recover()
        self.patience.start()
        await self.fleet.refresh()
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="expiry")

    def recover(self) -> None:
        """Take over what an earlier controller left in the store."""
        plan = switches.recover(self.state, self._slots_of, self.desk.now())
        self.desk.commit(plan)
        for write in plan.writes:
            if isinstance(write, EndJob):
                log.warning(
                    "job %s: %s",
                    self.jobs.get(write.job).label,
                    write.reason,
                    extra={"job": write.job},
                )
                self.ended[write.state] += 1
        self.jobs.recover()
        self.changes.recover()
        self.queue.recover()

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
        switch = self.put_switch(request)
        await self.fleet.refresh()
        self.queue_polls.rebalance()
        return switch

    def put_switch(self, request: pb.AddSwitchRequest) -> Switch:
        """Register or update a switch, without driving it."""
        state, now = self.state, self.desk.now()
        self.desk.commit(switches.add(state, request, self._slots_of, LANE_COUNTS, now))
        return self.switch(request.name)

    async def remove_switch(self, name: str) -> None:
        """Forget a switch; its tables are emptied if it can be reached."""
        self.desk.commit(switches.remove(self.state, name, self.desk.now()))
        # Jobs that wait for it, or for any at all, are told before its tables are emptied.
        self.queue_polls.rebalance()
        await self.fleet.refresh()

    def drain_switch(self, name: str, *, drain: bool) -> Switch:
        """Give a switch no new jobs, or give it new jobs again."""
        self.desk.commit(switches.drain(self.state, name, drain, self.desk.now()))
        self.queue_polls.rebalance()
        return self.switch(name)

    def switch(self, name: str) -> Switch:
        """The switch of that name."""
        return switches.get(self.state, name)

    # ---- jobs

    def claim(self, job: Job, request: pb.ClaimJobRequest) -> pb.ClaimJobResponse:
        """A process group wants the job."""
        if not job.state.live:
            raise ended_error(job)
        joined = job.state is JobState.READY
        claim = self.owners.claim(job.id, request.owner, request.where, joined=joined)
        if claim.granted:
            self._relocate(job)
        return pb.ClaimJobResponse(
            granted=claim.granted,
            lives=claim.lives,
            where=claim.where,
            attempt=0 if job.attempt is None else job.attempt + 1,
        )

    def _relocate(self, job: Job) -> None:
        """An attempt is about to begin: if the job's switch is down, another one may take it."""
        before = job.lease.switch
        if not self.fleet.is_down(before):
            return
        up = {name for name in self.state.switch_names() if self.fleet.is_up(name)}
        parts = self.state.parts(job.id)
        plan = relocation.relocate(self.state, job, up, self.desk.now())
        if not plan:
            return
        self.desk.commit(plan)
        moved = self.jobs.get(job.id)
        log.warning(
            "job %s: switch %s is down, switch %s takes it",
            moved.label,
            before,
            moved.lease.switch,
            extra={"job": job.id},
        )
        self.fleet.wake(before)
        self._parts_over(parts)
        self._job_changed(moved)

    async def create_job(
        self, request: pb.CreateJobRequest, caller: Caller, time_left: float | None
    ) -> Created | Queued:
        """A new job with its lease, the live one of that name, or a place in the queue.

        ``time_left``, here and below: the seconds until the caller stops listening, if it said so.
        """
        return await self.queue_polls.create(request, caller, time_left)

    async def join_job(
        self, job: Job, request: pb.JoinJobRequest, time_left: float | None
    ) -> Ready:
        """Join a job; returns when all its ranks have, and the switch has confirmed them."""
        with self.owners.call(job.id, request.owner, request.rank):
            return await self.rank_polls.join(job, request, time_left)

    async def heartbeat(
        self, job: Job, request: pb.HeartbeatRequest, caller: Caller, time_left: float | None
    ) -> Job:
        """A sign of life; returns when there is news for the caller, or after ``wait_s``."""
        if request.leaving:
            self.owners.left(job.id, request.owner, request.rank)
            return job
        launcher = caller.token and not request.owner
        with (
            self.launchers.call(job.id, caller.token) if launcher else nullcontext(),
            self.owners.call(job.id, request.owner, request.rank),
        ):
            if request.HasField("report"):
                self.reports.heard(job, request.report)
            return await self.rank_polls.heartbeat(job, request, time_left)

    async def change_lease(
        self, job: Job, request: pb.ChangeLeaseRequest, time_left: float | None
    ) -> Agreed | Cancelled:
        """Agree with the other ranks on a change of the lease."""
        return await self.rank_polls.change(job, request, time_left)

    def park_job(self, job: Job, *, unpark: bool) -> Job:
        """Let others have the slots of a job, or get them back."""
        job = self.jobs.park(job, unpark=unpark)
        self.queue_polls.rebalance()
        return self.jobs.get(job.id)

    async def leave(self, job: Job, caller: Caller, request: str) -> Job:
        """A launcher leaves: the job is released with the last of them. Others release it.

        A launcher is known by its token, or by the id of its ``request`` for the job.
        """
        its_own = caller.job == job.id  # its job's token releases a part for all
        if ((caller.token and its_own) or request) and job.state.live:
            token = caller.token if its_own else self.launchers.token_of(job.id, request)
            tokens = self.state.token_count(job.id)
            if not self.launchers.leave(job, token, tokens):
                return job
        return await self.end(job, JobState.RELEASED, "released")

    async def end(self, job: Job, state: JobState, reason: str) -> Job:
        """Release or evict a job; its counters are remembered if the switch tells them."""
        events = await self._last_counters(job) if job.state.live else {}
        was_live, parts = self.jobs.get(job.id).state.live, self.state.parts(job.id)
        job = self.jobs.end(job, state, reason, events)
        self.ended[job.state] += was_live
        self._parts_over(parts)
        self._job_changed(job)
        return job

    def dismiss(self, job: Job, reason: str) -> None:
        """Take a job out of the queue; its callers are told the reason."""
        self.queue.dismiss(job, _taken_out(job, reason))
        self.queue_polls.rebalance()

    # ---- tenants

    def add_tenant(self, request: pb.AddTenantRequest) -> tuple[Tenant, str]:
        """A new tenant and its token, which is not kept."""
        token = new_token(TENANT)
        self.desk.commit(tenants.add(self.state, request, hashed(token), self.desk.now()))
        return tenants.get(self.state, request.name), token

    def set_tenant(self, request: pb.SetTenantRequest) -> Tenant:
        """Change a tenant's limits and priority."""
        self.desk.commit(tenants.change(self.state, request, self.desk.now()))
        self.queue_polls.rebalance()
        return tenants.get(self.state, request.name)

    def rotate_tenant(self, name: str) -> tuple[Tenant, str]:
        """A tenant and its new token; the old one is not valid any more."""
        token = new_token(TENANT)
        self.desk.commit(tenants.rotate(self.state, name, hashed(token), self.desk.now()))
        return tenants.get(self.state, name), token

    async def remove_tenant(self, name: str, *, evict: bool = False) -> None:
        """Forget a tenant and its jobs in the queue; with ``evict``, its live jobs end first."""
        reason = f"tenant {name} was removed"
        live = tenants.must_end(self.state, name, evict=evict)
        counters = await asyncio.gather(*(self._last_events(job) for job in live))
        events = {job.id: counts for job, counts in zip(live, counters, strict=True)}
        # No await from here to the commit: its queue must not get the slots that its jobs free.
        state = self.state
        live, queue = tenants.must_end(state, name, evict=evict), state.queue(name)
        plan = tenants.remove(
            state, name, evict=evict, reason=reason, events=events, now=self.desk.now()
        )
        self.desk.commit(plan)
        for job in queue:
            self.queue.remember(job, _taken_out(job, reason))
        for job in live:
            self.ended[JobState.EVICTED] += 1
            self._tell(self.jobs.get(job.id))
        self.queue_polls.rebalance()

    # ---- sweeps

    async def sweep(self) -> list[Job]:
        """Expire the jobs that have gone silent; returns them.

        If the store fails, a later sweep does the rest; the store logs the failure.
        """
        for job_id in self.calls.jobs():
            self.jobs.heard(job_id)
        expired: list[Job] = []
        with suppress(StoreFailed):
            self.store.probe()
            expired = await self._expire_silent()
        for step in (
            self._cancel_late_changes,
            self.rank_polls.settle,
            self.queue_polls.forget_absent,
            self._forget_old,
            self.queue_polls.rebalance,
        ):
            with suppress(StoreFailed):
                step()
        with suppress(StoreFailed):
            await self._evict_unyielding()
        return expired

    # ----

    async def _expire_silent(self) -> list[Job]:
        silent = self.jobs.silent()
        events = await asyncio.gather(*(self._last_counters(job) for job in silent))
        expired = []
        for job, counts in zip(silent, events, strict=True):
            stored = self.state.job(job.id)
            if stored is None or not stored.state.live:
                continue  # a part that has ended with its job
            parts = self.state.parts(job.id)
            ended = self.jobs.expire(job.id, counts)
            if not ended.state.live:
                self._parts_over(parts)
                log.warning("job %s: %s", ended.label, ended.reason, extra={"job": ended.id})
                self.ended[ended.state] += 1
                self._job_changed(ended)
                expired.append(ended)
        return expired

    def _slots_of(self, lanes: int) -> int:
        return self._programs(lanes).slots

    def _stood_still(self, seconds: float) -> None:
        """Do not count the time in which the controller stood still against jobs and votes."""
        if 4 * seconds >= self.limits.expiry_s:
            self.jobs.give_time()
        if 4 * seconds >= self.limits.change_s:
            self.changes.give_time()

    def _cancel_late_changes(self) -> None:
        for job in self.changes.cancel_late():
            log.warning("job %s: its ranks did not agree to a change of its lease", job.label)
            self.calls.notify(job.id)

    async def _evict_unyielding(self) -> None:
        """End the jobs that keep out a higher priority and have let too many changes pass."""
        for job, reason in self.changes.unyielding():
            if self.queue.needs(job):
                log.warning("job %s: %s", job.label, reason, extra={"job": job.id})
                await self.end(job, JobState.EVICTED, reason)

    def _forget_old(self) -> None:
        now = self.clock.now()
        if now >= self._forget_at:
            self.jobs.forget_old()
            live = self.state.live_since()
            self.owners.keep(live)
            self.launchers.keep(live)
            self._forget_at = now + _FORGET_S

    async def _last_counters(self, job: Job) -> dict[str, dict[str, int] | None]:
        """The last counters of a job and of its live parts, by their ids."""
        live = [job, *(part for part in self.state.parts(job.id) if part.state.live)]
        counters = await asyncio.gather(*(self._last_events(each) for each in live))
        return {each.id: counts for each, counts in zip(live, counters, strict=True)}

    async def _last_events(self, job: Job) -> dict[str, int] | None:
        try:
            number = job.lease.number
            return (await self.fleet.loop(job.lease.switch).read_events([number]))[number]
        except ControllerError as error:
            log.info("job %s: last counters are not known: %s", job.label, error)
            return None

    def _job_changed(self, job: Job) -> None:
        self._tell(job)
        self.queue_polls.rebalance()

    def _parts_over(self, parts: Iterable[Job]) -> None:
        """Tell of those of the parts that have ended with their job, or with an attempt of it."""
        for before in parts:
            part = self.state.job(before.id)
            if part is None:  # it was in the queue
                self.queue.remember(before, _taken_out(before, "its job ended or began anew"))
                self.calls.notify(before.id)
            elif before.state.live and not part.state.live:
                log.info("job %s: %s", part.label, part.reason, extra={"job": part.id})
                self.ended[part.state] += 1
                self._tell(part)

    def _tell(self, job: Job) -> None:
        """Wake the switch of a job that has changed, and the calls that wait for news of it."""
        if not job.state.live:
            self.reports.forget(job)
            self.owners.forget(job.id)
            self.launchers.forget(job.id)
        self.fleet.wake(job.lease.switch)
        self.calls.notify(job.id)

    def _counters_reset(self, job_ids: Iterable[str]) -> None:
        now = self.desk.now()
        self.desk.commit(Plan(now, tuple(CountersReset(job_id) for job_id in job_ids)))

    def _confirmed_jobs(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self.calls.notify(job_id)

    async def _sweep_forever(self) -> None:
        interval = min(1.0, self.limits.expiry_s / 10)
        told = ""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.sweep()
                told = ""
            except Exception as error:
                # The next sweep may succeed; without sweeps, slots would never become free.
                if told != repr(error):
                    log.exception("looking for silent jobs failed")
                told = repr(error)


def _taken_out(job: Job, reason: str) -> ControllerError:
    return ControllerError("ABORTED", lines.TAKEN_OUT_BECAUSE.of(job=job.label, why=reason))
