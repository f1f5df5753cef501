"""What one run of the script has measured."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

from wiresum.host_agent.trial.order import Record
from wiresum.measure.trial.losses import tail_mean

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""How a run has ended: after all its steps, by the trial because it cannot win, by an error."""


class Spread(NamedTuple):
    """A median with the lowest and the highest value beside it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """One run of one remedy with one seed."""

    remedy: str
    seed: int
    how: str
    why: str = ""
    """Of a run that was stopped or has failed, in a few words."""
    steps: int = 0
    world: int = 0
    step_ms: Sequence[float] = ()
    """Of rank 0, without the first steps."""
    bytes_per_step: float | None = None
    """That a rank sends, headers left out; the mean over the ranks."""
    losses: Sequence[float] = ()
    """Rank 0's, or those of the output, in order."""
    loss: float | None = None
    """The mean over the last fifth of the steps and over all ranks that have reported one."""

    def as_json(self) -> dict[str, object]:
        """For a file; :meth:`of_json` reads it back. JSON has no NaN: such a loss is left out."""
        kept = dataclasses.asdict(self)
        kept["losses"] = [each if math.isfinite(each) else None for each in self.losses]
        if self.loss is not None and not math.isfinite(self.loss):
            kept["loss"] = "nan"
        return kept

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> "Outcome":
        """Read back what :meth:`as_json` has made.

        Raises ``ValueError``, ``TypeError`` or ``KeyError`` for what it cannot have made.
        """
        loss, size = kept["loss"], kept["bytes_per_step"]
        losses = [each for each in kept["losses"] if each is not None]
        figures = [kept["steps"], kept["world"], *kept["step_ms"], *losses]
        if not all(map(math.isfinite, figures if size is None else [*figures, size])):
            raise ValueError("a figure is not finite")
        if kept["how"] == FINISHED and loss is None:
            raise ValueError("a finished run has a loss")
        back = {
            "losses": [math.nan if each is None else each for each in kept["losses"]],
            "loss": None if loss is None else float(loss),
        }
        return cls(**{**kept, **back})


def outcome_of(remedy: str, seed: int, records: Sequence[Record], said: Sequence[float]) -> Outcome:
    """A finished run, from the records of its ranks and the losses in its output.

    Reported losses have precedence over those in the output.
    """
    first = records[0]
    counted = [each.bytes_per_step for each in records if each.bytes_per_step is not None]
    reported = [each.losses for each in records if each.losses]
    traces: list[Sequence[float]] = [*reported] or ([said] if said else [])
    return Outcome(
        remedy,
        seed,
        FINISHED,
        steps=min(each.steps for each in records),
        world=first.world,
        step_ms=[1000 * each for each in first.took_s],
        bytes_per_step=fmean(counted) if counted else None,
        losses=traces[0] if traces else (),
        loss=fmean(tail_mean(each) for each in traces) if traces else None,
    )


def times(outcomes: Sequence[Outcome]) -> Spread | None:
    """Milliseconds of a step over all runs of a remedy: median, 10th and 90th percentile."""
    values = sorted(each for outcome in outcomes for each in outcome.step_ms)
    if not values:
        return None
    last = len(values) - 1
    return Spread(median(values), values[round(0.1 * last)], values[round(0.9 * last)])


def losses(outcomes: Sequence[Outcome]) -> Spread | None:
    """The losses of the runs of a remedy, one of each seed: median, lowest, highest.

    NaN where one of them is no finite number.
    """
    values = [each.loss for each in outcomes if each.loss is not None]
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, math.nan, math.nan)
    return Spread(median(values), min(values), max(values))


def volume(outcomes: Sequence[Outcome]) -> float | None:
    """Bytes per step over the runs of a remedy."""
    values = [each.bytes_per_step for each in outcomes if each.bytes_per_step is not None]
    return fmean(values) if values else None
