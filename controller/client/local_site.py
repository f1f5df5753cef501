"""A switch and a controller on this host, as child processes that end with this one."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from wiresum.common import logs
from wiresum.common.address import SHM_NETWORK, parse_endpoint
from wiresum.common.children import process
from wiresum.common.children.child import START_S, Child, SlowStart
from wiresum.common.patience import Patience
from wiresum.controller import lines
from wiresum.controller.client.client import ControllerClient, add_switch_request
from wiresum.controller.v1 import controller_pb2 as pb

_UDP, _SHM = 1, 2  # the ports of the switch

_LOOK_S = 0.05

Started = Callable[[str, Child], None]
"""Told of each child as soon as it runs: its name (the switch's, or ``controller``) and itself."""


@dataclass(frozen=True)
class SiteOptions:
    """What a local site is like.

    The switch is called ``name`` and has a UDP port at ``ip``:``udp_port`` (0: any) for workers in
    the network ``hosts``, and a port in shared memory behind the socket ``shm``, if that is given.
    ``enter`` stands before the switch's command, to run it in a network namespace. ``label``
    stands before "switch" and "controller" in error lines. Each step of the start may take
    ``limit_s`` seconds.
    """

    name: str = "s1"
    label: str = ""
    ip: str = "127.0.0.1"
    udp_port: int = 0
    hosts: str = "127.0.0.0/8"
    shm: Path | None = None
    lanes: int = 256
    enter: Sequence[str] = ()
    limit_s: float = START_S

    @property
    def the_switch(self) -> str:
        """The switch in error lines."""
        return f"the {self.label}switch"

    @property
    def the_controller(self) -> str:
        """The controller in error lines."""
        return f"the {self.label}controller"


class LocalSite:
    """A switch, and a controller that drives it. Use as a context manager.

    ``controller`` is where the controller listens, on loopback and without TLS; ``token`` is its
    admin's token. ``address`` is the switch's UDP port. Everything raises ``WiresumError``;
    :class:`~wiresum.common.children.child.ChildError` if a process did not start, or has ended.
    """

    def __init__(
        self,
        folder: Path,
        options: SiteOptions,
        env: Mapping[str, str],
        started: Started | None = None,
    ) -> None:
        """Start both and return when the controller drives the switch.

        ``folder``, which should be this user's alone, gets the socket of P4Runtime (whoever reaches
        it may load programs into the switch) and the logs. ``env`` is the processes' environment.
        """
        self.token = secrets.token_urlsafe(32)
        self.children: list[Child] = []
        self._folder = folder
        self._options = options
        # Their last lines are quoted in our errors: text, whatever the format of our own log.
        self._env = {**env, logs.VARIABLE: "text"}
        self._started = started
        limit_s = options.limit_s
        try:
            self.switch = self._start(options.name, options.the_switch, self._switch_command())
            controller = self._start("controller", options.the_controller, serve_controller())
            ready = self.switch.ready(limit_s)
            self.p4runtime = str(ready["p4runtime"])
            where = str(ready["ports"][str(_UDP)]).removeprefix("udp:")
            self.address = parse_endpoint(where, what=f"{options.the_switch}'s port")
            self.controller = str(controller.ready(limit_s)["address"])
            with ControllerClient(self.controller, token=self.token) as client:
                take_over(
                    client,
                    self._request(int(ready.get("device_id", 0))),
                    self.check,
                    limit_s,
                    who=options.the_controller,
                )
        except BaseException:
            self.close()
            raise

    def _switch_command(self) -> list[str]:
        options = self._options
        ports = ["--port", f"{_UDP}=udp:{options.ip}:{options.udp_port}"]
        if options.shm is not None:
            ports += ["--port", f"{_SHM}=shm:{options.shm}?net={SHM_NETWORK}"]
        p4runtime = f"unix:{self._folder / 'p4runtime.sock'}"
        serve = ["switch", "serve", "--lanes", str(options.lanes), "--p4runtime", p4runtime, *ports]
        command = [*process.module("wiresum.cli.main"), *serve, "--exit-with-parent"]
        return [*options.enter, *command]

    def _start(self, name: str, what: str, command: list[str]) -> Child:
        env = self._env
        if name == "controller":
            env = {**env, "WIRESUM_ADMIN_TOKEN": self.token}
        child = Child(what, command, self._folder / f"{name}.log", env=env, announces=True)
        self.children.append(child)
        if self._started is not None:
            self._started(name, child)
        return child

    def _request(self, device_id: int) -> pb.AddSwitchRequest:
        options = self._options
        hosts = [(options.hosts, _UDP)]
        if options.shm is not None:
            hosts.append((SHM_NETWORK, _SHM))
        return add_switch_request(
            options.name,
            p4runtime=self.p4runtime,
            ip=self.address.host,
            udp_port=self.address.port,
            hosts=hosts,
            lanes=options.lanes,
            device_id=device_id,
        )

    def check(self) -> None:
        """Raise ``ChildError`` if the switch or the controller has ended."""
        for child in self.children:
            child.check()

    def renew_switch(self) -> None:
        """Start the switch again, which has ended, with the ports that it had.

        The controller finds it by itself. Returns at once.
        """
        self.children.remove(self.switch)
        self.switch.end()
        self._options = replace(self._options, udp_port=self.address.port)
        options = self._options
        self.switch = self._start(options.name, options.the_switch, self._switch_command())

    def close(self) -> None:
        """Stop both, the controller first."""
        while self.children:
            # The switch is the first one, or the last one if it was renewed.
            last = len(self.children) > 1 and self.children[-1] is self.switch
            self.children.pop(-2 if last else -1).end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_controller(listen: str = "127.0.0.1:0", store: str = ":memory:") -> list[str]:
    """The command of a controller that lives as long as this process; it stores nothing by default.

    It listens on a loopback address without TLS; its admin's token is WIRESUM_ADMIN_TOKEN.
    """
    where = ["--listen", listen, "--store", store, "--plaintext"]
    command = [*process.module("wiresum.cli.main"), "controller", "serve", *where]
    return [*command, "--exit-with-parent"]


def take_over(
    client: ControllerClient,
    request: pb.AddSwitchRequest,
    check: Callable[[], object],
    limit_s: float = START_S,
    *,
    who: str = "the controller",
) -> None:
    """Tell a controller of its only switch and return when it drives it.

    ``check`` is called again and again: it raises if a process has ended. Raises
    :class:`SlowStart` after ``limit_s`` seconds, with ``who`` for the controller.
    """
    state = client.add_switch(request)
    patience = Patience(limit_s)
    while state.state != pb.SWITCH_STATE_UP:
        check()
        if patience.step() <= 0:
            raise SlowStart(
                lines.NOT_TAKEN_OVER.of(
                    who=who, limit_s=limit_s, why=state.reason or "no reason given"
                )
            )
        time.sleep(_LOOK_S)
        (state,) = client.list_switches()
