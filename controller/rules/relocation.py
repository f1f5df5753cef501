"""A job whose switch is down, and whose ranks begin another attempt, may go to another switch."""

from collections.abc import Collection, Iterator

from wiresum.controller.rules.jobs import end_parts
from wiresum.controller.rules.joining import MEMBERS_PER_SWITCH
from wiresum.controller.scheduling.slots import allocate, lowest_free_number
from wiresum.controller.state.model import Job, JobState, SlotRange, Switch
from wiresum.controller.state.plan import MoveToSwitch, Plan
from wiresum.controller.state.store import Snapshot
from wiresum.p4 import packet


def relocate(state: Snapshot, job: Job, up: Collection[str], now: float) -> Plan:
    """Give ``job``, whose switch is down, a lease on one of the switches that are ``up``.

    Only slots that are free now are given: as many as the job has or, where no switch has so many,
    fewer, down to what the job can do with. The plan is empty if no switch has them, if the job has
    asked for its switch by name, or if its workers are not behind a port of any other. A part stays
    where its job is, and the parts of a job that goes end.
    """
    if not job.state.live or job.wanted_switch or job.parent:
        return Plan(now)
    draining = state.draining()
    boards = [
        (switch, state.jobs_on(switch.name, members=False))
        for switch in state.switches()
        if switch.name in up and switch.name not in draining and _reaches(state, switch, job)
    ]
    boards.sort(key=lambda each: (_load(each[1]), each[0].name))
    for slots in _sizes(job):
        for switch, jobs in boards:
            taken = [range_ for other in jobs for range_ in other.ranges]
            found = allocate(taken, slots, switch.slots)
            number = lowest_free_number({other.lease.number for other in jobs}, 1, packet.JOBS - 1)
            if found is not None and number is not None:
                move = MoveToSwitch(job.id, switch.name, number, found)
                reason = f"its job went to switch {switch.name}"
                return Plan(now, (*end_parts(state, job, JobState.RELEASED, reason), move))
    return Plan(now)


def _sizes(job: Job) -> Iterator[int]:
    slots = job.lease.range.slots
    while slots >= job.min_slots:
        yield slots
        slots //= 2


def _load(jobs: list[Job]) -> int:
    ranges: list[SlotRange] = [range_ for job in jobs for range_ in job.ranges]
    return sum(range_.slots for range_ in ranges)


def _reaches(state: Snapshot, switch: Switch, job: Job) -> bool:
    """Whether the workers that the job has are behind its ports, and fit into its tables."""
    if any(switch.port_of(member.ip) is None for member in job.members):
        return False
    taken = state.workers_on(switch.name, but=job.id).total()
    return taken + job.workers <= MEMBERS_PER_SWITCH
