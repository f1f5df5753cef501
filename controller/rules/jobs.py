"""The life of a job that has got its slots: found, attached to, kept alive, ended.

Everything here is synchronous and decided by the store alone; who has to wait, and for what,
is the core's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wiresum.common import wall_clock
from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.store import Store
from wiresum.controller.tokens import JOB, hashed, new_token
from wiresum.controller.v1 import controller_pb2 as pb

_HISTORY_S = 7 * 24 * 3600.0
_HISTORY_JOBS = 1000
"""Of each tenant, so that none drives out what others had."""

# A launcher on every host of the largest job, each of which has lost its answer a few times.
_TOKENS_PER_JOB = 1024


@dataclass(frozen=True)
class Limits:
    """How long the controller waits for what. All in seconds."""

    heartbeat_s: float = 5.0
    """How often launchers and workers shall show a sign of life."""
    expiry_s: float = 30.0
    """Silence after which a job's lease expires."""
    join_timeout_s: float = 60.0
    """How long a rank waits for the others, unless it says otherwise."""
    change_s: float = 15.0
    """How long the ranks of a running job may take to agree on a change of its lease, and how long
    a job that does not want to wait in the queue waits for such changes."""
    drained_s: float = 300.0
    """How long a job in the queue waits while every switch that it may have is being drained."""


@dataclass(frozen=True)
class Created:
    """The answer to a request for a job."""

    job: Job
    token: str
    """The caller's own; it is not kept."""
    attached: bool
    """The job had been there before."""


def _unknown(job: str) -> ControllerError:
    return ControllerError(
        "NOT_FOUND",
        f"there is no job {job[:80]!r}: `wiresum job list` shows those that this token may see",
    )


@dataclass
class Jobs:
    """The rules of jobs that have got their slots. Methods raise :class:`ControllerError`."""

    store: Store
    clock: Clock
    limits: Limits

    def recover(self) -> None:
        """Take over what an earlier controller left: live jobs get their whole expiry time.

        Ranks that were waiting for others are not waiting any more, so they have not joined.
        """
        with self.store.transaction() as transaction:
            transaction.remove_waiting_members()
        # Not what the store says: the clock may have been put back since.
        self.store.heard = dict.fromkeys(self.store.live_job_ids(), self.clock.now())

    def give_time(self) -> None:
        """Give every live job the whole expiry time from now on."""
        self.store.all_heard = self.clock.now()

    def touch(self, job: Job) -> None:
        """Record a sign of life, in memory: it must not depend on the store's file."""
        if job.state.live:
            self.heard(job.id)

    def heard(self, job_id: str) -> None:
        """Record a sign of life of a job that is thought to be live."""
        self.store.heard[job_id] = self.clock.now()

    def end(
        self, job: Job, state: JobState, reason: str, events: Mapping[str, int] | None = None
    ) -> Job:
        """Release or evict a job, unless it is over; ``events`` are its last counters."""
        job = self.get(job.id)
        if job.state.live:
            self._end(job, state, reason, events)
        return self.get(job.id)

    def get(self, job_id: str) -> Job:
        """The job of that id."""
        job = self.store.job(job_id)
        if job is None:
            raise _unknown(job_id)
        return job

    def shown(self, id_or_name: str, caller: Caller) -> Job:
        """The job of that id, or of that name, that the caller may see and end."""
        job = self.store.job(id_or_name) or self.store.job_named(id_or_name, caller.tenant or None)
        if job is None or not caller.owns(job):
            raise _unknown(id_or_name)
        return job

    def joinable(self, job_id: str, caller: Caller) -> Job:
        """The job of that id, for a caller who is one of its workers or launchers."""
        if caller.tenant or (caller.job and caller.job != job_id):
            raise ControllerError(
                "PERMISSION_DENIED",
                f"wrong token for job {job_id[:80]!r} ({caller}'s): use the one that CreateJob "
                "returned",
            )
        job = self.get(job_id)
        if job.state is JobState.QUEUED:
            raise _unknown(job_id)
        return job

    def attach(self, live: Job, request: pb.CreateJobRequest) -> Created:
        """Whoever asks for a job that is live gets it, and a token of its own."""
        if request.switch and request.switch != live.lease.switch:
            raise ControllerError(
                "ALREADY_EXISTS",
                f"job {live.label} is live on switch {live.lease.switch}, "
                f"not {request.switch}: release it, or choose another name",
            )
        return Created(live, self.another_token(live), attached=True)

    def another_token(self, job: Job) -> str:
        """Tokens are kept as hashes: whoever attaches gets one of its own."""
        if self.store.token_count(job.id) >= _TOKENS_PER_JOB:
            raise ControllerError(
                "RESOURCE_EXHAUSTED",
                f"job {job.label} has been attached to {_TOKENS_PER_JOB} times: release it, or "
                "choose another name",
            )
        token = new_token(JOB)
        with self.store.transaction() as transaction:
            transaction.add_job_token(job.id, hashed(token))
        return token

    # ---- expiry

    def silent(self) -> list[Job]:
        """The live jobs whose heartbeats have stopped for too long."""
        return self.store.silent_jobs(self.clock.now() - self.limits.expiry_s)

    def expire(self, job_id: str, events: Mapping[str, int] | None = None) -> Job:
        """End a job if it is (still) silent."""
        job = self.get(job_id)
        if job.state.live and self.clock.now() - job.heartbeat > self.limits.expiry_s:
            reason = f"no heartbeat for {self.limits.expiry_s:g} s"
            self._end(job, JobState.EXPIRED, reason, events)
        return self.get(job_id)

    def forget_old(self) -> None:
        """Drop the history of jobs that ended more than a week ago, and signs of former life."""
        live = set(self.store.live_job_ids())
        self.store.heard = {
            job_id: time for job_id, time in self.store.heard.items() if job_id in live
        }
        if not wall_clock.plausible(self.clock.now()):
            return  # by such a clock, everything may seem to have happened long ago
        with self.store.transaction() as transaction:
            transaction.forget_jobs_ended_before(self.clock.now() - _HISTORY_S)

    def ended_error(self, job: Job) -> ControllerError:
        """What a caller is told who wants something of a job that is over."""
        return ControllerError(
            "FAILED_PRECONDITION",
            f"job {job.label} is over ({job.state.value}: {job.reason}): create a new one",
        )

    def replaced_error(self, job: Job, attempt: int) -> ControllerError:
        """What a rank of an attempt is told when a later one has begun."""
        return ControllerError(
            "ABORTED",
            f"attempt {attempt} of job {job.label} is over: attempt {job.attempt} has started; "
            "restart this worker with the others",
        )

    # ----

    def _end(
        self, job: Job, state: JobState, reason: str, events: Mapping[str, int] | None
    ) -> None:
        with self.store.transaction() as transaction:
            transaction.end_job(job.id, state, reason, self.clock.now(), events)
            transaction.forget_jobs_before(job.id, keep=_HISTORY_JOBS)
