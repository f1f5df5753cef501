"""How a trial goes on, on stderr: a bar with the time left, or a line for each run."""

import sys
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wiresum.measure.remedies import Remedy
from wiresum.measure.traces.show import size_text
from wiresum.measure.trial.options import TrialOptions
from wiresum.measure.trial.outcome import FINISHED, Outcome
from wiresum.measure.trial.trial import Watcher


class Bar(Watcher):
    """Use as a context manager."""

    def __init__(self, options: TrialOptions) -> None:
        self._options = options
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        runs = len(options.remedies) * options.seeds
        self._task = self._progress.add_task("", total=runs * options.steps)
        self._done = 0  # steps of the runs before
        self._of_remedy: dict[str, int] = {}

    def begins(self, remedy: Remedy, seed: int) -> None:
        """See :class:`Watcher`."""
        words = f", seed {seed}" if self._options.seeds > 1 else ""
        self._progress.update(self._task, description=f"{remedy.name}{words}")

    def steps(self, done: int) -> None:
        """See :class:`Watcher`."""
        self._progress.update(self._task, completed=self._done + min(done, self._options.steps))

    def ended(self, outcome: Outcome, *, kept: bool) -> None:
        """See :class:`Watcher`."""
        # The seeds after one that has not finished are left out.
        left = self._options.seeds - outcome.seed if outcome.how != FINISHED else 1
        self._done += left * self._options.steps
        self._progress.update(self._task, completed=self._done)
        words = f"{outcome.remedy}, seed {outcome.seed}: {outcome.how}"
        if kept:
            words += " (before)"
        if outcome.loss is not None:
            words += f", loss {outcome.loss:.4g}, {size_text(outcome.bytes_per_step)} per step"
        self._console.print(f"{words}: {outcome.why}" if outcome.why else words)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
