"""Commands about jobs and their slots."""

from typing import Annotated

from wiresum.common.command_line import Argument, Option
from wiresum.controller.commands.options import THIS_USERS, ControllerOptions, Json


def job_list(
    live: Annotated[bool, Option("--live", help="Leave out those that are over.")] = False,
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """List the jobs, newest first."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        jobs = client.list_jobs(counters=True, live_only=live)
    if as_json:
        tables.print_json(jobs)
    else:
        tables.console().print(tables.job_table(jobs))


def job_show(
    job: Annotated[str, Argument(help="Its id or name.")],
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Show one job: its ranks, its lease and the switch's counters for it."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        message = client.get_job(job, counters=True)
    if as_json:
        tables.print_json(message)
    else:
        tables.console().print(tables.job_details(message))


def job_park(
    job: Annotated[str, Argument(help="Its id or name.")],
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Let other jobs have a running job's slots, until it is unparked.

    They get them down to the job's --min-slots.
    """
    _park(job, asked, as_json, unpark=False)


def job_unpark(
    job: Annotated[str, Argument(help="Its id or name.")],
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Give a parked job its slots back, as soon as others have made way."""
    _park(job, asked, as_json, unpark=True)


def _park(job: str, asked: ControllerOptions, as_json: bool, *, unpark: bool) -> None:
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        message = client.park_job(client.get_job(job).id, unpark=unpark)
    if as_json:
        tables.print_json(message)
    else:
        says = "is not parked" if unpark else "is parked"
        print(f"job {message.name} {says}: {message.slots} of {message.slots_target} slots")


def job_evict(
    job: Annotated[str, Argument(help="Its id or name.")],
    reason: Annotated[str, Option(help="One line, told to the job's workers.")] = "",
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """End a job, or take it out of the queue: a tenant its own, the admin anyone's."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        message = client.evict_job(job, reason)
    if as_json:
        tables.print_json(message)
    else:
        print(f"job {message.name} ended: {message.reason}")


def slots(
    switch: Annotated[str, Argument(help="Which switch; all if not given.")] = "",
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Show who holds which slots."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        switches = client.list_slots(switch)
    if as_json:
        tables.print_json(switches)
    else:
        tables.console().print(tables.slots_table(switches))
