"""The calls about jobs and their slots."""

import asyncio
import re

from wiresum.controller import lines
from wiresum.controller.api.calls import Calls, Context, or_status
from wiresum.controller.api.messages import (
    JOB_STATES,
    heartbeat_message,
    job_message,
    lease_message,
    slots_message,
)
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.queue import Queued
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.changes import Cancelled
from wiresum.controller.rules.checks import check_reason, invalid
from wiresum.controller.rules.jobs import ended_error
from wiresum.controller.rules.refusals import Scene
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.v1 import controller_pb2 as pb

MAX_PAGE = 500
"""Jobs in one answer of ListJobs."""

# And bytes, unless one job has more.
_PAGE_BYTES = 1 << 20

# How many jobs are read before other calls get their turn.
_JOBS_AT_ONCE = 16

# Listing so many jobs counts as one more call.
_JOBS_PER_CALL = 25

_PAGE = re.compile(r"w(\d{1,18})|j(?:(\d{1,18}(?:\.\d{1,18})?(?:e\+\d{1,2})?):(\d{1,18}))?")


class JobCalls(Calls):
    """Creating, joining, showing and ending jobs: for tenants, and for the jobs themselves."""

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.Job:
        """Creates a job, or attaches to a live one."""

        async def answer() -> pb.Job:
            caller = self._caller(context, request.parent_token if request.parent else "")
            created = await self._office.create_job(request, caller, context.time_remaining())
            if isinstance(created, Queued):
                message = self._queued(created.job, caller)
                message.attached = created.attached
                return message
            (message,) = await self._jobs([created.job], counters=False)
            message.token = created.token
            message.attached = created.attached
            return message

        return await or_status(answer(), context)

    async def ClaimJob(self, request: pb.ClaimJobRequest, context: Context) -> pb.ClaimJobResponse:
        """Asks for a job on behalf of a process group."""

        async def answer() -> pb.ClaimJobResponse:
            job = self._office.jobs.joinable(request.job_id, self._caller(context, request.token))
            return self._office.claim(job, request)

        return await or_status(answer(), context)

    async def JoinJob(self, request: pb.JoinJobRequest, context: Context) -> pb.Lease:
        """Joins a job; returns when all its ranks have."""

        async def answer() -> pb.Lease:
            job = self._office.jobs.joinable(request.job_id, self._caller(context, request.token))
            ready = await self._office.join_job(job, request, context.time_remaining())
            return lease_message(ready, request.rank, self._office.limits)

        return await or_status(answer(), context)

    async def Heartbeat(
        self, request: pb.HeartbeatRequest, context: Context
    ) -> pb.HeartbeatResponse:
        """Keeps a job alive."""

        async def answer() -> pb.HeartbeatResponse:
            caller = self._caller(context, request.token)
            job = self._office.jobs.joinable(request.job_id, caller)
            job = await self._office.heartbeat(job, request, caller, context.time_remaining())
            return heartbeat_message(job)

        return await or_status(answer(), context)

    async def ChangeLease(
        self, request: pb.ChangeLeaseRequest, context: Context
    ) -> pb.ChangeLeaseResponse:
        """Agrees on the collective after which the ranks use another lease."""

        async def answer() -> pb.ChangeLeaseResponse:
            job = self._office.jobs.joinable(request.job_id, self._caller(context, request.token))
            outcome = await self._office.change_lease(job, request, context.time_remaining())
            if isinstance(outcome, Cancelled):
                return pb.ChangeLeaseResponse(cancelled=True, reason=outcome.reason)
            return pb.ChangeLeaseResponse(boundary=outcome.boundary)

        return await or_status(answer(), context)

    async def ParkJob(self, request: pb.ParkJobRequest, context: Context) -> pb.Job:
        """Lets others have a job's slots, or gets them back."""

        async def answer() -> pb.Job:
            caller = self._caller(context, request.token)
            job = self._office.jobs.shown(request.job_id, caller)
            job = self._office.park_job(job, unpark=request.unpark)
            (message,) = await self._jobs([job], counters=False)
            return message

        return await or_status(answer(), context)

    async def ReleaseJob(
        self, request: pb.ReleaseJobRequest, context: Context
    ) -> pb.ReleaseJobResponse:
        """Ends a job; for one of its launchers, if it was the last."""

        async def answer() -> pb.ReleaseJobResponse:
            caller = self._caller(context, request.token)
            job = self._office.jobs.shown(request.job_id, caller)
            if job.state is JobState.QUEUED:
                if self._office.queue_polls.others_wait(job, request.request_id):
                    return pb.ReleaseJobResponse(state=pb.JOB_STATE_QUEUED)
                self._office.dismiss(job, "released")
                return pb.ReleaseJobResponse(state=pb.JOB_STATE_RELEASED)
            job = await self._office.leave(job, caller, request.request_id)
            return pb.ReleaseJobResponse(state=JOB_STATES[job.state])

        return await or_status(answer(), context)

    async def EvictJob(self, request: pb.EvictJobRequest, context: Context) -> pb.Job:
        """Ends a job: the admin anyone's, a tenant its own."""

        async def answer() -> pb.Job:
            caller = self._caller(context)
            caller.refuse_jobs()
            given = check_reason(request.reason)
            reason = f"evicted by {caller}: {given}" if given else f"evicted by {caller}"
            job = self._office.jobs.shown(request.job, caller)
            if job.state is JobState.QUEUED:
                message = self._queued(job, caller)
                self._office.dismiss(job, reason)
                message.state, message.reason = pb.JOB_STATE_EVICTED, reason
                return message
            if not job.state.live:
                raise ended_error(job)
            job = await self._office.end(job, JobState.EVICTED, reason)
            (message,) = await self._jobs([job], counters=False)
            return message

        return await or_status(answer(), context)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:
        """Tells about one job."""

        async def answer() -> pb.Job:
            caller = self._caller(context)
            job = self._office.jobs.shown(request.job_id, caller)
            if job.state is JobState.QUEUED:
                return self._queued(job, caller)
            (message,) = await self._jobs([job], counters=request.counters)
            return message

        return await or_status(answer(), context)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Lists jobs."""

        async def answer() -> pb.ListJobsResponse:
            caller = self._caller(context)
            own = caller.own_tenant
            answer = await self._page(request, caller, own)
            self._rates.cost(caller, len(answer.jobs) / _JOBS_PER_CALL)
            return answer

        return await or_status(answer(), context)

    async def ListSlots(
        self, request: pb.ListSlotsRequest, context: Context
    ) -> pb.ListSlotsResponse:
        """Lists the slots of switches, with the jobs that hold them."""

        async def answer() -> pb.ListSlotsResponse:
            caller = self._caller(context)
            if caller.job:
                caller.require_admin("list slots with a job's token")
            if request.switch:
                switches = [self._office.switch(request.switch)]
            else:
                switches = self._office.state.switches()
            return pb.ListSlotsResponse(
                switches=[
                    slots_message(
                        switch, self._office.state.jobs_on(switch.name, members=False), caller
                    )
                    for switch in switches
                ]
            )

        return await or_status(answer(), context)

    # ----

    async def _page(
        self, request: pb.ListJobsRequest, caller: Caller, tenant: str | None
    ) -> pb.ListJobsResponse:
        """A page of jobs: those in the queue first, then the others, newest first."""
        answer = pb.ListJobsResponse()
        left = min(request.page_size or MAX_PAGE, MAX_PAGE)
        in_queue, place = _parse_page(request.page_token)
        if in_queue:
            sequence = int(place[1]) if place is not None else None
            queue = self._office.state.queue_before(sequence, left + 1, tenant)
            scene = Scene()
            for number, job in enumerate(queue[:left], start=1):
                answer.jobs.append(self._queued(job, caller, scene))
                if number % _JOBS_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others' calls go in between
            if len(queue) > left:
                answer.next_page_token = f"w{queue[left - 1].sequence}"
                return answer
            left, place = left - len(queue), None
            if not left:
                answer.next_page_token = "j"
                return answer
        rows = self._office.state.job_ids_before(
            place, left + 1, live_only=request.live_only, tenant=tenant
        )
        size = 0
        for first in range(0, min(len(rows), left), _JOBS_AT_ONCE):
            some = rows[first : min(first + _JOBS_AT_ONCE, left)]
            found = [self._office.state.job(job_id) for job_id, _ in some]
            messages = await self._jobs(
                [job for job in found if job is not None], counters=request.counters
            )
            answer.jobs.extend(messages)
            size += sum(message.ByteSize() for message in messages)
            if len(rows) > first + len(some) and (size > _PAGE_BYTES or first + len(some) == left):
                created, number = some[-1][1]
                answer.next_page_token = f"j{created!r}:{number}"
                return answer
            await asyncio.sleep(0)
        return answer

    def _queued(self, job: Job, caller: Caller, scene: Scene | None = None) -> pb.Job:
        """A job in the queue: its place, and what it waits for."""
        queue, office = self._office.queue, self._office
        message = job_message(job, None, office.limits, 0.0)
        message.queue_position = queue.position(job.id)
        message.started = queue.started(job.id)
        if queue.standing(job.id) is Standing.COMING:
            message.reason = Standing.COMING.value
        else:
            message.reason = str(queue.refusal(job, caller, scene))
        return message

    async def _jobs(self, jobs: list[Job], *, counters: bool) -> list[pb.Job]:
        office = self._office
        switches = {switch.name: switch for switch in office.state.switches()}
        messages = [
            job_message(
                job, switches.get(job.lease.switch), office.limits, office.jobs.silence(job)
            )
            for job in jobs
        ]
        for job, message in zip(jobs, messages, strict=True):
            message.reports.extend(office.reports.of(job))
        if counters:
            await self._add_counters(
                dict(zip((job.id for job in jobs), messages, strict=True)), jobs
            )
        return messages

    async def _add_counters(self, messages: dict[str, pb.Job], jobs: list[Job]) -> None:
        """Ask each switch once, for all of its jobs."""
        live: dict[str, list[Job]] = {}
        for job in jobs:
            if job.state.live:
                live.setdefault(job.lease.switch, []).append(job)
            elif job.events is not None:
                messages[job.id].events.update(job.events)
            else:
                messages[job.id].counters_error = "the switch could not be asked at the job's end"
        for name, its_jobs in live.items():
            try:
                loop = self._office.fleet.loop(name)
                events = await loop.read_events([job.lease.number for job in its_jobs])
            except ControllerError as error:
                for job in its_jobs:
                    messages[job.id].counters_error = str(error)
                continue
            for job in its_jobs:
                messages[job.id].events.update(events[job.lease.number])


def _parse_page(token: str) -> tuple[bool, tuple[float, int] | None]:
    """Whether a page shows the queue, and after which place it begins; None: at the beginning."""
    found = _PAGE.fullmatch(token) if token else None
    if token and found is None:
        invalid(lines.NOT_A_PAGE.of(token=token[:80]))
    if found is None:
        return True, None
    sequence, created, number = found.groups()
    if sequence is not None:
        return True, (0.0, int(sequence))
    return False, (float(created), int(number)) if created is not None else None
