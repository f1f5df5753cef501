"""A rack: hosts with a link each to one switch, and a controller that drives it."""

import contextlib
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any, Self

from wiresum.common.address import parse_endpoint
from wiresum.common.signals import server_takes
from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.client.local_site import serve_controller, take_over
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed import lines, state
from wiresum.testbed.children import Child
from wiresum.testbed.errors import RackError
from wiresum.testbed.find_mininet import bring_mininet
from wiresum.testbed.forwarder import Forwarder
from wiresum.testbed.namespaces import attach, evict, inode, inode_of
from wiresum.testbed.options import RackOptions
from wiresum.testbed.processes import Mark
from wiresum.testbed.reaper import Reaper
from wiresum.testbed.state import Node

SWITCH = "s1"
SWITCH_IP = "10.0.0.254"
_LOOK_S = 0.05
_SHORT_LIFE_S = 2.0
_SHORT_LIVES = 3  # in a row: then a switch is not worth starting again


def worker_ip(number: int) -> str:
    """The address of worker ``number`` on the rack's network, 10.0.0.0/24."""
    return f"10.0.0.{number + 1}"


def _worker_mac(number: int) -> str:
    return f"02:00:0a:00:00:{number + 1:02x}"


class Rack:
    """A running rack; use as a context manager.

    ``controller`` (``http://127.0.0.1:PORT``) is valid here and, by a forwarder, on each worker;
    ``token`` is its admin's (that of WIRESUM_ADMIN_TOKEN, or a new one).
    """

    def __init__(self, options: RackOptions, *, durable: bool = False) -> None:
        """Say what to build; nothing is touched before the block is entered.

        ``durable``: the controller keeps its state in a file, so that it can be started again.
        """
        self.options = options.check()
        self._durable = durable
        self.controller = ""
        self.token = os.environ.get("WIRESUM_ADMIN_TOKEN") or secrets.token_urlsafe(32)
        self.switch: Any = None
        self.cable: Any = None
        self._exits = contextlib.ExitStack()
        self._record: state.Record | None = None
        self._reaper: Reaper | None = None
        self._net: Any = None
        self._control: Child | None = None
        self._client: ControllerClient | None = None
        self._started = 0.0
        self._short_lives = 0
        self._listen = "127.0.0.1:0"  # on a loopback of its own, as every worker's is
        self._forwarder: Forwarder | None = None
        self._killed: set[str] = set()  # what kill_switch and kill_controller have ended

    def __enter__(self) -> Self:
        """Build it; returns when the switch runs the program and knows its workers.

        Raises :class:`RackError`, with nothing left behind.
        """
        bring_mininet()
        from wiresum.testbed.switches import switch_class

        kind = switch_class(self.options.switch)
        self._record = state.create(self.options.name)
        try:
            self._reaper = Reaper(self._record)
            self._build(kind)
            self._start_controller()
            self._register()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take it down. A signal that comes meanwhile must not leave half of it behind."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in server_takes()}
        try:
            self._exits.close()
        finally:
            if self._record is not None:
                state.remove(self._record)
                self._record = None
            if self._reaper is not None:
                self._reaper.end()
                self._reaper = None
            for number, handler in before.items():
                signal.signal(number, handler)

    # ---- building

    def _build(self, kind: Any) -> None:
        from mininet.log import setLogLevel  # type: ignore[import-not-found]
        from mininet.net import Mininet  # type: ignore[import-not-found]

        from wiresum.testbed.links import RackLink

        setLogLevel("critical")  # what goes wrong comes as an exception
        self._net = net = Mininet(controller=None, switch=kind, link=RackLink)
        self._exits.callback(net.stop)
        self._exits.callback(self._evict)
        for number in range(self.options.workers):
            host = net.addHost(f"w{number}", ip=f"{worker_ip(number)}/24")
            self._name(
                host, GLOO_SOCKET_IFNAME=f"w{number}-eth0", TP_SOCKET_IFNAME=f"w{number}-eth0"
            )
        self.switch = net.addSwitch(SWITCH, folder=self.folder)
        self.switch.namespace = self._name(self.switch)
        if self.options.loss:
            from wiresum.testbed.loss import Cable

            cable = net.addHost("cable")
            self.cable = Cable(cable, self._name(cable), self.options.loss)
        for number in range(self.options.workers):
            self._link(number)
        if self.cable is not None:
            self.cable.begin()
        net.build()
        net.start()
        self._switch_started()

    def _name(self, node: Any, **variables: str) -> str:
        """Give a node's namespace a name that says whose it is; no IPv6 chatter in it."""
        namespace = f"wiresum-{self.options.name}-{node.name}"
        if inode(namespace) is not None:
            raise RackError(lines.NAMESPACE_LEFT.of(namespace=namespace))
        self.record.nodes[node.name] = Node(namespace, inode_of(node.pid), variables)
        self.record.save()
        attach(namespace, node.pid)
        for where in ("all", "default"):
            node.cmd(f"sysctl -qw net.ipv6.conf.{where}.disable_ipv6=1")
        node.cmd("ifconfig lo up")
        return namespace

    def _link(self, number: int) -> None:
        """One worker's link, with the cable in its middle if there is one.

        The rate is that of the two ends' sending sides.
        """
        options = self.options
        worker, port = self._net[f"w{number}"], number + 1
        shaped = {"bw": options.rate_mbit, "offloads": options.offloads}
        add = self._net.addLink
        if self.cable is None:
            add(worker, self.switch, port2=port, addr1=_worker_mac(number), **shaped)
            return
        plain = {"loss": self.cable.netem_percent}
        first = add(
            worker, self.cable.node, addr1=_worker_mac(number), params1=shaped, params2=plain
        )
        second = add(self.cable.node, self.switch, port2=port, params1=plain, params2=shaped)
        self.cable.join(number, (first.intf2.name, second.intf1.name))

    # ---- running

    def _run_controller(self) -> dict[str, Any]:
        """Start the controller's process; its ready line."""
        store = str(self.folder / "controller.sqlite") if self._durable else ":memory:"
        self._control = control = Child(
            "the controller",
            serve_controller(self._listen, store),
            self.folder / "controller.log",
            announces=True,
            env=os.environ | {"WIRESUM_ADMIN_TOKEN": self.token},
        )
        self._exits.callback(control.end)
        self.record.processes["controller"] = control.mark
        self.record.save()
        return control.ready()

    def _start_controller(self) -> None:
        ready = self._run_controller()
        self.controller, self._listen = str(ready["address"]), str(ready["listen"])
        self._start_forwarder()
        self._exits.callback(self._end_forwarder)
        for node in self.record.nodes.values():
            node.variables["WIRESUM_CONTROLLER"] = self.controller
            node.variables["WIRESUM_TOKEN"] = self.token
        self.record.save()
        self._client = ControllerClient(self.controller, token=self.token)
        self._exits.callback(self._client.close)

    def _start_forwarder(self) -> None:
        self._forwarder = Forwarder(
            parse_endpoint(self._listen, what="the controller"),
            [node.namespace for name, node in self.record.nodes.items() if name != "cable"],
        )

    def _end_forwarder(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()
            self._forwarder = None

    def _register(self) -> None:
        """Tell the controller of the switch, and wait until it drives it."""
        workers = range(self.options.workers)
        take_over(
            self.client,
            add_switch_request(
                SWITCH,
                p4runtime=self.switch.p4runtime,
                ip=SWITCH_IP,
                udp_port=UDP_PORT,
                hosts=[(f"{worker_ip(number)}/32", number + 1) for number in workers],
                lanes=self.options.lanes,
            ),
            self.check,
        )

    def _switch_started(self) -> None:
        self.record.processes[SWITCH] = self.switch.child.mark
        self.record.save()
        self._started = time.monotonic()

    def check(self) -> str | None:
        """See to the rack's processes: call it now and then.

        A switch that has ended is started again, as a hardware switch would be, without a program
        and without a message to the controller; the result is one line that says what happened.
        Raises :class:`RackError` if the controller has ended, or a switch over and over.
        """
        if self._control is not None and "controller" not in self._killed:
            self._control.check()
        child = self.switch.child
        if SWITCH in self._killed or child.process.poll() is None:
            return None
        obituary = str(child.obituary())
        short = time.monotonic() - self._started < _SHORT_LIFE_S
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= _SHORT_LIVES:
            raise RackError(lines.SWITCH_DIES_AGAIN.of(last_words=obituary, times=_SHORT_LIVES))
        self.restart_switch()
        return f"{obituary}; started again"

    def restart_switch(self) -> None:
        """Start the switch anew; its state is lost."""
        self.switch.start()
        self._killed.discard(SWITCH)
        self._switch_started()

    def kill_switch(self) -> None:
        """SIGKILL to the switch; it stays down until :meth:`restart_switch`."""
        self._killed.add(SWITCH)
        self.switch_mark.send(signal.SIGKILL)

    def kill_controller(self) -> None:
        """SIGKILL to the controller of a durable rack, until :meth:`restart_controller`."""
        assert self._durable, "the controller would forget all jobs"
        self._killed.add("controller")
        self.record.processes["controller"].send(signal.SIGKILL)
        self._end_forwarder()  # connections are refused now, as by a host without a controller

    def restart_controller(self) -> None:
        """Start the controller again, at the same address and with the same store."""
        assert self._control is not None, "the rack is not up"
        self._control.end()
        self._run_controller()
        self._start_forwarder()
        self._killed.discard("controller")

    def _evict(self) -> None:
        """End what users have left running in the rack; Mininet's own shells end with it."""
        nodes, shells = self.record.nodes, self.shells()
        if self.switch is not None:
            self.switch.end()
        evict([node.namespace for node in nodes.values()], keep=shells)

    # ---- asking

    @property
    def record(self) -> state.Record:
        """The rack's record."""
        assert self._record is not None, "the rack is not up"
        return self._record

    @property
    def client(self) -> ControllerClient:
        """A connection to its controller."""
        assert self._client is not None, "the rack is not up"
        return self._client

    @property
    def folder(self) -> Path:
        """Where its sockets and logs are."""
        return self.record.folder

    @property
    def workers(self) -> list[str]:
        """The names of its hosts."""
        return [f"w{number}" for number in range(self.options.workers)]

    def shells(self) -> list[int]:
        """The processes that hold the nodes' namespaces."""
        return [int(self._net[name].pid) for name in self.record.nodes]

    @property
    def switch_mark(self) -> Mark:
        """The switch's process."""
        return self.record.processes[SWITCH]

    def state(self) -> pb.Switch:
        """The switch as the controller sees it, with the counts of what it has dropped."""
        return self.client.list_switches(counters=True)[0]

    def variables(self, node: str) -> dict[str, str]:
        """The environment of commands on a node."""
        return environment(self.record.nodes[node].variables)

    def facts(self) -> dict[str, Any]:
        """The facts of the rack, for users and scripts."""
        return {
            "name": self.options.name,
            "switch": self.options.switch,
            "lanes": self.options.lanes,
            "controller": self.controller,
            "p4runtime": self.switch.p4runtime,
            "switch_address": f"{SWITCH_IP}:{UDP_PORT}",
            "switch_pid": self.switch_mark.pid,
            "workers": {name: worker_ip(i) for i, name in enumerate(self.workers)},
            "namespaces": {name: node.namespace for name, node in self.record.nodes.items()},
            "loss": self.cable.by if self.cable is not None else None,
            "logs": str(self.folder),
        }


def environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment for a command on a node: without other jobs, with our commands."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_JOB")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    return {**env, **variables, "PATH": path}
