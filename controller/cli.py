"""The controller's part of the command line; the root command mounts it."""

import json
import os
import sys
from typing import Annotated

import typer

from wiresum.common.errors import WiresumError
from wiresum.controller import tables
from wiresum.controller.client import DEFAULT_CONTROLLER, ControllerClient
from wiresum.controller.spec import describe, parse_switch

controller_app = typer.Typer(help="Run the controller.", no_args_is_help=True)
switch_app = typer.Typer(help="Switches that the controller drives.", no_args_is_help=True)
job_app = typer.Typer(help="Jobs that hold slots on switches.", no_args_is_help=True)

Controller = Annotated[
    str,
    typer.Option(
        "--controller",
        envvar="WIRESUM_CONTROLLER",
        metavar="HOST:PORT",
        help="Where the controller listens.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@controller_app.callback()
def _controller() -> None:
    """Run the controller."""


@controller_app.command()
def serve(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to serve; port 0 takes any.")
    ] = DEFAULT_CONTROLLER,
    store: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="SQLite file, or :memory:  [default: $XDG_STATE_HOME/wiresum/controller.sqlite]",
        ),
    ] = "",
    switch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,…",
            help="Add a switch: the options of `switch add` in one string, such as "
            "name=s1,p4runtime=127.0.0.1:9559,address=127.0.0.1:5555,host=0.0.0.0/0=1",
        ),
    ] = None,
    expiry: Annotated[
        float, typer.Option(min=0.5, help="Seconds of silence after which a job's lease ends.")
    ] = 30.0,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when the process that started this does")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to stderr.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT; prints its address as one line of JSON when ready."""
    # Only this command needs the store and finsy; they take a second to import.
    from wiresum.controller.jobs import Limits
    from wiresum.controller.server import ServeOptions, configure_logging, parse_store
    from wiresum.controller.server import serve as run

    configure_logging(verbose=verbose)
    run(
        ServeOptions(
            listen=listen,
            store=parse_store(store),
            switches=[parse_switch(text) for text in switch or ()],
            exit_with_parent=exit_with_parent,
            limits=Limits(heartbeat_s=expiry / 6, expiry_s=expiry),
        )
    )


@switch_app.callback()
def _switch() -> None:
    """Switches that the controller drives."""


@switch_app.command("add")
def switch_add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    p4runtime: Annotated[
        str, typer.Option(metavar="ADDR", help="Its P4Runtime server: HOST:PORT or unix:/path.")
    ],
    address: Annotated[
        str, typer.Option(metavar="IP:UDPPORT", help="Where workers send their packets.")
    ],
    host: Annotated[
        list[str],
        typer.Option(metavar="CIDR=PORT", help="Workers in CIDR are behind its port PORT."),
    ],
    mac: Annotated[str, typer.Option(help="Its MAC address  [default: 02:00:<ip>]")] = "",
    lanes: Annotated[int, typer.Option(min=1, help="Lanes of the program to run on it.")] = 256,
    device_id: Annotated[int, typer.Option(min=0, help="Its P4Runtime device id.")] = 0,
    shared_address: Annotated[
        bool | None,
        typer.Option(
            "--shared-address/--own-address",
            help="Whether workers may have its own address, as on a softswitch's host  "
            "[default: for a loopback address]",
        ),
    ] = None,
    controller: Controller = DEFAULT_CONTROLLER,
    as_json: Json = False,
) -> None:
    """Add a switch, or change what is known of it. The controller takes it over at once."""
    request = describe(
        name,
        p4runtime=p4runtime,
        address=address,
        hosts=host,
        mac=mac,
        lanes=lanes,
        device_id=device_id,
        shared_address=shared_address,
    )
    with ControllerClient(controller) as client:
        switch = client.add_switch(request)
    if as_json:
        tables.print_json(switch)
    else:
        print(f"switch {switch.name} added: {switch.slots} slots of {switch.lanes} lanes")


@switch_app.command("list")
def switch_list(controller: Controller = DEFAULT_CONTROLLER, as_json: Json = False) -> None:
    """List the switches, and whether they are up."""
    with ControllerClient(controller) as client:
        switches = client.list_switches(counters=True)
    if as_json:
        tables.print_json(switches)
    else:
        tables.console().print(tables.switch_table(switches))


@switch_app.command("remove")
def switch_remove(
    name: Annotated[str, typer.Argument(help="Which.")],
    controller: Controller = DEFAULT_CONTROLLER,
) -> None:
    """Forget a switch that no live job uses."""
    with ControllerClient(controller) as client:
        client.remove_switch(name)
    print(f"switch {name} removed")


@switch_app.command("deploy")
def switch_deploy(
    p4runtime: Annotated[
        str, typer.Option(metavar="ADDR", help="Its P4Runtime server: HOST:PORT or unix:/path.")
    ],
    lanes: Annotated[int, typer.Option(min=1, help="Lanes of the program to run on it.")] = 256,
    device_id: Annotated[int, typer.Option(min=0, help="Its P4Runtime device id.")] = 0,
    election_id: Annotated[
        int,
        typer.Option(
            min=1,
            max=(1 << 128) - 1,
            help="Whoever has the highest is in charge; controllers take 10.",
        ),
    ] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Push even what it runs already: empties its tables.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Have any P4Runtime switch run the switch program; say what was found there."""
    from wiresum.controller.deploy import deploy

    done = deploy(p4runtime, lanes=lanes, device_id=device_id, election_id=election_id, force=force)
    print(json.dumps(done.as_json(), indent=2) if as_json else "\n".join(done.lines()))


@job_app.callback()
def _job() -> None:
    """Jobs that hold slots on switches."""


@job_app.command("list")
def job_list(
    live: Annotated[bool, typer.Option("--live", help="Leave out those that are over.")] = False,
    controller: Controller = DEFAULT_CONTROLLER,
    as_json: Json = False,
) -> None:
    """List the jobs, newest first."""
    with ControllerClient(controller) as client:
        jobs = client.list_jobs(counters=True, live_only=live)
    if as_json:
        tables.print_json(jobs)
    else:
        tables.console().print(tables.job_table(jobs))


@job_app.command("show")
def job_show(
    job: Annotated[str, typer.Argument(help="Its id or name.")],
    controller: Controller = DEFAULT_CONTROLLER,
    as_json: Json = False,
) -> None:
    """Show one job: its ranks, its lease and the switch's counters for it."""
    with ControllerClient(controller) as client:
        message = client.get_job(job, counters=True)
    if as_json:
        tables.print_json(message)
    else:
        tables.console().print(tables.job_details(message))


def slots(
    switch: Annotated[str, typer.Argument(help="Which switch; all if not given.")] = "",
    controller: Controller = DEFAULT_CONTROLLER,
    as_json: Json = False,
) -> None:
    """Show who holds which slots."""
    with ControllerClient(controller) as client:
        switches = client.list_slots(switch)
    if as_json:
        tables.print_json(switches)
    else:
        tables.console().print(tables.slots_table(switches))


def main() -> None:
    """``python -m wiresum.controller``: the controller's commands without the others."""
    app = typer.Typer(no_args_is_help=True, add_completion=False)
    app.add_typer(controller_app, name="controller")
    app.add_typer(switch_app, name="switch")
    app.add_typer(job_app, name="job")
    app.command()(slots)
    try:
        app()
    except WiresumError as error:
        print(f"wiresum: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader has seen enough; keep the interpreter from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
