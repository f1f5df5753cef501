"""The gRPC service: requests in, messages out, errors as statuses with one line."""

import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

from wiresum.controller.core import Core
from wiresum.controller.errors import ControllerError
from wiresum.controller.messages import JOB_STATES, job_message, slots_message, switch_message
from wiresum.controller.model import Job, Switch
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]
_Reply = TypeVar("_Reply")


class ControllerService(pb_grpc.ControllerServicer):
    """Serves a :class:`Core`. What each call does is documented in the .proto."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def AddSwitch(self, request: pb.AddSwitchRequest, context: _Context) -> pb.Switch:
        """Registers or updates a switch."""

        async def answer() -> pb.Switch:
            return self._switch(await self._core.add_switch(request))

        return await _or_status(answer(), context)

    async def ListSwitches(
        self, request: pb.ListSwitchesRequest, context: _Context
    ) -> pb.ListSwitchesResponse:
        """Lists all switches."""

        async def answer() -> pb.ListSwitchesResponse:
            switches = [self._switch(switch) for switch in self._core.store.switches()]
            if request.counters:
                for switch in switches:
                    try:
                        drops = await self._core.fleet.loop(switch.name).read_drops()
                        switch.drops.update(drops)
                    except ControllerError as error:
                        switch.counters_error = str(error)
            return pb.ListSwitchesResponse(switches=switches)

        return await _or_status(answer(), context)

    async def RemoveSwitch(
        self, request: pb.RemoveSwitchRequest, context: _Context
    ) -> pb.RemoveSwitchResponse:
        """Forgets a switch."""

        async def answer() -> pb.RemoveSwitchResponse:
            await self._core.remove_switch(request.name)
            return pb.RemoveSwitchResponse()

        return await _or_status(answer(), context)

    async def CreateJob(self, request: pb.CreateJobRequest, context: _Context) -> pb.Job:
        """Creates a job, or attaches to a live one."""

        async def answer() -> pb.Job:
            job, attached = self._core.jobs.create(request)
            self._core.fleet.wake(job.lease.switch)
            (message,) = await self._jobs([job], counters=False)
            message.token = job.token
            message.attached = attached
            return message

        return await _or_status(answer(), context)

    async def JoinJob(self, request: pb.JoinJobRequest, context: _Context) -> pb.Lease:
        """Joins a job; returns when all its ranks have."""
        return await _or_status(self._core.join(request, context.time_remaining()), context)

    async def Heartbeat(
        self, request: pb.HeartbeatRequest, context: _Context
    ) -> pb.HeartbeatResponse:
        """Keeps a job alive."""

        async def answer() -> pb.HeartbeatResponse:
            job = self._core.jobs.heartbeat(request.job_id, request.token)
            return pb.HeartbeatResponse(
                state=JOB_STATES[job.state], epoch=job.epoch, reason=job.reason
            )

        return await _or_status(answer(), context)

    async def ReleaseJob(
        self, request: pb.ReleaseJobRequest, context: _Context
    ) -> pb.ReleaseJobResponse:
        """Ends a job."""

        async def answer() -> pb.ReleaseJobResponse:
            job = await self._core.release(request.job_id, request.token)
            return pb.ReleaseJobResponse(state=JOB_STATES[job.state])

        return await _or_status(answer(), context)

    async def GetJob(self, request: pb.GetJobRequest, context: _Context) -> pb.Job:
        """Tells about one job."""

        async def answer() -> pb.Job:
            job = self._core.jobs.get(request.job_id)
            (message,) = await self._jobs([job], counters=request.counters)
            return message

        return await _or_status(answer(), context)

    async def ListJobs(self, request: pb.ListJobsRequest, context: _Context) -> pb.ListJobsResponse:
        """Lists jobs."""

        async def answer() -> pb.ListJobsResponse:
            jobs = self._core.store.jobs(live_only=request.live_only)
            return pb.ListJobsResponse(jobs=await self._jobs(jobs, counters=request.counters))

        return await _or_status(answer(), context)

    async def ListSlots(
        self, request: pb.ListSlotsRequest, context: _Context
    ) -> pb.ListSlotsResponse:
        """Lists who holds which slots."""

        async def answer() -> pb.ListSlotsResponse:
            if request.switch:
                switches = [self._core.switches.get(request.switch)]
            else:
                switches = self._core.store.switches()
            return pb.ListSlotsResponse(
                switches=[
                    slots_message(switch, self._core.store.jobs_on(switch.name))
                    for switch in switches
                ]
            )

        return await _or_status(answer(), context)

    # ----

    def _switch(self, switch: Switch) -> pb.Switch:
        loop = self._core.fleet.find(switch.name)
        return switch_message(switch, loop, self._core.store.jobs_on(switch.name))

    async def _jobs(self, jobs: list[Job], *, counters: bool) -> list[pb.Job]:
        core = self._core
        switches = {switch.name: switch for switch in core.store.switches()}
        messages = [
            job_message(job, switches.get(job.lease.switch), core.limits, core.clock.now())
            for job in jobs
        ]
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
                loop = self._core.fleet.loop(name)
                events = await loop.read_events([job.lease.number for job in its_jobs])
            except ControllerError as error:
                for job in its_jobs:
                    messages[job.id].counters_error = str(error)
                continue
            for job in its_jobs:
                messages[job.id].events.update(events[job.lease.number])


async def _or_status(answer: Awaitable[_Reply], context: _Context) -> _Reply:
    """The answer, or the gRPC status that says why there is none."""
    try:
        return await answer
    except ControllerError as error:
        # UNAVAILABLE is what a client sees when there is no controller: not ours to say.
        code = "FAILED_PRECONDITION" if error.code == "UNAVAILABLE" else error.code
        await context.abort(grpc.StatusCode[code], str(error))
    except Exception as error:
        log.exception("a request failed")
        text = " ".join(str(error).split())
        await context.abort(
            grpc.StatusCode.INTERNAL,
            f"the controller failed ({type(error).__name__}: {text}): see its log",
        )
    raise AssertionError("abort raises")
