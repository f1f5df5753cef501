"""The command ``wiresum measure``."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Option, Rest
from wiresum.measure import lines
from wiresum.measure.traces.errors import TraceError, TraceUsageError

_PIPE_WIDTH = 180


def measure(
    command: Annotated[list[str], Rest()],
    steps: Annotated[
        int, Option(metavar="N", help="Steps that each rank records.", min=1, max=1000)
    ] = 10,
    keep: Annotated[
        Path | None,
        Option(metavar="DIR", help="Keep the ranks' traces there; --trace DIR reads them again."),
    ] = None,
    trace: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Run nothing: read Chrome traces of torch.profiler, one file of each rank.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the figures as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, Option("--html", metavar="FILE", help="Write a page that needs no network.")
    ] = None,
) -> int:
    """How much a job communicates, and how long it waits for that: measure -- torchrun ..."""
    if (trace is None) == (not command) or (trace and keep):
        raise TraceUsageError(lines.GIVE_A_JOB.of())
    if trace is not None:
        _report(trace, json_file, html_file)
        return 0

    for file in filter(None, (json_file, html_file)):
        _check_place(file)
    with _folder(keep) as folder:
        return _run(command, steps, folder, lambda: _report(folder, json_file, html_file, command))


def _run(command: list[str], steps: int, folder: Path, report: Callable[[], None]) -> int:
    """Run the command; report as soon as its ranks have recorded their steps, or at its end."""
    from wiresum.measure.live.ready import Ready
    from wiresum.measure.live.run import run

    ready = Ready(folder)
    reported = False

    def tick() -> None:
        nonlocal reported
        # A fault of the report must not end the job; it comes again at the end.
        with contextlib.suppress(Exception):
            if ready.now():
                report()
                reported = True

    status = run(command, folder, steps, tick)
    try:
        if not reported:
            report()
    except TraceError as error:
        if not status:
            raise
        raise _ended(status, str(error)) from None
    if status:
        raise _ended(status, "the report is of the steps before that")
    return 0


def _ended(status: int, what: str) -> TraceError:
    error = TraceError(lines.COMMAND_ENDED.of(status=status, what=what))
    error.exit_code = status
    return error


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the ranks write: an empty folder."""
    if keep is None:
        from wiresum.common.temporary import PrivateFolder

        with PrivateFolder("measure") as made:
            yield made.path
        return

    from wiresum.measure.live.observed import SUFFIX
    from wiresum.measure.traces.load import SUFFIXES

    read = (SUFFIX, *SUFFIXES)
    try:
        keep.mkdir(parents=True, exist_ok=True)
        used = sorted(each.name for each in keep.iterdir() if each.name.endswith(read))
    except OSError as error:
        raise TraceError(lines.NO_FOLDER.of(folder=keep, why=error.strerror)) from None
    if used:
        raise TraceUsageError(lines.FOLDER_USED.of(folder=keep, file=used[0]))
    yield keep


def _report(
    folder: Path, json_file: Path | None, html_file: Path | None, command: list[str] | None = None
) -> None:
    from rich.console import Console

    from wiresum.measure.live.job import job_in
    from wiresum.measure.traces import show
    from wiresum.measure.traces.load import load
    from wiresum.measure.traces.summary import summarize

    job, notes = job_in(folder, command)
    traces = load(folder)
    report = summarize(traces, job, notes)
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
    sys.stdout.flush()  # the job may go on for days


def _check_place(path: Path) -> None:
    """Whether a file can be written there, before a job runs for hours. Raises TraceError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        with path.open("a"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise TraceError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TraceError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None
