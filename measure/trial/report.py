"""The result of a trial as plain values: what ``--json`` writes, and tables and pages show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wiresum.measure.remedies import PLAIN, REMEDIES, Remedy
from wiresum.measure.trial.judge import Verdict, excess
from wiresum.measure.trial.outcome import Spread, losses, times, volume
from wiresum.measure.trial.trial import Trial

VOLUME = "counted on the sockets of each rank, headers left out; the mean over the ranks"
CONTROLLED = (
    "Each worker begins with the generators of Python, numpy and torch seeded alike; "
    "torch.manual_seed in the script is shifted with each seed after the first. Generators that "
    "the script makes itself, the order of its data and its threads are its own."
)


@dataclass(frozen=True)
class Row:
    """One remedy."""

    remedy: Remedy
    options: Sequence[str]
    """Of ``wiresum run``; empty: the command is run as it is."""
    seeds: int
    steps: int
    step_ms: Spread | None
    bytes_per_step: float | None
    loss: Spread | None
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """The whole trial."""

    command: Sequence[str]
    world: int
    target: str
    limit: float | None
    """The largest loss that meets the target; None if it differs between the seeds."""
    rows: Sequence[Row]
    least: str | None
    notes: Sequence[str]

    @property
    def conclusion(self) -> str:
        """The answer in one sentence."""
        rows = {row.remedy.name: row for row in self.rows}
        if self.least is None:
            return f"No remedy meets the target: {self.target}."
        best, plain = rows[self.least], rows[PLAIN]
        if self.least == PLAIN:
            return "The least volume that meets the target is plain gloo's: no remedy is worth it."
        assert best.bytes_per_step is not None
        words = f"The least volume that meets the target is {self.least}'s"
        if plain.bytes_per_step and best.step_ms and plain.step_ms:
            words += (
                f": {best.bytes_per_step / plain.bytes_per_step:.2g} of plain gloo's bytes, "
                f"{best.step_ms.median / plain.step_ms.median:.2g} of its time per step"
            )
        return f"{words}."


def report_of(trial: Trial) -> Report:
    """What the runs of a trial say."""
    verdicts = trial.verdicts()
    rows = [
        Row(
            REMEDIES[name],
            trial.options.run_options(REMEDIES[name]),
            len(runs),
            min(run.steps for run in runs),
            times(runs),
            volume(runs),
            losses(runs),
            verdicts[name],
        )
        for name, runs in trial.runs.items()
    ]
    return Report(
        list(trial.options.command),
        trial.plain[0].world,
        str(trial.options.target),
        _limit(trial),
        rows,
        trial.least,
        _notes(trial),
    )


def _limit(trial: Trial) -> float | None:
    target, plain = trial.options.target, losses(trial.plain)
    if target.loss is not None:
        return target.loss
    if plain is None or not math.isfinite(plain.median):
        return None
    return plain.median + target.within * abs(plain.median)


def _notes(trial: Trial) -> list[str]:
    notes = [f"Bytes are {VOLUME}.", CONTROLLED]
    plain = losses(trial.plain)
    target = trial.options.target
    if trial.options.seeds == 1:
        notes.append("One seed only: how much the loss varies by chance is not known (--seeds 3).")
    elif plain is not None and target.loss is None:
        spread = excess(plain.high, plain.low)
        if spread > target.within:
            notes.append(
                f"Plain gloo's own loss varies by {100 * spread:.2g} % between the seeds, more "
                "than the tolerance: seeds are compared pair by pair, more steps would tell more."
            )
    steps = trial.options.steps
    notes.append(
        f"The trial says nothing about losses later than step {steps}, nor about links that other "
        "jobs load."
    )
    return notes


def as_json(report: Report) -> dict[str, object]:
    """The report as ``--json`` writes it."""
    return {
        "kind": "wiresum trial",
        "version": 1,
        "command": list(report.command),
        "world_size": report.world,
        "target": report.target,
        "limit": report.limit,
        "volume": VOLUME,
        "remedies": [
            {
                "name": row.remedy.name,
                "options": list(row.options),
                "environment": dict(row.remedy.environment),
                "seeds": row.seeds,
                "steps": row.steps,
                "step_ms": _spread(row.step_ms),
                "bytes_per_step": row.bytes_per_step,
                "loss": _spread(row.loss),
                "outcome": row.verdict.outcome,
                "why": row.verdict.why,
            }
            for row in report.rows
        ],
        "least": report.least,
        "conclusion": report.conclusion,
        "notes": list(report.notes),
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    if spread is None or not math.isfinite(spread.median):
        return None
    return spread._asdict()
