"""The rules of a trial. Pure functions of what was measured.

- A remedy meets the target if the median over its seeds does; with ``within``, each seed's loss is
  compared with the plain run's of the same seed.
- A run is ended early if its loss is no number, or lies far above the plain run's after half of the
  losses; or if it is slower than a remedy that meets the target and sends no fewer bytes.
- The least volume wins. Within one per cent of it, the shortest step does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from wiresum.measure.trial.options import TAIL, Target
from wiresum.measure.trial.outcome import FINISHED, Outcome, losses, times, volume

FAR_TIMES, LEAST_FAR = 10.0, 0.10
"""A loss is far above the plain run's if it is by ten times the tolerance, and by a tenth."""

STEPS_TO_TELL = 10
"""Timed steps after which a run may be called slower."""

ALIKE = 0.01
"""Volumes that differ by less are alike: counters of sockets are not exact."""

MEETS, MISSES = "meets", "misses"


@dataclass(frozen=True)
class Verdict:
    """Of one remedy: ``meets``, ``misses``, or how its runs have ended; and why."""

    outcome: str
    why: str = ""


def excess(loss: float, plain: float) -> float:
    """How far a loss lies above the plain run's, relative to that."""
    return (loss - plain) / abs(plain) if plain else (math.inf if loss > plain else 0.0)


def judge(runs: Sequence[Outcome], plain: Sequence[Outcome], target: Target) -> Verdict:
    """What the runs of one remedy say; ``plain`` are those of plain gloo."""
    for run in runs:
        if run.how != FINISHED:
            return Verdict(run.how, run.why)
    found = losses(runs)
    assert found is not None
    if not math.isfinite(found.median):
        return Verdict(MISSES, "its loss is no number")
    if target.loss is not None:
        words = f"its loss is {found.median:.4g}"
        return Verdict(MEETS if found.median <= target.loss else MISSES, words)
    before = {run.seed: run.loss for run in plain}
    apart = median(excess(run.loss or 0.0, before[run.seed] or 0.0) for run in runs)
    if runs is plain:
        return Verdict(MEETS, "the others are compared with it")
    side = "above" if apart > 0 else "below"
    words = f"its loss is {100 * abs(apart):.2g} % {side} plain gloo's"
    return Verdict(MEETS if apart <= target.within else MISSES, words)


def least(runs: Mapping[str, Sequence[Outcome]], verdicts: Mapping[str, Verdict]) -> str | None:
    """The remedy of the least volume that meets the target; None if none does."""
    found = []
    for name, verdict in verdicts.items():
        size, took = volume(runs[name]), times(runs[name])
        if verdict.outcome == MEETS and size is not None and took is not None:
            found.append((size, took.median, name))
    if not found:
        return None
    smallest = min(found)[0]
    return min((took, name) for size, took, name in found if size <= smallest * (1 + ALIKE))[1]


def cannot_win(
    *,
    seen: Sequence[float],
    plain: Outcome | None,
    target: Target,
    step_ms: Sequence[float],
    bytes_per_step: float | None,
    winner: Sequence[Outcome],
) -> str | None:
    """Why a run in progress need not go on, in a few words; None if it shall.

    ``seen``: its losses so far. ``plain``: the plain run of the same seed; None for that run
    itself, which always goes on. ``winner``: the runs of the best remedy so far; empty if none.
    """
    if plain is None:
        return None
    if seen and not math.isfinite(seen[-1]):
        return "its loss is no number any more"
    all_of_plain = len(plain.losses)
    window = max(1, round(TAIL * all_of_plain))
    # A run with more losses than the plain one has reported others: they cannot be compared.
    if max(window, all_of_plain / 2) <= len(seen) <= all_of_plain:
        mine, theirs = fmean(seen[-window:]), fmean(plain.losses[len(seen) - window : len(seen)])
        far = max(FAR_TIMES * target.within, LEAST_FAR)
        if excess(mine, theirs) > far:
            return f"its loss was {100 * excess(mine, theirs):.0f} % above plain gloo's"
    return _slower_and_no_smaller(step_ms, bytes_per_step, winner)


def _slower_and_no_smaller(
    step_ms: Sequence[float], bytes_per_step: float | None, winner: Sequence[Outcome]
) -> str | None:
    best_ms, best_bytes = times(winner), volume(winner)
    if best_ms is None or best_bytes is None or bytes_per_step is None:
        return None
    if len(step_ms) < STEPS_TO_TELL or bytes_per_step < best_bytes * (1 - ALIKE):
        return None
    mine = median(step_ms)
    if mine <= best_ms.median:
        return None
    name = winner[0].remedy
    return (
        f"slower than {name} ({mine:.3g} ms against {best_ms.median:.3g} ms) and no fewer bytes; "
        f"{name} meets the target"
    )
