"""Finds the same collective on all ranks, sets their clocks alike, and says who comes late.

Hosts' clocks differ by more than a collective takes. No rank can end a symmetric collective before
all have begun it, and all end it at about the same moment: the clock of a rank is set by the median
difference of these ends (as TraceLens and clock synchronization over barriers do).
"""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median_low

from wiresum.measure.traces.names import POINT_TO_POINT, SYMMETRIC
from wiresum.measure.traces.records import Collective, RankTrace

Key = tuple[object, int | None, int]


@dataclass(frozen=True)
class Match:
    """One collective on several ranks, each with its record on its own clock."""

    on: dict[int, Collective]

    @property
    def sample(self) -> Collective:
        """That of the lowest rank: kind, size and group are alike on all."""
        return self.on[min(self.on)]

    @property
    def latency(self) -> int:
        """The least time that a rank spent in it: that of the last to come."""
        return min(each.end - each.start for each in self.on.values())


@dataclass(frozen=True)
class Matches:
    """All collectives that were found on several ranks; ``odd``: those that differ on some."""

    found: list[Match]
    odd: int


def match(traces: list[RankTrace]) -> Matches:
    """Match the collectives of each group by their order within each step.

    A collective counts where all traced ranks of its group have it, with the same kind and size.
    """
    rows: dict[Key, dict[int, Collective]] = defaultdict(dict)
    present: dict[object, set[int]] = defaultdict(set)
    for trace in traces:
        counts: dict[tuple[object, int | None], int] = defaultdict(int)
        for each in trace.collectives:
            if each.kind in POINT_TO_POINT or (each.step is None and not trace.whole):
                continue
            who = (each.carrier, each.group.key)
            present[who].add(trace.rank)
            rows[who, each.step, counts[who, each.step]][trace.rank] = each
            counts[who, each.step] += 1
    found, odd = [], 0
    for (group, _, _), on in rows.items():
        if len(present[group]) < 2:
            continue
        if len(on) == len(present[group]) and len({(e.kind, e.size) for e in on.values()}) == 1:
            found.append(Match(on))
        else:
            odd += 1
    return Matches(found, odd)


def clocks(matches: list[Match], ranks: list[int]) -> dict[int, int]:
    """How far the clock of each rank is ahead of that of the lowest one, in nanoseconds.

    Ranks that no chain of symmetric collectives connects with the lowest are left out.
    """
    differences: dict[tuple[int, int], list[int]] = defaultdict(list)
    for each in matches:
        if each.sample.kind in SYMMETRIC:
            first = min(each.on)
            for rank, record in each.on.items():
                if rank != first:
                    differences[first, rank].append(record.end - each.on[first].end)
    neighbours: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (first, rank), values in sorted(differences.items(), key=lambda pair: -len(pair[1])):
        ahead = median_low(values)
        neighbours[first].append((rank, ahead))
        neighbours[rank].append((first, -ahead))
    known = {ranks[0]: 0}
    queue = [ranks[0]]
    for at in queue:
        for rank, ahead in neighbours[at]:
            if rank not in known:
                known[rank] = known[at] + ahead
                queue.append(rank)
    return known


@dataclass(frozen=True)
class Arrival:
    """How the ranks came to one collective: ``behind`` the first, in nanoseconds, by rank."""

    behind: dict[int, int]

    @property
    def skew(self) -> int:
        """Between the first and the last."""
        return max(self.behind.values())

    @property
    def last(self) -> int | None:
        """The rank that came last; None if all came at once."""
        return max(self.behind, key=lambda rank: self.behind[rank]) if self.skew else None


def arrival(found: Match, ahead: dict[int, int]) -> Arrival | None:
    """By the clock of the lowest rank; None where the clocks of fewer than two are known."""
    starts = {rank: each.start - ahead[rank] for rank, each in found.on.items() if rank in ahead}
    if len(starts) < 2:
        return None
    first = min(starts.values())
    return Arrival({rank: start - first for rank, start in starts.items()})
