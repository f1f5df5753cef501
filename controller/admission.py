"""Where a job goes: the switch, the range of slots and the number that it gets."""

from collections.abc import Callable
from dataclasses import dataclass

from wiresum.controller.access import Caller
from wiresum.controller.checks import invalid
from wiresum.controller.errors import ControllerError
from wiresum.controller.model import Job, Switch, Tenant
from wiresum.controller.slots import SlotRange, allocate, free_ranges, lowest_free_number, rounded
from wiresum.controller.store import Store
from wiresum.p4 import packet

MEMBERS_PER_SWITCH = 8192
"""Entries of the program's membership and deliver tables."""

_NAMED_HOLDERS = 8


@dataclass(frozen=True)
class Place:
    """A lease that can be had."""

    switch: str
    number: int
    range: SlotRange


def wanted_slots(wanted: int) -> int:
    """The slots that a wish for ``wanted`` (0: the default) comes to; refuses the impossible."""
    if wanted > packet.SLOTS:
        invalid(f"{wanted} slots are more than any switch has: ask for at most {packet.SLOTS}")
    return rounded(wanted)


def check_limits(store: Store, tenant: Tenant, slots: int) -> None:
    """Refuse a job that its tenant may not have now: its quota or its job limit is reached."""
    usage = store.usage()[tenant.name]
    if tenant.max_jobs and usage.jobs >= tenant.max_jobs:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            f"tenant {tenant.name} has {usage.jobs} live jobs, and may have {tenant.max_jobs}: "
            "wait for one to end",
        )
    if tenant.slot_quota and usage.slots + slots > tenant.slot_quota:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            f"tenant {tenant.name} has {usage.slots} of its {tenant.slot_quota} slots in use: no "
            f"room for {slots} more",
        )


def place(
    store: Store,
    wanted: int,
    switch_name: str,
    *,
    caller: Caller,
    usable: Callable[[str], bool],
) -> Place:
    """The best place for a job that wants ``wanted`` slots (0: the default).

    Switches that can be reached come first, then the one with the most free slots.
    Raises :class:`ControllerError`: RESOURCE_EXHAUSTED says who holds what.
    """
    slots = wanted_slots(wanted)
    draining = store.draining()
    candidates = store.switches()
    if switch_name:
        candidates = [switch for switch in candidates if switch.name == switch_name]
        if not candidates:
            raise ControllerError("NOT_FOUND", f"there is no switch {switch_name[:80]!r}")
    if not candidates:
        raise ControllerError(
            "FAILED_PRECONDITION",
            "the controller knows no switch: add one with `wiresum switch add`",
        )
    candidates = [switch for switch in candidates if switch.name not in draining]
    if not candidates:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            f"switches {', '.join(sorted(draining))} take no new jobs: they are being drained",
        )
    holders = {switch.name: store.jobs_on(switch.name) for switch in candidates}
    candidates.sort(
        key=lambda switch: (
            not usable(switch.name),
            sum(job.lease.range.slots for job in holders[switch.name]),
            switch.name,
        )
    )
    for switch in candidates:
        jobs = holders[switch.name]
        held = [taken for job in jobs for taken in job.ranges]
        found = allocate(held, slots, switch.slots)
        number = lowest_free_number([job.lease.number for job in jobs], 1, packet.JOBS - 1)
        if found is not None and number is not None:
            return Place(switch.name, number, found)
    occupancy = "; ".join(_occupancy(switch, holders[switch.name], caller) for switch in candidates)
    raise ControllerError(
        "RESOURCE_EXHAUSTED", f"no room for {slots} slots in one range: {occupancy}"
    )


def check_room_for_members(store: Store, job: Job, workers: int) -> None:
    """Refuse an attempt whose entries would not fit in the switch's tables."""
    others = store.workers_on(job.lease.switch, but=job.id)
    if others + workers > MEMBERS_PER_SWITCH:
        raise ControllerError(
            "RESOURCE_EXHAUSTED",
            f"switch {job.lease.switch} has entries for {MEMBERS_PER_SWITCH} workers and other "
            f"jobs have {others}: no room for {workers}",
        )


def _occupancy(switch: Switch, jobs: list[Job], caller: Caller) -> str:
    """What is free, and which of the jobs that the caller may know hold the rest."""
    known = [job for job in jobs if caller.owns(job)]
    held = [
        f"{job.label} holds {slots.base}-{slots.end - 1}"
        for job in known[:_NAMED_HOLDERS]
        for slots in job.ranges
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
