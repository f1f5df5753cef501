"""When each job should begin, so that communication phases on shared uplinks do not collide.

CASSINI (NSDI 2024) finds such offsets on a circle of the jobs' periods. Here they are found by
search: every job in turn tries offsets over its own period, and keeps the one under which a short
simulation has the least slowdown. The answer is kept only if the whole simulation is better with
it. A search is bounded in work: of many jobs on the same uplinks, only the first are shifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.simulation.jobs import Running, simulate, work

GRID = 12
"""Offsets that are tried over a period."""
SWEEPS = 2
SEARCH_STEPS = 8
MOST_RUNS = 400
"""Simulations in a search."""
_WORK = 3_200_000
"""Of all simulations in a search together, as :func:`work` counts it: some seconds."""


@dataclass(frozen=True)
class Shifted:
    """Mean seconds of a step by job: alone, as they collide, and with the offsets.

    ``offsets``: seconds by which each job should begin later.
    """

    alone: list[float]
    collided: list[float]
    shifted: list[float]
    offsets: list[float]

    @property
    def gain(self) -> float:
        """How much shorter a step is by shifting, on average over the jobs; 0: not at all."""
        if not self.collided:
            return 0.0
        ratios = [after / before for after, before in zip(self.shifted, self.collided, strict=True)]
        return 1 - sum(ratios) / len(ratios)


def shift(jobs: Sequence[Running], fabric: Fabric, steps: int, seed: int) -> Shifted:
    """Find offsets for jobs that all begin at the same time otherwise."""
    alone = [_means(simulate([job], fabric, steps, seed))[0] for job in jobs]
    collided = _means(simulate(jobs, fabric, steps, seed))
    offsets = [0.0] * len(jobs)
    for group in _groups(jobs):
        if any(collided[at] > alone[at] * (1 + 1e-9) for at in group):
            found = _search([jobs[at] for at in group], fabric, [alone[at] for at in group], seed)
            for at, offset in zip(group, found, strict=True):
                offsets[at] = offset
    shifted = collided
    if any(offsets):
        tried = _means(simulate(jobs, fabric, steps, seed, offsets))
        if _slowdown(tried, alone) < _slowdown(collided, alone):
            shifted = tried
        else:
            offsets = [0.0] * len(jobs)
    return Shifted(alone, collided, shifted, offsets)


def _means(took: list[list[float]]) -> list[float]:
    return [sum(each) / len(each) for each in took]


def _slowdown(means: Sequence[float], alone: Sequence[float]) -> float:
    pairs = zip(means, alone, strict=True)
    return sum(mean / own if own else 1.0 for mean, own in pairs) / len(means)


def _groups(jobs: Sequence[Running]) -> list[list[int]]:
    """Jobs that share an uplink with each other, directly or over others."""
    left = {at for at, job in enumerate(jobs) if job.racks}
    groups = []
    while left:
        group, racks = [], set[int]()
        edge = {min(left)}
        while edge:
            left -= edge
            group += sorted(edge)
            racks |= {rack for at in edge for rack in jobs[at].racks}
            edge = {at for at in left if racks & set(jobs[at].racks)}
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def _search(
    jobs: Sequence[Running], fabric: Fabric, alone: Sequence[float], seed: int
) -> list[float]:
    offsets = [0.0] * len(jobs)
    best = _slowdown(_means(simulate(jobs, fabric, SEARCH_STEPS, seed)), alone)
    left = min(MOST_RUNS, _WORK // work(jobs, SEARCH_STEPS))
    for _ in range(SWEEPS):
        before = list(offsets)
        for at in range(1, len(jobs)):
            for part in range(GRID):
                tried = list(offsets)
                tried[at] = alone[at] * part / GRID
                if not left:
                    return offsets
                left -= 1
                found = _slowdown(_means(simulate(jobs, fabric, SEARCH_STEPS, seed, tried)), alone)
                if found < best - 1e-12:
                    best, offsets = found, tried
        if offsets == before:
            break
    return offsets
