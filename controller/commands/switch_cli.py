"""Commands about switches."""

from typing import Annotated

from wiresum.common.command_line import Argument, Option
from wiresum.controller.commands.options import THIS_USERS, ControllerOptions, Json
from wiresum.controller.commands.switch_options import (
    NO_FILES,
    DeviceId,
    Lanes,
    P4Runtime,
    P4RuntimeTls,
    SwitchOptions,
)


def switch_add(
    name: Annotated[str, Argument(help="Name of the switch.")],
    described: SwitchOptions,
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Add a switch, or change what is known of it. The controller takes it over at once."""
    from wiresum.controller.commands import tables

    request = described.request(name)
    with asked.connect() as client:
        switch = client.add_switch(request)
    if as_json:
        tables.print_json(switch)
    else:
        print(f"switch {switch.name} added: {switch.slots} slots of {switch.lanes} lanes")


def switch_list(
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """List the switches, and whether they are up."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        switches = client.list_switches(counters=True)
    if as_json:
        tables.print_json(switches)
    else:
        tables.console().print(tables.switch_table(switches))


def switch_drain(
    name: Annotated[str, Argument(help="Which.")],
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Give a switch no new jobs; its jobs go on. Prints how many it has."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        switch = client.drain_switch(name)
    if as_json:
        tables.print_json(switch)
    elif switch.jobs:
        jobs = "1 live job" if switch.jobs == 1 else f"{switch.jobs} live jobs"
        print(f"switch {name} takes no new jobs: {jobs} left, see `wiresum slots {name}`")
    else:
        print(f"switch {name} takes no new jobs, and has none")


def switch_undrain(
    name: Annotated[str, Argument(help="Which.")],
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Give a drained switch new jobs again."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        switch = client.drain_switch(name, undrain=True)
    if as_json:
        tables.print_json(switch)
    else:
        print(f"switch {name} takes new jobs again")


def switch_remove(
    name: Annotated[str, Argument(help="Which.")],
    asked: ControllerOptions = THIS_USERS,
) -> None:
    """Forget a switch that no live job uses."""
    with asked.connect() as client:
        client.remove_switch(name)
    print(f"switch {name} removed")


def switch_deploy(
    p4runtime: P4Runtime,
    lanes: Lanes = 256,
    device_id: DeviceId = 0,
    election_id: Annotated[
        int,
        Option(
            min=1,
            max=(1 << 128) - 1,
            help="Election id; the client with the highest one controls the switch. "
            "Controllers use 10.",
        ),
    ] = 1,
    tls: P4RuntimeTls = NO_FILES,
    force: Annotated[
        bool,
        Option("--force", help="Push the program even if the switch runs it; empties its tables."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Load the switch program into any P4Runtime switch; print what was found there."""
    import json

    from wiresum.controller.southbound.deploy import deploy

    done = deploy(
        p4runtime,
        lanes=lanes,
        device_id=device_id,
        election_id=election_id,
        force=force,
        tls=tls.files(),
    )
    print(json.dumps(done.as_json(), indent=2) if as_json else "\n".join(done.lines()))
