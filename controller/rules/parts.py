"""Parts of a job: jobs of some of its ranks, which share its slots and end with it."""

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.checks import invalid
from wiresum.controller.rules.jobs import ended_error, get, joinable
from wiresum.controller.state.model import MIN_SLOTS, Job
from wiresum.controller.state.store import Snapshot
from wiresum.controller.v1 import controller_pb2 as pb

MOST = 128
"""Parts of one job, in the queue or live: a mesh of 64 ranks in three dimensions has fewer
groups."""

_SHARE = 4
"""A part that names no number of slots asks for the job's own, divided by this."""


def whole(state: Snapshot, request: pb.CreateJobRequest, caller: Caller) -> Job | None:
    """The job that a part of is asked for; None: the request is for no part.

    A part of a part is another part of the same job: the groups that a training makes of its
    groups do not end with them.
    """
    if not request.parent:
        return None
    job = joinable(state, request.parent, caller)
    if not job.state.live:
        raise ended_error(job)
    if job.parent:
        job = get(state, job.parent)
    for what, wanted, has in (
        ("tenant", request.tenant, job.tenant),
        ("switch", request.switch, job.lease.switch),
    ):
        if wanted not in ("", has):
            invalid(lines.PART_ELSEWHERE.of(job=job.label, what=what, wanted=wanted[:80], has=has))
    return job


def name_of(job: Job, name: str) -> str:
    """The name of a part of ``job`` that is called ``name``: no job of its own can have it."""
    return f"{job.name}:{name}"


def request_of(job: Job, request: str) -> str:
    """The id of a request for a part of ``job``: no request for a job can have it."""
    return f"{job.id}:{request}" if request else ""


def default_slots(job: Job) -> int:
    """The slots that a part asks for whose request names none."""
    return max(MIN_SLOTS, job.target // _SHARE)


def impossible(part: Job, job: Job) -> ControllerError | None:
    """Why ``job`` can never give a part of it the slots that it asks for; None: it can."""
    needed = part.sizes[-1]
    if needed + job.min_slots <= job.target:
        return None
    return ControllerError(
        "RESOURCE_EXHAUSTED",
        lines.SHARE_TOO_SMALL.of(
            slots=needed, job=job.label, admitted=job.target, least=job.min_slots
        ),
    )


def check_count(state: Snapshot, job: Job) -> None:
    """Refuse one part more than a job may have."""
    if len(state.parts(job.id)) >= MOST:
        raise ControllerError(
            "RESOURCE_EXHAUSTED", lines.TOO_MANY_PARTS.of(job=job.label, count=MOST)
        )
