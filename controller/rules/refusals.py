"""Why a job in the queue has no slots, in one line."""

from collections.abc import Callable
from dataclasses import dataclass, field

from wiresum.common.errors import LineText
from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.scheduling.parts import NUMBERS_FOR_PARTS
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.scheduling.slots import disjoint, free_ranges
from wiresum.controller.state.model import Job, Switch, Tenant
from wiresum.controller.state.store import Snapshot, Usage

_NAMED_HOLDERS = 8


@dataclass
class Scene:
    """The common part of several refusals in a row, read from the store once."""

    usage: dict[str, Usage] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    switches: list[Switch] | None = None
    draining: set[str] = field(default_factory=set)
    occupancy: dict[str, str] = field(default_factory=dict)
    """In words, by the switch that is asked for."""


def refusal(
    state: Snapshot,
    job: Job,
    caller: Caller,
    standing: Standing,
    ahead: int,
    usable: Callable[[str], bool],
    scene: Scene,
) -> ControllerError:
    """Why the job has no slots, in one line, for ``caller``.

    ``ahead`` jobs are before it in the queue; ``usable`` tells whether a switch can be reached now.
    Several refusals in a row share one ``scene``: it is looked at only once.
    """
    if not scene.usage:
        scene.usage = state.usage()
        scene.tenants = {tenant.name: tenant for tenant in state.tenants()}
    tenant = scene.tenants[job.tenant]
    usage = scene.usage[tenant.name]
    if standing is Standing.JOBS:
        message = lines.TOO_MANY_JOBS.of(tenant=tenant.name, jobs=usage.jobs, most=tenant.max_jobs)
    elif standing is Standing.QUOTA:
        message = lines.QUOTA_IN_USE.of(
            tenant=tenant.name, used=usage.slots, quota=tenant.slot_quota, slots=job.sizes[-1]
        )
    elif standing is Standing.BEHIND:
        message = lines.BEHIND_EARLIER_JOB.of(tenant=tenant.name, slots=job.target)
    elif standing is Standing.GROUPS:
        message = lines.NO_GROUP_FOR_PART.of(job=job.label, most=NUMBERS_FOR_PARTS)
    elif job.parent:
        message = _no_share(state, job)
    else:
        message = _full(state, job, caller, ahead, usable, scene)
    return ControllerError("RESOURCE_EXHAUSTED", message)


def _no_share(state: Snapshot, part: Job) -> LineText:
    whole = state.job(part.parent)
    if whole is None:
        return lines.TAKEN_OUT.of(job=part.label)
    live = [each for each in state.parts(whole.id) if each.state.live]
    return lines.NO_SHARE.of(
        slots=part.sizes[-1],
        job=whole.label,
        held=whole.ranges[-1].slots,
        least=whole.min_slots,
        parts=len(live),
        theirs=sum(each.ranges[-1].slots for each in live),
        admitted=whole.target,
    )


def _full(
    state: Snapshot,
    job: Job,
    caller: Caller,
    ahead: int,
    usable: Callable[[str], bool],
    scene: Scene,
) -> LineText:
    if scene.switches is None:
        scene.switches, scene.draining = state.switches(), state.draining()
    switches = [switch for switch in scene.switches if job.wanted_switch in ("", switch.name)]
    serving = [switch for switch in switches if switch.name not in scene.draining]
    if not serving:
        names = ", ".join(switch.name for switch in switches)
        verb = "takes no new jobs, it is" if len(switches) == 1 else "take no new jobs, they are"
        return lines.ALL_DRAINING.of(switches=names, take=verb)
    if job.wanted_switch not in scene.occupancy:
        up = [switch for switch in serving if usable(switch.name)]
        scene.occupancy[job.wanted_switch] = "; ".join(
            _occupancy(switch, state.jobs_on(switch.name, members=False), caller)
            if switch in up or not up
            else f"switch {switch.name} is down"
            for switch in serving
        )
    occupancy = scene.occupancy[job.wanted_switch]
    first = f" ({ahead} waiting before it)" if ahead else ""
    return lines.NO_ROOM.of(slots=job.sizes[-1], ahead=first, occupancy=occupancy)


def _occupancy(switch: Switch, jobs: list[Job], caller: Caller) -> str:
    """The free slots of a switch, and the jobs that hold the rest, as far as the caller may see."""
    known = [job for job in jobs if caller.owns(job)]
    held = [
        f"{job.label} holds {slots.base}-{slots.end - 1}"
        for job in known[:_NAMED_HOLDERS]
        for slots in disjoint(job.ranges)
    ]
    if len(known) > _NAMED_HOLDERS:
        held.append(f"{len(known) - _NAMED_HOLDERS} more jobs hold the rest")
    if len(known) < len(jobs):
        held.append("others hold the rest")
    free = free_ranges([slots for job in jobs for slots in job.ranges], switch.slots)
    largest = max((gap.slots for gap in free), default=0)
    total = sum(gap.slots for gap in free)
    return (
        f"switch {switch.name} has {total} of {switch.slots} slots free, "
        f"at most {largest} in a row ({', '.join(held)})"
    )
