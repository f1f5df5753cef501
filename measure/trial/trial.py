"""A whole trial: the plain run first, then the remedies, with all seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wiresum.measure import lines
from wiresum.measure.remedies import PLAIN, Remedy
from wiresum.measure.trial.errors import TrialError
from wiresum.measure.trial.folder import Folder
from wiresum.measure.trial.judge import Verdict, cannot_win, judge, least
from wiresum.measure.trial.options import TrialOptions
from wiresum.measure.trial.outcome import FINISHED, Outcome
from wiresum.measure.trial.run import Decide, Progress, run

Run = Callable[[Remedy, int, TrialOptions, Path, Decide, Callable[[int], None]], Outcome]


class Watcher:
    """Is told how a trial goes on. Here: does nothing."""

    def begins(self, remedy: Remedy, seed: int) -> None:
        """A run begins."""

    def steps(self, done: int) -> None:
        """So many steps of it are done."""

    def ended(self, outcome: Outcome, *, kept: bool) -> None:
        """It has ended; ``kept``: it was made before."""


@dataclass
class Trial:
    """The runs so far, by remedy, in the order in which they were made."""

    options: TrialOptions
    runs: dict[str, list[Outcome]] = field(default_factory=dict)

    @property
    def plain(self) -> Sequence[Outcome]:
        """The runs of plain gloo."""
        return self.runs.get(PLAIN, [])

    def verdicts(self) -> dict[str, Verdict]:
        """Of each remedy that has run."""
        target = self.options.target
        return {name: judge(runs, self.plain, target) for name, runs in self.runs.items() if runs}

    @property
    def least(self) -> str | None:
        """The remedy of the least volume that meets the target; None if none does."""
        return least(self.runs, self.verdicts())


def hold(options: TrialOptions, folder: Folder, watcher: Watcher, make: Run = run) -> Trial:
    """Make all runs that ``folder`` has not kept.

    Raises ``TrialError`` if the plain run fails, and what ``run`` raises.
    """
    trial = Trial(options)
    for remedy in options.remedies:
        runs = trial.runs.setdefault(remedy.name, [])
        for seed in range(options.seeds):
            outcome = folder.kept(remedy.name, seed)
            kept = outcome is not None
            if outcome is None:
                watcher.begins(remedy, seed)
                place = folder.of_run(remedy.name, seed)
                decide = _decide(trial, remedy, seed)
                outcome = make(remedy, seed, options, place, decide, watcher.steps)
                folder.keep(outcome)
            if remedy.name == PLAIN and outcome.how != FINISHED:
                raise TrialError(lines.PLAIN_RUN_FAILED.of(why=outcome.why))
            runs.append(outcome)
            watcher.ended(outcome, kept=kept)
            if outcome.how != FINISHED:
                break
    return trial


def _decide(trial: Trial, remedy: Remedy, seed: int) -> Decide:
    plain = next((each for each in trial.plain if each.seed == seed), None)
    if remedy.name == PLAIN:
        plain = None
    others = {name: runs for name, runs in trial.runs.items() if name != remedy.name}
    verdicts = {name: each for name, each in trial.verdicts().items() if name in others}
    best = least(others, verdicts) if plain is not None else None

    def decide(progress: Progress) -> str | None:
        return cannot_win(
            seen=progress.losses,
            plain=plain,
            target=trial.options.target,
            step_ms=progress.step_ms,
            bytes_per_step=progress.bytes_per_step,
            winner=others[best] if best is not None else (),
        )

    return decide
