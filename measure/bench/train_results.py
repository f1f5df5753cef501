"""Times to a loss as ratios against gloo, and their page: pure, from the JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wiresum.measure.bench.train_methods import METHODS
from wiresum.measure.remedies import PLAIN

KIND, VERSION = "wiresum time to loss", 1
BEGIN = "<!-- made by `wiresum bench train`: do not edit from here -->"

Run = Mapping[str, Any]
"""One training: an entry of the JSON."""


def reached(looks: Sequence[Sequence[float]], target: float) -> float | None:
    """Seconds until the loss was the target, between two looks by interpolation; None: never."""
    if looks and looks[0][1] <= target:
        return float(looks[0][0])
    for (early, above), (late, below) in pairwise(looks):
        if below <= target:
            return float(early + (late - early) * (above - target) / (above - below))
    return None


@dataclass(frozen=True)
class Row:
    """One method on the same links. ``ratios``: gloo's time by its own, in each round that has
    reached the loss; ``lost``: rounds that have not, and the least of their losses."""

    method: str
    ratios: list[float]
    lost: int
    least_loss: float
    steps: float
    step_ms: float
    sent: float

    @property
    def ratio(self) -> float | None:
        """The median of all rounds, where one that has not reached the loss is the slowest."""
        values = sorted([0.0] * self.lost + self.ratios)
        middle = statistics.median(values)
        return middle if middle > 0 else None


def cases(runs: Sequence[Run]) -> list[tuple[float, int]]:
    """Rates and numbers of workers, in order."""
    return sorted({(each["rate_mbit"], each["workers"]) for each in runs})


def rows(runs: Sequence[Run], rate_mbit: float, workers: int, target: float) -> list[Row]:
    """The methods of one case, gloo first. A round without gloo's time says nothing."""
    here = [e for e in runs if (e["rate_mbit"], e["workers"]) == (rate_mbit, workers)]
    times = {(each["method"], each["seed"]): reached(each["looks"], target) for each in here}
    plain = {seed: time for (name, seed), time in times.items() if name == PLAIN and time}
    found = []
    for name in METHODS:
        own = [each for each in here if each["method"] == name and each["seed"] in plain]
        if not own:
            continue
        took = {each["seed"]: times[name, each["seed"]] for each in own}
        found.append(
            Row(
                name,
                [plain[seed] / time for seed, time in took.items() if time],
                sum(time is None for time in took.values()),
                min(loss for each in own for _, loss in each["looks"]),
                statistics.median(each["steps"] for each in own),
                1e3 * statistics.median(e["looks"][-1][0] / e["steps"] for e in own),
                statistics.median(each["sent"] / each["steps"] for each in own),
            )
        )
    return found


def page(content: Mapping[str, Any]) -> str:
    """All tables, with what they were measured on."""
    runs, options, machine = content["runs"], content["options"], content["machine"]
    rounds = sorted({each["seed"] for each in runs})
    text = (
        f"The loss is {options['target']:g}; rounds: {len(rounds)}. Measured on "
        f"{machine['cores']} cores of {machine['model'] or 'an unnamed processor'}, "
        f"Linux {machine['kernel']}.\n"
    )
    for rate, workers in cases(runs):
        found = rows(runs, rate, workers, options["target"])
        if found:
            text += f"\n### {_rate(rate)}, {workers} workers\n\n{_table(found)}"
            text += f"\n{_summary(found)}\n"
    return text


def _rate(mbit: float) -> str:
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"


def _table(found: Sequence[Row]) -> str:
    head = [
        "method", "", "gloo's time by its own", "lowest–highest", "steps", "ms a step",
        "KiB a step",
    ]  # fmt: skip
    cells = [head, ["---"] * len(head), *(_cells(each) for each in found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _cells(row: Row) -> list[str]:
    ratio, spread = row.ratio, ""
    if ratio is None:
        said = f"**not reached: {row.least_loss:.2f}**"
    else:
        said = f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"
        low = f"{min(row.ratios):.2f}" if not row.lost else f"{row.lost} not reached"
        spread = f"{low}–{max(row.ratios):.2f}"
    return [
        f"`{row.method}`", METHODS[row.method].title, said, spread, f"{row.steps:.0f}",
        f"{row.step_ms:.1f}", f"{row.sent / 1024:.0f}",
    ]  # fmt: skip


def _summary(found: Sequence[Row]) -> str:
    others = [each for each in found if each.method != PLAIN]
    if not others:
        return "Nothing was compared with gloo."
    lost = [each for each in others if (each.ratio or 0.0) < 1]
    best = max(others, key=lambda each: each.ratio or 0.0)
    words = f"{len(lost)} of {len(others)} methods lose against gloo here"
    if best.ratio is None:
        return f"{words}."
    return f"{words}; `{best.method}` is the fastest, in 1/{best.ratio:.2f} of gloo's time."
