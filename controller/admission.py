"""Where a job goes: the switch, the range of slots and the number that it gets."""

from collections.abc import Callable
from dataclasses import dataclass

from wiresum.controller.checks import invalid
from wiresum.controller.errors import ControllerError
from wiresum.controller.model import Job, Switch
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


def place(store: Store, wanted: int, switch_name: str, *, usable: Callable[[str], bool]) -> Place:
    """The best place for a job that wants ``wanted`` slots (0: the default).

    Switches that can be reached come first, then the one with the most free slots.
    Raises :class:`ControllerError`: RESOURCE_EXHAUSTED says who holds what.
    """
    if wanted > packet.SLOTS:
        invalid(f"{wanted} slots are more than any switch has: ask for at most {packet.SLOTS}")
    slots = rounded(wanted)
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
        found = allocate([job.lease.range for job in jobs], slots, switch.slots)
        number = lowest_free_number([job.lease.number for job in jobs], 1, packet.JOBS - 1)
        if found is not None and number is not None:
            return Place(switch.name, number, found)
    occupancy = "; ".join(_occupancy(switch, holders[switch.name]) for switch in candidates)
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


def _occupancy(switch: Switch, jobs: list[Job]) -> str:
    held = [
        f"{job.label} holds {job.lease.range.base}-{job.lease.range.end - 1}"
        for job in jobs[:_NAMED_HOLDERS]
    ]
    if len(jobs) > _NAMED_HOLDERS:
        held.append(f"{len(jobs) - _NAMED_HOLDERS} more jobs hold the rest")
    free = free_ranges([job.lease.range for job in jobs], switch.slots)
    largest = max((gap.slots for gap in free), default=0)
    total = sum(gap.slots for gap in free)
    return (
        f"switch {switch.name} has {total} of {switch.slots} slots free, "
        f"at most {largest} in a row ({', '.join(held)})"
    )
