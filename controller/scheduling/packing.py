"""How to make room on a switch: which jobs move, and which get smaller.

All sizes are powers of two and all ranges start at multiples of their size, as in slots.py. Then
this holds: if ``n`` slots are free in sum, some of the jobs smaller than ``n`` can be moved, one
after the other and each to slots that are free at that moment, so that ``n`` slots are free in
one range. Proof: take the aligned range of ``n`` slots in which the fewest are held, ``h``. Outside
it at least ``h`` are free: enough in sum for each of its jobs, and each of them is smaller than
``n``, so room for it can be made there in the same way. (In a range of the smallest size, free
slots are free in one range.) Hence no free slot is ever lost for good, as long as the jobs can be
moved.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from wiresum.controller.scheduling.slots import allocate, free_ranges
from wiresum.controller.state.model import SlotRange

# With jobs that cannot be moved, the best range may be out of reach and another not: how many to
# try, for the job itself and for the jobs that make way.
_TRIES = 12
_NESTED_TRIES = 3


@dataclass(frozen=True, slots=True)
class Holding:
    """The slots that a job holds, or will hold when the change under way is over."""

    job: str
    range: SlotRange
    min_slots: int
    priority: int
    movable: bool
    """Its lease may change: no change is under way, and none has failed recently."""
    admitted: float = 0.0
    """When the job got its first slots."""


@dataclass(frozen=True, slots=True)
class Move:
    """A job gets other slots: fewer, or as many elsewhere."""

    job: str
    range: SlotRange


@dataclass(frozen=True, slots=True)
class Room:
    """Where a job will fit, once the moves have been made, in this order."""

    range: SlotRange
    moves: tuple[Move, ...]

    def cost(self, holdings: Iterable[Holding]) -> int:
        """The slots of the jobs that are moved or shrunk."""
        disturbed = {move.job for move in self.moves}
        return sum(holding.range.slots for holding in holdings if holding.job in disturbed)


def make_room(
    holdings: Iterable[Holding],
    total: int,
    slots: int,
    *,
    priority: int,
    reserved: Iterable[SlotRange] = (),
    own: SlotRange | None = None,
) -> Room | None:
    """Room for ``slots`` (a power of two) on a switch of ``total``, or None if there is no way.

    Jobs of lower priority than ``priority`` may be shrunk, but not below their ``min_slots``;
    jobs of any priority may be moved. ``reserved`` ranges are not to be used. ``own`` is the range
    of the job itself, which is not among the ``holdings``: the room may contain it, but nobody can
    move there before the job has left.
    """
    board = _Board(total, list(holdings), list(reserved), [own] if own is not None else [])
    if not board.shrink(slots, priority):
        return None
    found = board.clear(slots, [], _TRIES)
    if found is None:
        return None
    return Room(found, tuple(board.moves))


def emptiest(
    ranges: Iterable[SlotRange], total: int, slots: int, reserved: Iterable[SlotRange] = ()
) -> SlotRange | None:
    """The aligned range of ``slots`` in which the fewest are held, outside the reserved ones."""
    held, blocked = list(ranges), list(reserved)
    candidates = [
        region
        for region in _regions(total, slots)
        if not any(region.overlaps(range_) for range_ in blocked)
    ]
    return min(candidates, key=lambda region: (_held_in(region, held), region.base), default=None)


def _regions(total: int, slots: int) -> list[SlotRange]:
    return [SlotRange(base, slots) for base in range(0, total - slots + 1, slots)]


def _held_in(region: SlotRange, held: Iterable[SlotRange]) -> int:
    return sum(
        min(region.end, taken.end) - max(region.base, taken.base)
        for taken in held
        if region.overlaps(taken)
    )


@dataclass
class _Board:
    """The slots of a switch, while this module looks for a way to make room."""

    total: int
    holdings: list[Holding]
    reserved: list[SlotRange]
    own: list[SlotRange]
    moves: list[Move] = field(default_factory=list)
    places: dict[str, SlotRange] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {holding.job: holding.range for holding in self.holdings}

    def free(self, blocked: Iterable[SlotRange]) -> int:
        """The slots that are free in sum, outside ``blocked``."""
        taken = [*self.places.values(), *self.reserved, *blocked]
        return sum(gap.slots for gap in free_ranges(taken, self.total))

    def shrink(self, slots: int, priority: int) -> bool:
        """Halve jobs of lower priority until enough is free in sum; False if it never is.

        The lowest priority goes first; of equal priorities, the job with more slots.
        """
        free = self.free([])
        smaller: dict[str, SlotRange] = {}
        while free < slots:
            victims = [
                holding
                for holding in self.holdings
                if holding.movable
                and holding.priority < priority
                and self.places[holding.job].slots // 2 >= holding.min_slots
            ]
            if not victims:
                return False
            victim = min(
                victims, key=lambda each: (each.priority, -self.places[each.job].slots, each.job)
            )
            before = self.places[victim.job]
            kept = SlotRange(before.base, before.slots // 2)
            self.places[victim.job] = smaller[victim.job] = kept
            free += kept.slots
        self.moves += [Move(job, kept) for job, kept in smaller.items()]
        return True

    def clear(self, slots: int, blocked: list[SlotRange], tries: int) -> SlotRange | None:
        """Make ``slots`` free in one range outside ``blocked``; None, and no moves, if none can."""
        taken = [*self.places.values(), *self.reserved, *blocked]
        direct = allocate(taken, slots, self.total)
        if direct is not None:
            return direct
        if self.free(blocked) < slots:
            return None
        for region in self._candidates(slots, blocked)[:tries]:
            before = dict(self.places), len(self.moves)
            if self._evacuate(region, [*blocked, region, *self.own]):
                return region
            self.places = before[0]
            del self.moves[before[1] :]
        return None

    def _evacuate(self, region: SlotRange, blocked: list[SlotRange]) -> bool:
        inside = [job for job, place in self.places.items() if place.overlaps(region)]
        # The largest are the hardest to place.
        for job in sorted(inside, key=lambda job: (-self.places[job].slots, self.places[job].base)):
            found = self.clear(self.places[job].slots, blocked, _NESTED_TRIES)
            if found is None:
                return False
            self.places[job] = found
            self.moves.append(Move(job, found))
        return True

    def _candidates(self, slots: int, blocked: list[SlotRange]) -> list[SlotRange]:
        """The aligned ranges that can be emptied, those with the fewest held slots first."""
        fixed = [
            self.places[holding.job]
            for holding in self.holdings
            if not holding.movable or self.places[holding.job].slots >= slots
        ]
        closed = [*fixed, *self.reserved, *blocked]
        held = list(self.places.values())
        found = [
            region
            for region in _regions(self.total, slots)
            if not any(region.overlaps(range_) for range_ in closed)
        ]
        return sorted(found, key=lambda region: (_held_in(region, held), region.base))
