"""Sets of moments, as lists of intervals ``(start, end)`` of integers.

All functions but :func:`union` take and give lists that are sorted and disjoint, without empty
intervals. The unit is the caller's; wiresum uses nanoseconds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Interval = tuple[int, int]
Intervals = list[Interval]


def union(intervals: Iterable[Interval]) -> Intervals:
    """All moments in any of the intervals, which may overlap and be in any order."""
    found: Intervals = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            if end > found[-1][1]:
                found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def length(intervals: Intervals) -> int:
    """The sum of the lengths."""
    return sum(end - start for start, end in intervals)


def clip(intervals: Intervals, start: int, end: int) -> Intervals:
    """What lies between ``start`` and ``end``."""
    first = max(0, bisect_right(intervals, (start, start)) - 1)
    until = bisect_left(intervals, (end, end))
    pieces = ((max(low, start), min(high, end)) for low, high in intervals[first:until])
    return [(low, high) for low, high in pieces if low < high]


def subtract(intervals: Intervals, others: Intervals) -> Intervals:
    """The moments of ``intervals`` that are in none of ``others``."""
    found: Intervals = []
    at = 0
    for start, end in intervals:
        while at < len(others) and others[at][1] <= start:
            at += 1
        index = at
        while index < len(others) and others[index][0] < end:
            low, high = others[index]
            if start < low:
                found.append((start, low))
            start = max(start, high)
            index += 1
        if start < end:
            found.append((start, end))
    return found
