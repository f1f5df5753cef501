"""The options of ``wiresum top``; what it needs is imported when it runs."""

from typing import Annotated

import typer

from wiresum.controller.client.address import DEFAULT_CONTROLLER
from wiresum.controller.commands.options import Ca, Controller, TokenFile, connect


def top(
    job: Annotated[str, typer.Option(metavar="JOB", help="Show this job alone: id or name.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one picture as JSON.")] = False,
    interval: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Seconds between pictures, and that rates are taken over; 0: no rates.",
            min=0,
            max=3600,
        ),
    ] = 2.0,
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Watch switches, jobs, ranks, and whom they wait for; until Ctrl-C."""
    from wiresum.controller.commands.top import show

    with connect(controller, token_file, ca) as client:
        show(client, interval_s=interval, once=once, as_json_text=as_json, job=job)
