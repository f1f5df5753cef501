"""The options of ``wiresum top``; what it needs is imported when it runs."""

from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.controller.commands.options import THIS_USERS, ControllerOptions


def top(
    job: Annotated[str, Option(metavar="JOB", help="Show this job alone: id or name.")] = "",
    once: Annotated[bool, Option("--once", help="Print one picture and end.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print one picture as JSON.")] = False,
    interval: Annotated[
        float,
        Option(
            metavar="S",
            help="Seconds between pictures; rates are means over this time. 0: no rates.",
            min=0,
            max=3600,
        ),
    ] = 2.0,
    asked: ControllerOptions = THIS_USERS,
) -> None:
    """Watch switches, jobs and ranks, and which ranks the others wait for; until Ctrl-C."""
    from wiresum.controller.commands.top import show

    with asked.connect() as client:
        show(client, interval_s=interval, once=once, as_json_text=as_json, job=job)
