"""One run of the user's script: starts it, reads its progress, and ends it where it cannot win."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wiresum.common.children import process
from wiresum.common.children.process import ProcessOptions
from wiresum.host_agent.remedies.spec import VARIABLE as HOOK_VARIABLE
from wiresum.host_agent.trial.order import PROGRESS, Order, Record, read_records
from wiresum.measure import lines
from wiresum.measure.remedies import Remedy
from wiresum.measure.trial.errors import TrialError
from wiresum.measure.trial.losses import Output
from wiresum.measure.trial.options import TrialOptions
from wiresum.measure.trial.outcome import FAILED, STOPPED, Outcome, outcome_of

OUTPUT = "output.txt"
"""The file that holds what the command has printed."""

END_S = 3.0
"""From SIGTERM to SIGKILL for a run that is ended early."""

_LOOK_S = 0.2
_NOT_PLAIN = (
    *("WIRESUM_CONTROLLER", "WIRESUM_CARRIER", "WIRESUM_FIELD", "WIRESUM_AS_DEFAULT"),
    *("WIRESUM_TUNE", "WIRESUM_SHM", HOOK_VARIABLE),
)
"""Variables that make a run another one than plain gloo."""


@dataclass
class Progress:
    """What is known of a run in progress."""

    steps: int = 0
    step_ms: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    bytes_per_step: float | None = None


Decide = Callable[[Progress], str | None]
"""Why the run shall end now; None while it shall go on."""


def run(
    remedy: Remedy,
    seed: int,
    options: TrialOptions,
    folder: Path,
    decide: Decide,
    told: Callable[[int], None],
) -> Outcome:
    """Run the script once, with its output and records in ``folder``, which is emptied first.

    ``decide`` is asked from time to time; ``told`` gets the number of steps done. A run that fails
    is an outcome. Raises ``TrialError`` where no other remedy could do better: the script has ended
    before its steps, trains without torch's optimizers, or reports no loss.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    order = Order(str(folder.absolute()), options.steps, options.warm, seed)
    env = {name: value for name, value in os.environ.items() if name not in _NOT_PLAIN}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": str(seed), **order.variables()}
    watch = _Watch(folder, options)
    with (folder / OUTPUT).open("wb") as printed:
        child = process.start(
            command_of(remedy, options),
            supervised=True,
            options=ProcessOptions(
                {**env, **remedy.environment},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                limit_s=END_S,
            ),
        )
        stopped, how = None, STOPPED
        try:
            while (status := _wait(child)) is None and stopped is None:
                progress = watch.look()
                told(progress.steps)
                stopped = decide(progress)
                if stopped is None and watch.silent_s > options.patience_s:
                    stopped, how = f"it has made no step for {options.patience_s:g} s", FAILED
        finally:
            process.end_supervised(child)
    progress = watch.look()
    told(progress.steps)
    if stopped is not None:
        return Outcome(
            remedy.name,
            seed,
            how,
            stopped,
            steps=progress.steps,
            step_ms=progress.step_ms,
            bytes_per_step=progress.bytes_per_step,
        )
    records = read_records(folder)
    if status and not _complete(records, options.steps):
        why = f"status {process.exit_status(status)}: {watch.output.last_line()}"
        return Outcome(remedy.name, seed, FAILED, why, steps=progress.steps)
    _check(records, options)
    if reason := _not_in_use(remedy, records):
        return Outcome(remedy.name, seed, FAILED, reason, steps=progress.steps)
    outcome = outcome_of(remedy.name, seed, records, watch.output.losses)
    if outcome.loss is None:
        raise TrialError(lines.NO_LOSS.of())
    return outcome


def command_of(remedy: Remedy, options: TrialOptions) -> list[str]:
    """The user's command, under ``wiresum run`` where the remedy is one of wiresum's carriers."""
    if not (chosen := options.run_options(remedy)):
        return list(options.command)
    return [*process.module("wiresum.cli.main"), "run", *chosen, "--", *options.command]


def _wait(child: "subprocess.Popen[bytes]") -> int | None:
    try:
        return child.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return None


def _complete(records: Sequence[Record], steps: int) -> bool:
    """Whether all ranks have made all steps: what a script does at its end is no matter then."""
    return len(records) > 0 and all(
        each.steps >= steps and len(records) == each.world for each in records
    )


def _check(records: Sequence[Record], options: TrialOptions) -> None:
    if not records:
        raise TrialError(lines.NO_STEP_SEEN.of())
    done = min(each.steps for each in records)
    if done < options.steps:
        raise TrialError(lines.SCRIPT_ENDED.of(steps=done, wanted=options.steps))
    if records[0].world < 2 or not any(each.bytes_per_step for each in records):
        raise TrialError(lines.NO_COLLECTIVE.of(world=records[0].world))


def _not_in_use(remedy: Remedy, records: Sequence[Record]) -> str | None:
    """Why the remedy has had no effect on this script; None if it had."""
    if remedy.hook and remedy.hook not in {name for each in records for name in each.hooks}:
        own = any(each.hooks for each in records)
        return "the script has a DDP hook of its own" if own else "the script uses no DDP"
    if remedy.run_options and not any(each.carried for each in records):
        return "wiresum has carried nothing: the script asks for another backend than gloo"
    return None


class _Watch:
    """Reads what a run writes while it goes on."""

    def __init__(self, folder: Path, options: TrialOptions) -> None:
        self._path = folder / PROGRESS
        self._lines = 0
        self._progress = Progress()
        self._heard = time.monotonic()
        self.output = Output(folder / OUTPUT, options.pattern)

    @property
    def silent_s(self) -> float:
        """How long no step has ended."""
        return time.monotonic() - self._heard

    def look(self) -> Progress:
        """The progress so far."""
        progress = self._progress
        self.output.read()
        text = self._path.read_text() if self._path.exists() else ""
        *whole, _ = text.split("\n")
        for line in whole[self._lines :]:
            self._take(json.loads(line))
        self._lines = len(whole)
        if not progress.losses:
            return Progress(
                progress.steps, progress.step_ms, self.output.losses, progress.bytes_per_step
            )
        return progress

    def _take(self, told: Mapping[str, Any]) -> None:
        self._heard = time.monotonic()
        progress = self._progress
        progress.steps = told["step"]
        if told["took_s"] is not None:
            progress.step_ms.append(1000 * told["took_s"])
        if told["bytes_per_step"] is not None:
            progress.bytes_per_step = told["bytes_per_step"]
        progress.losses.extend(told["losses"])
