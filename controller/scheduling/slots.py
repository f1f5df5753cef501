"""Which range of a switch's slots a lease gets: a buddy allocator without state of its own.

The store says what is held; the functions here only compute. Every range is a power of two
slots long and starts at a multiple of its length, so that freed neighbours always join up
(Knowlton, "A fast storage allocator", CACM 1965).
"""

from collections.abc import Iterable

from wiresum.controller.state.model import MIN_SLOTS, SlotRange

DEFAULT_SLOTS = 512
"""The default size of a lease: enough to fill 100 Gbit/s at a few µs round trip."""


def rounded(wanted: int) -> int:
    """The length of the range that a wish for ``wanted`` slots gets; 0 means the default."""
    if wanted == 0:
        return DEFAULT_SLOTS
    return max(MIN_SLOTS, 1 << (wanted - 1).bit_length())


def free_ranges(held: Iterable[SlotRange], total: int) -> list[SlotRange]:
    """The largest aligned power-of-two ranges that tile what is free of ``total`` slots."""
    ranges: list[SlotRange] = []
    position = 0
    for taken in [*sorted(held), SlotRange(total, 0)]:
        while position < taken.base:
            size = position & -position or 1 << (total - 1).bit_length()
            while position + size > taken.base:
                size //= 2
            ranges.append(SlotRange(position, size))
            position += size
        position = max(position, taken.end)
    return ranges


def disjoint(ranges: Iterable[SlotRange]) -> list[SlotRange]:
    """The ranges, without the slots of earlier ones in later ones, as aligned power-of-two ranges.

    The first is always whole.
    """
    result: list[SlotRange] = []
    for each in ranges:
        inside = [taken for taken in result if taken.overlaps(each)]
        if not inside:
            result.append(each)
        elif not any(taken.base <= each.base and each.end <= taken.end for taken in inside):
            shifted = [SlotRange(taken.base - each.base, taken.slots) for taken in inside]
            result += [
                SlotRange(each.base + gap.base, gap.slots)
                for gap in free_ranges(shifted, each.slots)
            ]
    return result


def allocate(held: Iterable[SlotRange], slots: int, total: int) -> SlotRange | None:
    """A free range of ``slots`` (a power of two), or None if there is none.

    The smallest free range that is large enough is split, the first of its kind, so that large
    ranges stay whole for those who need them.
    """
    fitting = [free for free in free_ranges(held, total) if free.slots >= slots]
    if not fitting:
        return None
    best = min(fitting, key=lambda free: (free.slots, free.base))
    return SlotRange(best.base, slots)


def lowest_free_number(taken: Iterable[int], first: int, last: int) -> int | None:
    """The lowest number in ``first`` … ``last`` that is not in ``taken``, if any."""
    used = set(taken)
    return next((number for number in range(first, last + 1) if number not in used), None)
