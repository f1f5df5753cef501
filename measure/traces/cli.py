"""The command ``wiresum measure``."""

import json
import sys
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Option, Rest
from wiresum.measure import lines
from wiresum.measure.traces.errors import TraceError, TraceUsageError

_PIPE_WIDTH = 180


def measure(
    command: Annotated[list[str], Rest(metavar="")],
    trace: Annotated[
        Path | None,
        Option(metavar="DIR", help="Chrome traces of torch.profiler, one file of each rank."),
    ] = None,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the figures as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Write a page that needs no network.")
    ] = None,
) -> None:
    """How much a job communicates, and how long it waits for that: from traces of its ranks."""
    if trace is None or command:
        raise TraceUsageError(lines.GIVE_TRACES.of())

    from rich.console import Console

    from wiresum.measure.traces import show
    from wiresum.measure.traces.load import load
    from wiresum.measure.traces.summary import summarize

    traces = load(trace)
    report = summarize(traces)
    if json_file is not None:
        _write(json_file, json.dumps(show.as_json(report), indent=1, allow_nan=False) + "\n")
    if html_file is not None:
        from wiresum.measure.traces import html
        from wiresum.measure.traces.timeline import timeline

        _write(html_file, html.page(report, timeline(traces)))
    # Names in a trace are a stranger's: no markup in them is meant.
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    console.print(show.page(report))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TraceError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None
