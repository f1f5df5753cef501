"""The testbed's commands; the root command mounts them as ``wiresum testbed …``."""

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Annotated

from wiresum.common.command_line import Argument, Option, Rest
from wiresum.testbed import lines
from wiresum.testbed.errors import RackError, RackUsageError
from wiresum.testbed.options import RackOptions, check_name, parse_loss, parse_rate

Name = Annotated[str, Option(help="The rack's name; several racks can exist side by side.")]

_LOOK_S = 0.2


@dataclass(frozen=True)
class RackArguments:
    """A rack as the options of a command describe it."""

    switch: Annotated[
        str, Option(metavar="bmv2|soft", help="BMv2's simple_switch_grpc, or the embedded one.")
    ] = "soft"
    workers: Annotated[int, Option(min=1, max=64, help="Hosts, each on a link of its own.")] = 4
    rate: Annotated[
        str, Option(metavar="RATE", help="Rate of each link, in each direction, such as 100mbit.")
    ] = ""
    loss: Annotated[
        str,
        Option(
            metavar="SHARE", help="Share of frames that each link loses, in each direction: 1%."
        ),
    ] = ""
    lanes: Annotated[int, Option(min=1, help="Lanes of the switch program.")] = 64
    name: Name = "rack"
    offloads: Annotated[
        bool,
        Option("--offloads", help="Let trains of segments cross as one frame (soft only)."),
    ] = False

    def options(self) -> RackOptions:
        """The rack that is asked for. Raises :class:`RackUsageError`."""
        return RackOptions(
            switch=self.switch,
            workers=self.workers,
            rate_mbit=parse_rate(self.rate),
            loss=parse_loss(self.loss),
            lanes=self.lanes,
            name=check_name(self.name),
            offloads=self.offloads,
        ).check()


def up(arguments: RackArguments) -> None:
    """Bring up a rack and hold it until Ctrl-C; prints its facts as one line of JSON."""
    from wiresum.testbed.interrupts import Interrupted, Interrupts
    from wiresum.testbed.rack import Rack

    options, name = arguments.options(), arguments.name
    try:
        with Interrupts(), Rack(options) as rack:
            print(json.dumps(rack.facts()), flush=True)
            named = "" if name == "rack" else f"--name {name} "
            print(
                f"rack {name} is up: wiresum testbed exec {named}w0 -- COMMAND runs a command on "
                "a worker; Ctrl-C takes it down",
                file=sys.stderr,
                flush=True,
            )
            while True:
                time.sleep(_LOOK_S)
                news = rack.check()
                if news is not None:
                    print(f"wiresum: {news}", file=sys.stderr, flush=True)
    except Interrupted:
        return  # this is the normal end


def down(
    name: Name = "rack",
    every: Annotated[bool, Option("--all", help="All racks on record.")] = False,
) -> None:
    """Remove a rack, also one that has crashed: everything on record, and nothing else."""
    from wiresum.testbed import state

    for each in state.names() if every else [check_name(name)]:
        removed = state.down(each)
        if removed is None:
            print(f"there is no rack {each}")
        else:
            counts = f"{removed.namespaces} namespaces, {removed.processes} processes"
            print(f"rack {each} removed: {counts}")


def exec_(
    words: Annotated[list[str], Rest(unknown_options=True)],
    node: Annotated[str, Argument(help="w0, w1, …: a worker; s1: the switch.")],
    name: Name = "rack",
) -> None:
    """Run a command on a node of a rack: exec w0 -- COMMAND."""
    from wiresum.testbed import namespaces, state
    from wiresum.testbed.rack import environment

    record = state.load(check_name(name))
    if record is None or not record.owner.alive():
        known = ", ".join(state.names()) or "none"
        raise RackError(lines.NOT_UP.of(name=name, known=known))
    found = record.nodes.get(node)
    if found is None:
        raise RackUsageError(lines.NO_NODE.of(name=name, node=node, nodes=", ".join(record.nodes)))
    if not words:
        raise RackUsageError(lines.NO_COMMAND.of(node=node))
    if namespaces.inode(found.namespace) != found.inode:
        raise RackError(lines.OTHER_NAMESPACE.of(namespace=found.namespace, name=name))
    command = [*namespaces.enter(found.namespace), *words]
    sys.stdout.flush()
    os.execvpe(command[0], command, environment(found.variables))
