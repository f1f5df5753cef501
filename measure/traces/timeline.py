"""One step of a job on a common clock, for a picture: pure, from records."""

from dataclasses import dataclass

from wiresum.measure.traces.intervals import Intervals, clip, subtract
from wiresum.measure.traces.matching import clocks, match
from wiresum.measure.traces.records import RankTrace, Step

MOST_RANKS = 8


@dataclass(frozen=True)
class Lanes:
    """What one rank does in the step, in nanoseconds since ``Timeline.start``."""

    rank: int
    computation: Intervals
    communication: Intervals
    exposed: Intervals


@dataclass(frozen=True)
class Timeline:
    """A step; ``number``: None for whole traces; ``length`` in nanoseconds."""

    number: int | None
    length: int
    ranks: list[Lanes]


def timeline(traces: list[RankTrace]) -> Timeline:
    """The step whose length is the median on the lowest rank, on up to eight ranks.

    Ranks whose clock is not known begin the step with the lowest one.
    """
    ordered = sorted(traces[0].shown, key=lambda step: step.end - step.start)
    chosen = ordered[len(ordered) // 2]
    ahead = clocks(match(traces).found, [trace.rank for trace in traces])
    found: list[tuple[RankTrace, Step, int]] = []
    for trace in traces[:MOST_RANKS]:
        for step in trace.shown:
            if step.number == chosen.number:
                offset = ahead.get(trace.rank, step.start - chosen.start)
                found.append((trace, step, offset))
    start = min(step.start - offset for _, step, offset in found)
    length = max(step.end - offset for _, step, offset in found) - start
    return Timeline(
        chosen.number, length, [_lanes(trace, step, start + off) for trace, step, off in found]
    )


def _lanes(trace: RankTrace, step: Step, origin: int) -> Lanes:
    computing = clip(trace.computation, step.start, step.end)
    talking = clip(trace.communication, step.start, step.end)
    lanes = (computing, talking, subtract(talking, computing))
    return Lanes(trace.rank, *([(a - origin, b - origin) for a, b in lane] for lane in lanes))
