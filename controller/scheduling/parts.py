"""Jobs and their parts: how the slots of one job are shared with the parts of it.

A part is a job of some of a job's ranks. The job and its parts, a *family*, together have no more
slots than the job was admitted with: a part gets what the others give up. The largest gives first,
half of what it has, until there is enough; so a family that grows ends up with equal shares.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wiresum.controller.scheduling.packing import Holding, Move
from wiresum.controller.state.model import SlotRange
from wiresum.p4 import packet

NUMBERS_FOR_PARTS = packet.JOBS // 2
"""A part gets a number, and with it a multicast group, only while fewer than so many are in use on
its switch: parts never keep out jobs."""


@dataclass(frozen=True)
class Family:
    """A job that has parts, or is asked for one."""

    job: str
    switch: str
    priority: int
    admitted: int
    """The slots that all of them together may have: those that the job was admitted with."""
    members: frozenset[str]
    """The job itself and its parts that hold slots."""
    parked: bool = False
    """The job lends its slots to others."""


def give_up(members: Iterable[Holding], job: str, needed: int, least: int) -> list[Move] | None:
    """What the members of the family of ``job`` give up so that ``needed`` slots are spare.

    None if they cannot. No member is left with fewer than ``least``, nor below its ``min_slots``.
    Of members with equally many slots, the job itself gives first.
    """
    left = {each.job: each for each in members if each.movable}
    has = {name: each.range for name, each in left.items()}
    smaller: dict[str, SlotRange] = {}
    while needed > 0:
        able = [
            name
            for name, each in left.items()
            if has[name].slots // 2 >= max(each.min_slots, least)
        ]
        if not able:
            return None
        giver = min(able, key=lambda name: (-has[name].slots, name != job, name))
        kept = SlotRange(has[giver].base, has[giver].slots // 2)
        has[giver] = smaller[giver] = kept
        needed -= kept.slots
    return [Move(name, kept) for name, kept in smaller.items()]
