"""The life of a job that has got its slots: looked up, attached to, ended, expired, forgotten."""

from collections.abc import Mapping
from dataclasses import dataclass

from wiresum.common import wall_clock
from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.limits import Limits
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.plan import (
    AddJobToken,
    EndJob,
    ForgetHistory,
    LeaveQueue,
    Park,
    Plan,
    Unpark,
)
from wiresum.controller.state.store import Snapshot

Events = Mapping[str, Mapping[str, int] | None]
"""The last counters of jobs, by their ids; None: they are not known."""

NO_EVENTS: Events = {}

_HISTORY_S = 7 * 24 * 3600.0
_HISTORY_JOBS = 1000
"""Ended jobs that are kept of each tenant, and as many ended parts: no tenant displaces the history
of others, and no job, by its parts, that of its tenant."""

# Enough for a launcher on every host of the largest job, even if each asks several times because
# its answer was lost.
_TOKENS_PER_JOB = 1024


@dataclass(frozen=True)
class Created:
    """The answer to a request for a job."""

    job: Job
    token: str
    """The caller's own; it is not kept."""
    attached: bool
    """The job had been there before."""


# ---- looking up


def get(state: Snapshot, job_id: str) -> Job:
    """The job of that id."""
    job = state.job(job_id)
    if job is None:
        raise _unknown(job_id)
    return job


def shown(state: Snapshot, id_or_name: str, caller: Caller) -> Job:
    """The job of that id, or of that name, that the caller may see and end."""
    check_unambiguous(state, id_or_name, caller)
    job = state.job(id_or_name) or state.job_named(id_or_name, caller.tenant or None)
    if job is None or not caller.owns(job):
        raise _unknown(id_or_name)
    return job


def check_unambiguous(state: Snapshot, id_or_name: str, caller: Caller) -> None:
    """Refuse a name that jobs of several tenants have: which job is meant would be a guess."""
    if not caller.admin or state.job(id_or_name):
        return
    found = [f"{tenant}'s {job_id}" for tenant, job_id in state.jobs_called(id_or_name)]
    if len(found) > 1:
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise ControllerError(
            "FAILED_PRECONDITION",
            lines.SEVERAL_JOBS.of(
                count=len(found), name=id_or_name, names=", ".join(found[:4]), more=more
            ),
        )


def joinable(state: Snapshot, job_id: str, caller: Caller) -> Job:
    """The job of that id, for a caller that is one of its workers or launchers."""
    if caller.tenant or (caller.job and caller.job != job_id):
        raise ControllerError(
            "PERMISSION_DENIED",
            lines.WRONG_JOB_TOKEN.of(job=job_id[:80], owner=caller),
        )
    job = get(state, job_id)
    if job.state is JobState.QUEUED:
        raise _unknown(job_id)
    return job


# ---- attaching


def check_attachable(live: Job, switch: str) -> None:
    """Refuse a caller that asks for a live job's name on another ``switch`` (empty: any)."""
    if switch and switch != live.lease.switch:
        raise ControllerError(
            "ALREADY_EXISTS",
            lines.LIVE_ELSEWHERE.of(job=live.label, switch=live.lease.switch, wanted=switch),
        )


def add_token(state: Snapshot, job: Job, token: str, now: float) -> Plan:
    """Give the job one more token, by its hash: tokens themselves are not kept."""
    if state.token_count(job.id) >= _TOKENS_PER_JOB:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            lines.ATTACHED_TOO_OFTEN.of(job=job.label, times=_TOKENS_PER_JOB),
        )
    return Plan(now, (AddJobToken(job.id, token),))


# ---- parking


def park(job: Job, now: float) -> Plan:
    """Let others have the slots of a job that has nothing to sum."""
    _check_live(job)
    if job.parked:
        return Plan(now)
    whole = job.lease.range.slots >= job.target
    return Plan(now, (Park(job.id, job.lent if job.lent and not whole else now),))


def unpark(job: Job, now: float) -> Plan:
    """Get the slots of a parked job back."""
    _check_live(job)
    return Plan(now, (Unpark(job.id),) if job.parked else ())


def _check_live(job: Job) -> None:
    if job.state is JobState.QUEUED:
        raise ControllerError("FAILED_PRECONDITION", lines.NOTHING_TO_PARK.of(job=job.label))
    if not job.state.live:
        raise ended_error(job)


# ---- ending


def end(
    state: Snapshot, job: Job, how: JobState, reason: str, now: float, events: Events = NO_EVENTS
) -> Plan:
    """End a job with its parts, unless it is over; ``events`` are their last counters."""
    if not job.state.live:
        return Plan(now)
    last = EndJob(job.id, how, reason, events.get(job.id), keep=_HISTORY_JOBS)
    return Plan(now, (*end_parts(state, job, how, f"its job ended: {reason}", events), last))


def expire(
    state: Snapshot,
    job: Job,
    silence_s: float,
    limits: Limits,
    now: float,
    events: Events = NO_EVENTS,
) -> Plan:
    """End a job that has shown no sign of life for too long, with its parts."""
    if silence_s <= limits.expiry_s:
        return Plan(now)
    reason = f"no heartbeat for {limits.expiry_s:g} s"
    return end(state, job, JobState.EXPIRED, reason, now, events)


def end_parts(
    state: Snapshot, job: Job, how: JobState, reason: str, events: Events = NO_EVENTS
) -> tuple[EndJob | LeaveQueue, ...]:
    """End the parts of a job that ends or begins anew."""
    parts = state.parts(job.id)
    live = [part.id for part in parts if part.state.live]
    # The last one also forgets the oldest: once is enough.
    keeps = {live[-1]: _HISTORY_JOBS} if live else {}
    return (
        *(LeaveQueue(part.id) for part in parts if not part.state.live),
        *(EndJob(each, how, reason, events.get(each), keep=keeps.get(each)) for each in live),
    )


def forget_old(now: float) -> Plan:
    """Forget the jobs that ended more than a week ago."""
    if not wall_clock.plausible(now):
        return Plan(now)  # by a wrong clock, everything may seem to have happened long ago
    return Plan(now, (ForgetHistory(now - _HISTORY_S),))


# ---- refusals


def ended_error(job: Job) -> ControllerError:
    """The refusal of a call about a job that is over."""
    return ControllerError(
        "FAILED_PRECONDITION",
        lines.JOB_OVER.of(job=job.label, state=job.state.value, why=job.reason),
    )


def replaced_error(job: Job, attempt: int) -> ControllerError:
    """The refusal of a rank whose attempt is over because a later one has begun."""
    return ControllerError(
        "ABORTED",
        lines.ATTEMPT_OVER.of(attempt=attempt, job=job.label, later=job.attempt),
    )


def _unknown(job: str) -> ControllerError:
    return ControllerError(
        "NOT_FOUND",
        lines.UNKNOWN_JOB.of(job=job[:80]),
    )
