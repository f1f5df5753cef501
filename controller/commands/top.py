"""``wiresum top``: switches, jobs and ranks, live in a terminal, or as one picture."""

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime

from rich.console import Console
from rich.live import Live

from wiresum.common.errors import WiresumError
from wiresum.controller import lines
from wiresum.controller.client import ControllerClient
from wiresum.controller.commands.top_model import Frame, Moment, as_json, frame
from wiresum.controller.commands.top_view import render
from wiresum.controller.errors import ControllerError

_PIPE_WIDTH = 120
_LOOK_S = 0.1


class TopError(WiresumError):
    """There is nothing to show."""


def look(client: ControllerClient, job: str = "") -> Moment:
    """Ask the controller for everything now; with ``job``, of jobs that one (id or name) alone.

    Raises ``ControllerError``; :class:`TopError` if there is no such live job.
    """
    switches, all_told = [], True
    try:
        switches = client.list_switches(counters=True)
    except ControllerError as error:
        if error.code != "PERMISSION_DENIED":
            raise
        all_told = False  # a tenant sees its jobs
    jobs = client.list_jobs(counters=True, live_only=True)
    if job:
        jobs = [one for one in jobs if job in (one.id, one.name)]
        if not jobs:
            raise TopError(lines.NO_LIVE_JOB.of(job=job))
    return Moment(time.monotonic(), switches, jobs, all_told)


def picture(client: ControllerClient, interval_s: float, job: str = "") -> Frame:
    """One frame with the rates of ``interval_s`` seconds; of none if that is 0."""
    address = str(client.address)
    if interval_s <= 0:
        return frame(address, None, look(client, job))
    before = look(client, job)
    time.sleep(interval_s)
    return frame(address, before, look(client, job))


def show(
    client: ControllerClient, *, interval_s: float, once: bool, as_json_text: bool, job: str
) -> None:
    """The command; ends at Ctrl-C, or after one frame if ``once``, as JSON, or without a terminal.

    Raises ``ControllerError`` if the controller cannot be asked at the beginning. When it goes away
    later, the picture stays and says so.
    """
    if as_json_text:
        print(json.dumps(as_json(picture(client, interval_s, job)), indent=2))
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        width = console.width if sys.stdout.isatty() else _PIPE_WIDTH
        Console(highlight=False, width=width).print(render(picture(client, interval_s, job), width))
        return
    try:
        _live(console, lambda: look(client, job), str(client.address), max(interval_s, _LOOK_S))
    except KeyboardInterrupt:
        return


def _live(console: Console, again: Callable[[], Moment], address: str, interval_s: float) -> None:
    now = again()
    shown = frame(address, None, now)
    problem = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            clock = datetime.now().strftime("%H:%M:%S")
            live.update(render(shown, console.width, clock=clock, problem=problem), refresh=True)
            time.sleep(interval_s)
            before = now
            try:
                now = again()
                shown, problem = frame(address, before, now), ""
            except ControllerError as error:
                problem = str(error)
            except TopError:
                return
