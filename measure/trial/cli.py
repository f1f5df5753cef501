"""The command ``wiresum trial``."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Option, Rest
from wiresum.measure import lines
from wiresum.measure.trial.errors import TrialError, TrialUsageError

if TYPE_CHECKING:
    from wiresum.measure.trial.folder import Folder
    from wiresum.measure.trial.options import TrialOptions

_PIPE_WIDTH = 160


def trial(
    command: Annotated[list[str], Rest()],
    within: Annotated[
        str | None,
        Option(
            metavar="SHARE",
            help="The target: a loss at most so much above plain gloo's  [default: 1%]",
        ),
    ] = None,
    target_loss: Annotated[
        float | None, Option(metavar="LOSS", help="The target: a loss of at most this.")
    ] = None,
    candidates: Annotated[
        str,
        Option(
            metavar="NAMES",
            help="Remedies to try, with commas between: fp16, powersgd, top-k, local-steps, "
            "sparse-loco, ranks-32, ranks-16, ranks-8, switch-32, switch-16, switch-8  [default: "
            "all but those of a switch; with --controller or --embedded, those too]",
        ),
    ] = "",
    steps: Annotated[int, Option(min=20, help="Steps of each run.")] = 100,
    seeds: Annotated[int, Option(min=1, max=20, help="Runs of each remedy.")] = 1,
    controller: Annotated[
        str | None,
        Option(
            metavar="HOST:PORT", help="Controller of a switch to try.", envvar="WIRESUM_CONTROLLER"
        ),
    ] = None,
    embedded: Annotated[
        bool,
        Option(
            "--embedded",
            help="Try the embedded switch, too, and no controller's. On this host alone: it says "
            "what the losses are, and nothing of the speed.",
        ),
    ] = False,
    loss_pattern: Annotated[
        str | None,
        Option(
            metavar="REGEX",
            help="Finds the loss in the script's output, if it does not call wiresum.report; one "
            "group, the number  [default: finds `loss 2.31`, `Loss: 2.31`, `loss=2.31`]",
        ),
    ] = None,
    patience: Annotated[
        float, Option(metavar="S", help="Seconds in which a run must make a step.")
    ] = 300.0,
    out: Annotated[
        Path,
        Option(
            metavar="DIR",
            help="Folder of the runs and the report; a trial that was interrupted goes on there.",
        ),
    ] = Path("wiresum-trial"),
    fresh: Annotated[
        bool, Option("--fresh", help="Forget the runs that are in the folder.")
    ] = False,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the report there, too.")
    ] = None,
    html_file: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Write the page there, too.")
    ] = None,
) -> None:
    """Try the remedies on your own script for some steps: trial -- torchrun ... train.py"""
    from wiresum.host_agent.launcher.run import resolve
    from wiresum.measure.trial.folder import Folder
    from wiresum.measure.trial.options import Target, TrialOptions, chosen, pattern_of, share_of

    if not command:
        raise TrialUsageError(lines.TRIAL_OF_WHAT.of())
    if within is not None and target_loss is not None:
        raise TrialUsageError(lines.TWO_TARGETS.of())
    names = [name.strip() for name in candidates.split(",") if name.strip()]
    options = TrialOptions(
        command=resolve(command),
        remedies=chosen(names, switch=embedded or bool(controller)),
        target=Target(share_of(within or "1%"), target_loss),
        steps=steps,
        seeds=seeds,
        folder=out,
        controller=None if embedded else controller or None,
        pattern=pattern_of(loss_pattern),
        patience_s=_seconds(patience),
    )
    folder = Folder(options, fresh=fresh)
    _hold(options, folder, list(command), json_file, html_file)


def _hold(
    options: "TrialOptions",
    folder: "Folder",
    command: list[str],
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Make the runs, write the report, print the table."""

    from rich.console import Console

    from wiresum.measure.trial import html, show
    from wiresum.measure.trial.progress import Bar
    from wiresum.measure.trial.report import as_json, report_of
    from wiresum.measure.trial.trial import hold

    with Bar(options) as bar:
        held = hold(options, folder, bar)
    report = dataclasses.replace(report_of(held), command=command)
    text = json.dumps(as_json(report), indent=1, allow_nan=False) + "\n"
    page = html.page(report)
    for path in (folder.path / "report.json", json_file):
        if path is not None:
            _write(path, text)
    for path in (folder.path / "report.html", html_file):
        if path is not None:
            _write(path, page)
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    console.print(show.page(report))


def _seconds(value: float) -> float:
    if not 0 < value < math.inf:
        raise TrialUsageError(lines.NOT_PATIENCE.of(value=value))
    return value


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TrialError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None
