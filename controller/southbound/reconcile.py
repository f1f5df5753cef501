"""The one loop that makes a switch agree with the store.

Each pass reads what the switch holds, compares it with what it shall hold, and writes the
difference. It runs when the store has changed, and at intervals. It keeps nothing between passes,
so restarts and lost writes do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wiresum.controller.southbound.desired import MEMBERSHIP, Action, Key, Replica, Tables


@dataclass(frozen=True)
class Batch:
    """Writes that may be carried out in any order among themselves."""

    delete: tuple[Key, ...] = ()
    delete_groups: tuple[int, ...] = ()
    insert: tuple[tuple[Key, Action], ...] = ()
    modify: tuple[tuple[Key, Action], ...] = ()
    insert_groups: tuple[tuple[int, frozenset[Replica]], ...] = ()
    modify_groups: tuple[tuple[int, frozenset[Replica]], ...] = ()

    def __bool__(self) -> bool:
        return any(
            (
                self.delete,
                self.delete_groups,
                self.insert,
                self.modify,
                self.insert_groups,
                self.modify_groups,
            )
        )


class Programmable(Protocol):
    """A connected switch, as the loop needs it."""

    async def read(self) -> Tables:
        """The tables as the switch holds them now."""
        ...

    async def write(self, batch: Batch) -> None:
        """Carry out a batch; returns when the switch has confirmed all of it."""
        ...

    async def reset_job_counters(self, numbers: Sequence[int]) -> None:
        """Set the event counters of these job numbers to zero."""
        ...


async def reconcile(switch: Programmable, wanted: Tables, fresh_jobs: Sequence[int] = ()) -> int:
    """Make ``switch`` hold ``wanted``; returns how many writes that took.

    ``fresh_jobs`` are numbers of jobs that have just got their lease. Their counters are set to
    zero when the entries of the jobs that had the numbers before have left the switch.
    """
    actual = await switch.read()
    leaving, entering = steps(actual, wanted)
    writes = 0
    for batch in leaving:
        await switch.write(batch)
        writes += size(batch)
    if fresh_jobs:
        await switch.reset_job_counters(fresh_jobs)
    for batch in entering:
        await switch.write(batch)
        writes += size(batch)
    return writes


def steps(actual: Tables, wanted: Tables) -> tuple[list[Batch], list[Batch]]:
    """The batches that lead from ``actual`` to ``wanted``: what leaves, then what enters.

    Membership entries are removed first and added last, so that no packet counts for a job while
    the entries that its reply needs are incomplete, or another job's.
    """
    gone = sorted(actual.entries.keys() - wanted.entries.keys())
    new = sorted(wanted.entries.keys() - actual.entries.keys())
    changed = sorted(
        key
        for key in actual.entries.keys() & wanted.entries.keys()
        if actual.entries[key] != wanted.entries[key]
    )
    # A member whose rights change (it cannot happen while epochs are unique) leaves and returns.
    gone_members = [key for key in [*gone, *changed] if key.table == MEMBERSHIP]
    new_members = [key for key in [*changed, *new] if key.table == MEMBERSHIP]

    def pairs(keys: list[Key]) -> tuple[tuple[Key, Action], ...]:
        return tuple((key, wanted.entries[key]) for key in keys if key.table != MEMBERSHIP)

    common_groups = actual.groups.keys() & wanted.groups.keys()
    leaving = [
        Batch(delete=tuple(gone_members)),
        Batch(
            delete=tuple(key for key in gone if key.table != MEMBERSHIP),
            delete_groups=tuple(sorted(actual.groups.keys() - wanted.groups.keys())),
        ),
    ]
    entering = [
        Batch(
            insert=pairs(new),
            modify=pairs(changed),
            insert_groups=tuple(
                (group, wanted.groups[group])
                for group in sorted(wanted.groups.keys() - actual.groups.keys())
            ),
            modify_groups=tuple(
                (group, wanted.groups[group])
                for group in sorted(common_groups)
                if actual.groups[group] != wanted.groups[group]
            ),
        ),
        Batch(insert=tuple((key, wanted.entries[key]) for key in new_members)),
    ]
    return [batch for batch in leaving if batch], [batch for batch in entering if batch]


def size(batch: Batch) -> int:
    """The number of writes of a batch."""
    groups = len(batch.delete_groups) + len(batch.insert_groups) + len(batch.modify_groups)
    return len(batch.delete) + len(batch.insert) + len(batch.modify) + groups
