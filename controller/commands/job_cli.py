"""Commands about jobs and their slots."""

from typing import Annotated

import typer

from wiresum.controller.client.address import DEFAULT_CONTROLLER
from wiresum.controller.commands import tables
from wiresum.controller.commands.options import Ca, Controller, Json, TokenFile, connect

job_app = typer.Typer(help="Jobs that hold slots on switches.", no_args_is_help=True)


@job_app.callback()
def _job() -> None:
    """Jobs that hold slots on switches."""


@job_app.command("list")
def job_list(
    live: Annotated[bool, typer.Option("--live", help="Leave out those that are over.")] = False,
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """List the jobs, newest first."""
    with connect(controller, token_file, ca) as client:
        jobs = client.list_jobs(counters=True, live_only=live)
    if as_json:
        tables.print_json(jobs)
    else:
        tables.console().print(tables.job_table(jobs))


@job_app.command("show")
def job_show(
    job: Annotated[str, typer.Argument(help="Its id or name.")],
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Show one job: its ranks, its lease and the switch's counters for it."""
    with connect(controller, token_file, ca) as client:
        message = client.get_job(job, counters=True)
    if as_json:
        tables.print_json(message)
    else:
        tables.console().print(tables.job_details(message))


@job_app.command("evict")
def job_evict(
    job: Annotated[str, typer.Argument(help="Its id or name.")],
    reason: Annotated[str, typer.Option(help="One line, told to the job's workers.")] = "",
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """End a job, or take it out of the queue: a tenant its own, the admin anyone's."""
    with connect(controller, token_file, ca) as client:
        message = client.evict_job(job, reason)
    if as_json:
        tables.print_json(message)
    else:
        print(f"job {message.name} ended: {message.reason}")


def slots(
    switch: Annotated[str, typer.Argument(help="Which switch; all if not given.")] = "",
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Show who holds which slots."""
    with connect(controller, token_file, ca) as client:
        switches = client.list_slots(switch)
    if as_json:
        tables.print_json(switches)
    else:
        tables.console().print(tables.slots_table(switches))
