"""The command ``wiresum advise``."""

import json
import sys
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Argument, Option
from wiresum.measure import lines
from wiresum.measure.advise.errors import AdviceError, AdviceUsageError
from wiresum.measure.advise.options import Network, PriceOptions

_PIPE_WIDTH = 160


def advise(
    report: Annotated[
        Path, Argument(metavar="REPORT.json", help="What `wiresum measure --json` wrote.")
    ],
    network: Network,
    prices: PriceOptions,
    trial: Annotated[
        Path | None,
        Option(metavar="FILE", help="What `wiresum trial --json` wrote: measured beats predicted."),
    ] = None,
    threshold: Annotated[
        float | None,
        Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="The share of a step below which nothing is worth it.  [the report's: 0.05]",
        ),
    ] = None,
    wanted_hours: Annotated[
        float | None,
        Option(min=0, max=1e6, help="How long a run may take at most; needs the hours of today's."),
    ] = None,
    calibrate: Annotated[
        bool, Option("--calibrate", help="Measure the codec's and a cipher's speed here first.")
    ] = False,
    checklist: Annotated[
        Path | None, Option(metavar="FILE", help="Write the in-house checklist, in Markdown.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Stop here, change the software, or invest: what a job's report says, with the evidence."""
    from wiresum.measure.advise import advice, documents

    found = documents.read_report(report)
    tried = None if trial is None else documents.read_trial(trial)
    paid = prices.prices()
    if wanted_hours is not None and paid.hours(found.job.step_s) is None:
        raise AdviceUsageError(lines.HOURS_UNKNOWN.of())
    question = advice.Question(
        link=network.link(None if found.slowest is None else found.slowest[2]),
        mtu=network.mtu,
        protection=network.protection.protection,
        faster_gbit=network.faster_gbit,
        prices=paid,
        threshold=threshold,
        wanted_hours=wanted_hours,
    )
    if calibrate:
        from dataclasses import replace

        from wiresum.measure.advise.calibrate import calibrate as measured

        question = replace(question, costs=measured(found.job.workers))
    made = advice.advise(found, question, tried)
    if checklist is not None:
        from wiresum.measure.advise.checklist import checklist as page

        try:
            checklist.parent.mkdir(parents=True, exist_ok=True)
            checklist.write_text(page(made), encoding="utf-8")
        except OSError as error:
            raise AdviceError(lines.CANNOT_WRITE.of(path=checklist, why=error.strerror)) from None
    if as_json:
        print(json.dumps(advice.as_json(made), indent=1, allow_nan=False))
        return

    from rich.console import Console

    from wiresum.measure.advise import show

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    console.print(show.page(made))
