"""One round of decisions: which jobs get slots, and which leases change to make room.

``scheduling/`` decides, as a pure function; this module makes its input, and a plan of its
decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.rules import changes, parts
from wiresum.controller.rules.admission import fitting_switches, impossible
from wiresum.controller.rules.jobs import ended_error
from wiresum.controller.scheduling.packing import Holding
from wiresum.controller.scheduling.parts import Family
from wiresum.controller.scheduling.scheduling import (
    PARKED,
    Account,
    Decisions,
    Shrunk,
    Standing,
    SwitchView,
    Wish,
    decide,
)
from wiresum.controller.state.model import Job, Switch
from wiresum.controller.state.plan import Grant, LeaveQueue, Plan, Write
from wiresum.controller.state.store import Snapshot


@dataclass(frozen=True)
class Circumstances:
    """The inputs of a round that are not in the store."""

    present: frozenset[str]
    """The jobs in the queue whose callers wait now, or did a moment ago."""
    up: frozenset[str]
    """The switches that can be reached now: others get jobs only while none can."""
    resting: frozenset[str]
    """The jobs whose leases are not changed now."""
    drained: Mapping[str, float]
    """Since when all switches that a job in the queue may have are being drained."""
    drained_s: float
    """How long a job stays in the queue for such switches."""


@dataclass(frozen=True)
class Round:
    """The outcome of a round."""

    plan: Plan
    granted: tuple[str, ...] = ()
    """Jobs that get their slots."""
    changing: tuple[str, ...] = ()
    """Jobs whose lease changes."""
    switches: frozenset[str] = frozenset()
    """The switches that these are on."""
    dismissed: tuple[tuple[Job, ControllerError], ...] = ()
    """Jobs that leave the queue because they can never get slots, and why."""
    standings: Mapping[str, Standing] = field(default_factory=dict)
    """The standings of the jobs that stay in the queue, in their order."""
    drained: Mapping[str, float] = field(default_factory=dict)
    """The new :attr:`Circumstances.drained`."""


def decide_round(state: Snapshot, now: float, given: Circumstances) -> Round:
    """Decide once. A round without a plan would decide the same if it were repeated."""
    queue = {job.id: job for job in state.queue()}
    dismissed, drained = _hopeless(state, queue, now, given)
    for job, _ in dismissed:
        del queue[job.id]
    writes: list[Write] = [LeaveQueue(job.id) for job, _ in dismissed]
    shrunk = [job for job in state.shrunk_jobs() if not job.parked]
    if not queue and not shrunk:
        return Round(Plan(now, tuple(writes)), dismissed=dismissed, drained=drained)
    decisions = _decide(state, queue, shrunk, given)
    switches = {grant.switch for grant in decisions.grants}
    for change in decisions.changes:
        holder = state.job(change.job)
        assert holder is not None, "a job that holds slots is in the store"
        writes.append(changes.begin(holder, change.range, change.reason))
        switches.add(holder.lease.switch)
    writes += [
        Grant(grant.job, grant.switch, grant.number, grant.range) for grant in decisions.grants
    ]
    return Round(
        Plan(now, tuple(writes)),
        tuple(grant.job for grant in decisions.grants),
        tuple(change.job for change in decisions.changes),
        frozenset(switches),
        dismissed,
        decisions.standings,
        drained,
    )


def _hopeless(
    state: Snapshot, queue: Mapping[str, Job], now: float, given: Circumstances
) -> tuple[tuple[tuple[Job, ControllerError], ...], dict[str, float]]:
    """The jobs that can never get what they ask for, and why; and the new ``drained``."""
    if not queue:
        return (), {}
    switches, draining = state.switches(), state.draining()
    tenants = {tenant.name: tenant for tenant in state.tenants()}
    dismissed, drained = [], {}
    for job in queue.values():
        if job.parent:
            why = _hopeless_part(state, job)
            if why is not None:
                dismissed.append((job, why))
            continue
        fitting = fitting_switches(job.wanted_switch, switches)
        why = impossible(job, fitting, tenants[job.tenant])
        if why is None and all(switch.name in draining for switch in fitting):
            since = drained[job.id] = given.drained.get(job.id, now)
            if now - since > given.drained_s:
                why = _drained_error(job, fitting, given.drained_s)
        if why is not None:
            dismissed.append((job, why))
            drained.pop(job.id, None)
    return tuple(dismissed), drained


def _hopeless_part(state: Snapshot, part: Job) -> ControllerError | None:
    whole = state.job(part.parent)
    if whole is None:
        return ControllerError("ABORTED", lines.TAKEN_OUT.of(job=part.label))
    return parts.impossible(part, whole) if whole.state.live else ended_error(whole)


def _drained_error(job: Job, fitting: list[Switch], limit: float) -> ControllerError:
    names = ", ".join(switch.name for switch in fitting)
    return ControllerError(
        "FAILED_PRECONDITION",
        lines.DRAINED_TOO_LONG.of(job=job.label, waited_s=limit, switches=names),
    )


def _decide(
    state: Snapshot, queue: Mapping[str, Job], shrunk: list[Job], given: Circumstances
) -> Decisions:
    draining = state.draining()
    usage = state.usage()
    switches = state.switches()
    jobs = {switch.name: state.jobs_on(switch.name, members=False) for switch in switches}
    return decide(
        switches=[
            _view(switch, jobs[switch.name], switch.name in draining, given) for switch in switches
        ],
        wishes=[
            Wish(
                job=job.id,
                tenant=job.tenant,
                priority=job.priority,
                sizes=job.sizes,
                switch=job.wanted_switch,
                stays=job.on_full is OnFull.WAIT,
                present=job.id in given.present,
                part_of=job.parent,
            )
            for job in queue.values()
        ],
        shrunk=[
            Shrunk(job.id, job.lease.switch, job.priority, job.lease.range, job.target, job.lent)
            for job in shrunk
        ],
        accounts={
            tenant.name: Account(
                tenant.slot_quota,
                tenant.max_jobs,
                tenant.served,
                usage[tenant.name].slots,
                usage[tenant.name].jobs,
            )
            for tenant in state.tenants()
        },
        families=_families([job for its_jobs in jobs.values() for job in its_jobs], queue),
    )


def _families(held: list[Job], queue: Mapping[str, Job]) -> list[Family]:
    """The jobs that have parts, or are asked for some."""
    members: dict[str, set[str]] = {job.parent: set() for job in queue.values() if job.parent}
    for job in held:
        if job.parent:
            members.setdefault(job.parent, set()).add(job.id)
    return [
        Family(
            job.id,
            job.lease.switch,
            job.priority,
            job.target,
            frozenset({job.id, *members[job.id]}),
            job.parked,
        )
        for job in held
        if job.id in members
    ]


def _view(switch: Switch, jobs: list[Job], draining: bool, given: Circumstances) -> SwitchView:
    return SwitchView(
        name=switch.name,
        total=switch.slots,
        held=tuple((job.id, slots) for job in jobs for slots in job.ranges),
        holdings=tuple(
            Holding(
                job.id,
                job.ranges[-1],
                job.min_slots,
                PARKED if job.parked else job.priority,
                job.pending is None and job.id not in given.resting,
                job.created,
            )
            for job in jobs
        ),
        numbers=frozenset(job.lease.number for job in jobs),
        up=switch.name in given.up,
        draining=draining,
    )
