"""The long polls of ranks: they wait for their lease, for each other, and for news."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from wiresum.common.version import compatible, package_version
from wiresum.controller import lines
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.office.calls import CallsInProgress, until
from wiresum.controller.office.changes import Changes
from wiresum.controller.office.desk import Desk
from wiresum.controller.office.jobs import Jobs
from wiresum.controller.patience import Limiting
from wiresum.controller.rules.changes import Agreed, Cancelled, Vote
from wiresum.controller.rules.checks import invalid
from wiresum.controller.rules.jobs import ended_error, replaced_error
from wiresum.controller.southbound.fleet import Fleet
from wiresum.controller.state.model import Job, JobState, Switch
from wiresum.controller.state.plan import Plan, RemoveMember
from wiresum.controller.text import format_ranks, format_seconds
from wiresum.controller.v1 import controller_pb2 as pb

MAX_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True)
class Ready:
    """A job that all its ranks have joined, and the switch that has confirmed their entries."""

    job: Job
    switch: Switch
    program_version: str


def check_timeout(seconds: float) -> None:
    """Refuse a timeout that is none."""
    if not 0 < seconds <= MAX_TIMEOUT_S:
        invalid(lines.TIMEOUT_TOO_LONG.of(timeout_s=seconds, most=MAX_TIMEOUT_S))


@dataclass
class RankPolls:
    """The long polls of ranks. Methods raise :class:`ControllerError`.

    ``changed`` is called with a job whose entries on its switch change, and ``parts_over`` with the
    parts of one that have ended; ``limit`` limits the time that callers wait.
    """

    desk: Desk
    jobs: Jobs
    changes: Changes
    calls: CallsInProgress
    fleet: Fleet
    changed: Callable[[Job], None]
    parts_over: Callable[[list[Job]], None]
    limit: Limiting = asyncio.timeout
    _unsettled: bool = False
    """Ranks have given up while the store could not be written."""

    async def join(self, job: Job, request: pb.JoinJobRequest, time_left: float | None) -> Ready:
        """Join a job, and wait for the other ranks and the switch.

        ``time_left`` is when the caller stops listening, if it said so.
        """
        limit = request.timeout_s or self.jobs.limits.join_timeout_s
        check_timeout(limit)
        if time_left is not None:
            limit = min(limit, time_left)
        before = job
        self._check_versions(job, request)
        turn = (request.attempt, request.change)
        with self.calls.call(job.id, turn, request.rank) as news:
            # A rank that is refused has not joined, and leaves nothing behind.
            parts = self.desk.state.parts(job.id)
            try:
                job = self.jobs.join(job, request)
            except StoreFailed:
                self._unsettled = True  # whether the rank is in the store is not known
                raise
            try:
                self.parts_over(parts)
                # Most ranks are neither the first of an attempt nor the last.
                if (job.epoch, job.state) != (before.epoch, before.state):
                    self.changed(job)
                async with self.limit(limit):
                    job = await self._ready(job, request, news)
            except TimeoutError:
                waited = limit + max(0.0, request.waited_s)
                raise self._late(self.jobs.get(job.id), request, waited) from None
            finally:
                self._left(job.id, request)
        switch = self.desk.state.switch(job.lease.switch)
        assert switch is not None, "a switch with live jobs cannot be removed"
        program_version = self.fleet.loop(switch.name).program.version
        return Ready(job, switch, program_version)

    async def heartbeat(
        self, job: Job, request: pb.HeartbeatRequest, time_left: float | None
    ) -> Job:
        """A sign of life; returns when there is news for the caller, or after ``wait_s``."""
        self.jobs.touch(job)
        if not 0 <= request.wait_s <= MAX_TIMEOUT_S:
            invalid(lines.HEARTBEAT_WAIT_TOO_LONG.of(wait_s=request.wait_s))
        # The caller must show its next sign of life before the lease expires.
        limit = until(min(request.wait_s, self.jobs.limits.expiry_s / 2), time_left)
        with self.calls.watch(job.id) as news, suppress(TimeoutError):
            async with self.limit(limit):
                while not _is_news(self.jobs.get(job.id), request):
                    news.clear()
                    await news.wait()
        return self.jobs.get(job.id)

    async def change(
        self, job: Job, request: pb.ChangeLeaseRequest, time_left: float | None
    ) -> Agreed | Cancelled:
        """Agree with the other ranks on a change of the lease."""
        limit = request.timeout_s or self.jobs.limits.change_s
        check_timeout(limit)
        vote = Vote(request.rank, request.epoch, request.change, request.started)
        if not job.state.live:
            raise ended_error(job)
        self.jobs.touch(job)
        with self.calls.watch(job.id) as news, self.changes.voting(job, vote):
            try:
                async with self.limit(until(limit, time_left)):
                    while True:
                        news.clear()
                        outcome = self._outcome(job.id, vote)
                        if outcome is not None:
                            return outcome
                        await news.wait()
            except TimeoutError:
                # The last vote may have come at the last moment.
                outcome = self._outcome(job.id, vote)
                missing = self.changes.missing(self.jobs.get(job.id))
                ranks = "rank" if len(missing) == 1 else "ranks"
                return outcome or Cancelled(
                    f"{ranks} {format_ranks(missing)} did not agree to change {request.change} "
                    f"within {format_seconds(limit)} s"
                )

    # ----

    def _outcome(self, job_id: str, vote: Vote) -> Agreed | Cancelled | None:
        job = self.jobs.get(job_id)
        if not job.state.live:
            raise ended_error(job)
        outcome = self.changes.outcome(job, vote)
        if isinstance(outcome, Agreed):
            self.calls.notify(job_id)
        return outcome

    async def _ready(self, job: Job, request: pb.JoinJobRequest, news: asyncio.Event) -> Job:
        while True:
            news.clear()
            job = self.jobs.get(job.id)
            if not job.state.live:
                raise ended_error(job)
            if job.attempt != request.attempt:
                raise replaced_error(job, request.attempt)
            made = job.state is JobState.READY and job.change == request.change
            if made and self.fleet.confirmed(job):
                return job
            await news.wait()

    def settle(self) -> None:
        """Withdraw the ranks that gave up while the store failed. Raises ``StoreFailed``."""
        if self._unsettled:
            gone = tuple(
                RemoveMember(job_id, rank, change)
                for job_id, attempt, change, rank in self.desk.state.waiting_members()
                if not self.calls.count(job_id, (attempt, change), rank)
            )
            self.desk.commit(Plan(self.desk.now(), gone))
            self._unsettled = False

    def _left(self, job_id: str, request: pb.JoinJobRequest) -> None:
        """A call has ended: unless all are there, the rank has not joined after all."""
        turn = (request.attempt, request.change)
        others = self.calls.count(job_id, turn, request.rank) - 1
        if others == 0:
            self.calls.give_up(job_id, turn, request.rank)
            try:
                self.jobs.withdraw(request)
            except StoreFailed:
                self._unsettled = True

    def _late(self, job: Job, request: pb.JoinJobRequest, limit: float) -> ControllerError:
        attempt = f"attempt {job.attempt} of job {job.label}"
        missing = job.missing
        if request.change > job.change and job.pending is not None:
            attempt = f"change {request.change} of the lease of job {job.label}"
            there = {member.rank for member in job.pending.members}
            missing = [rank for rank in range(job.workers) if rank not in there]
        if not missing:
            loop = self.fleet.loop(job.lease.switch)
            reason = loop.reason or "its tables are still being written"
            message = lines.SWITCH_NOT_READY.of(
                attempt=attempt,
                workers=job.workers,
                switch=loop.switch.name,
                limit_s=format_seconds(limit),
                why=reason,
            )
        else:
            # Ranks that came and went are not those that all the others were waiting for.
            gone = self.calls.gave_up(job.id, (request.attempt, request.change))
            absent = [rank for rank in missing if rank not in gone]
            ranks = format_ranks(absent or missing)
            noun = "rank" if len(absent or missing) == 1 else "ranks"
            what = "did not join" if absent else "gave up before all the others had joined,"
            message = lines.RANKS_MISSING.of(
                attempt=attempt,
                noun=noun,
                ranks=ranks,
                workers=job.workers,
                what=what,
                limit_s=format_seconds(limit),
            )
        return ControllerError("DEADLINE_EXCEEDED", message)

    def _check_versions(self, job: Job, request: pb.JoinJobRequest) -> None:
        ours = package_version()
        if not compatible(request.agent_version, ours):
            raise ControllerError(
                "FAILED_PRECONDITION",
                lines.OTHER_VERSION.of(
                    rank=request.rank, version=request.agent_version or "(unknown)", ours=ours
                ),
            )
        if job.state.live and request.program_version:
            program = self.fleet.loop(job.lease.switch).program
            if request.program_version != program.version:
                raise ControllerError(
                    "FAILED_PRECONDITION",
                    lines.OTHER_SWITCH_PROGRAM.of(
                        rank=request.rank,
                        version=request.program_version,
                        switch=job.lease.switch,
                        switch_version=program.version,
                    ),
                )


def _is_news(job: Job, request: pb.HeartbeatRequest) -> bool:
    return (
        not job.state.live
        or request.epoch not in (0, job.epoch)
        or request.change != job.announced_change
    )
