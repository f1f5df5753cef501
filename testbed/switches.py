"""P4Runtime switches as Mininet nodes: BMv2 and the embedded switch.

Each runs in a namespace of its own, with its links' ends as ports 1, 2, … and its P4Runtime server
on a Unix socket, which every namespace can reach. Import it after ``bring_mininet()`` only.
"""

import contextlib
from pathlib import Path
from typing import Any

from mininet.node import Switch  # type: ignore[import-not-found]

from wiresum.common.children import process
from wiresum.testbed import find_bmv2
from wiresum.testbed.children import Child
from wiresum.testbed.errors import RackError
from wiresum.testbed.namespaces import enter


class RackSwitch(Switch):  # type: ignore[misc]
    """A switch that a P4Runtime controller drives; Mininet's controllers mean nothing to it."""

    label = ""
    process: type[Child] = Child
    announces = False
    """Whether its first line of output says that it serves."""

    def __init__(self, name: str, folder: Path, namespace: str = "", **parameters: Any) -> None:
        """``folder`` gets its socket and its log."""
        super().__init__(name, **{**parameters, "inNamespace": True})
        self.controlIntf = None  # Mininet asks for it
        self.namespace = namespace
        self.socket = folder / f"{name}.p4runtime"
        self.log = folder / f"{name}.log"
        self.child: Child | None = None

    @property
    def p4runtime(self) -> str:
        """Where its P4Runtime server is."""
        return f"unix:{self.socket}"

    def start(self, _controllers: Any = ()) -> None:
        """Start it, or start it again; returns when its P4Runtime server answers."""
        self.end()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()  # the socket of an earlier one would look like a server
        what = f"switch {self.name} ({self.label})"
        command = [*enter(self.namespace), *self.command()]
        self.child = self.process(what, command, self.log, announces=self.announces)
        self.wait()

    def interfaces(self) -> dict[int, str]:
        """Its interfaces by port number."""
        return {number: str(self.intfs[number]) for number in sorted(self.intfs)}

    def command(self) -> list[str]:
        """What to run."""
        raise NotImplementedError

    def wait(self) -> None:
        """Return when it serves."""
        assert self.child is not None
        self.child.serves(self.socket)

    def end(self) -> None:
        """Stop it."""
        if self.child is not None:
            self.child.end()
            self.child = None

    def stop(self, deleteIntfs: bool = True) -> None:
        """Mininet's name for the end of a switch."""
        self.end()
        super().stop(deleteIntfs)


class Bmv2(RackSwitch):
    """BMv2's ``simple_switch_grpc``."""

    label = "BMv2"
    process = find_bmv2.Bmv2Process

    @staticmethod
    def missing() -> str | None:
        """Why it cannot run here; None if it can."""
        return find_bmv2.why_not()

    def command(self) -> list[str]:
        """Its device id is 0, as everywhere here."""
        ports = [f"-i{number}@{interface}" for number, interface in self.interfaces().items()]
        target = ["--", "--grpc-server-addr", self.p4runtime]
        return [find_bmv2.BINARY, "--no-p4", "--device-id", "0", *ports, *target]


class Soft(RackSwitch):
    """The embedded switch on raw ports."""

    label = "softswitch"
    announces = True

    @staticmethod
    def missing() -> str | None:
        """Nothing: it comes with the package."""
        return None

    def command(self) -> list[str]:
        """It starts without a program: the controller brings it, as to BMv2."""
        ports = [f"--port={number}=raw:{name}" for number, name in self.interfaces().items()]
        serve = [*process.module("wiresum.softswitch"), *ports, "--p4runtime", self.p4runtime]
        return [*serve, "--exit-with-parent"]

    def wait(self) -> None:
        """It says so itself."""
        assert self.child is not None
        self.child.ready()


CLASSES: dict[str, type[Bmv2] | type[Soft]] = {"bmv2": Bmv2, "soft": Soft}


def switch_class(kind: str) -> type[Bmv2] | type[Soft]:
    """The node class of that name. Raises :class:`RackError` if it cannot run here."""
    found = CLASSES[kind]
    reason = found.missing()
    if reason is not None:
        raise RackError(reason)
    return found
