"""The benchmark's switch and controller, and the leases of its workers."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wiresum.common.address import parse_endpoint
from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.environment import SlotRequest
from wiresum.host_agent.launcher import process
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure.bench import cpu
from wiresum.measure.bench.links import SWITCH, SWITCH_IP
from wiresum.p4 import MAX_WORKERS
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed.children import START_S, Child
from wiresum.testbed.errors import RackError
from wiresum.testbed.state import Record

JOIN_S = 60.0
_PORT, _SHM_PORT = 1, 2
_SHM_HOSTS = "127.77.0.0/16"
_LOOK_S = 0.05


@dataclass(frozen=True)
class Place:
    """Where a switch shall be: its data-plane address, its hosts, what enters its namespace.

    A UDP port of 0 is any. ``shm``: the socket of a shm port, if it shall have one.
    """

    ip: str = SWITCH_IP
    udp_port: int = UDP_PORT
    hosts: str = "10.0.0.0/24"
    enter: tuple[str, ...] = ()
    shm: Path | None = None


class Control:
    """A softswitch with one udp port, and a controller that drives it.

    The controller has no place in the workers' network: the benchmark joins for them, with the
    addresses of their sockets. Use as a context manager. Everything raises ``WiresumError``.
    """

    def __init__(self, record: Record, place: Place, lanes: int) -> None:
        self._record = record
        self._place = place
        self._lanes = lanes
        self._token = secrets.token_urlsafe(32)
        self._attempts: Counter[str] = Counter()
        self._exits = ExitStack()
        try:
            self._switch = self._start_switch()
            self._controller = self._start_controller()
            self._client = self._exits.enter_context(
                ControllerClient(self._controller, token=self._token)
            )
            self._register()
            self._pool = self._exits.enter_context(ThreadPoolExecutor(MAX_WORKERS))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop them."""
        self._exits.close()

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(
        self, what: str, name: str, command: list[str], env: Mapping[str, str] | None = None
    ) -> Child:
        log = self._record.folder / f"{name}.log"
        child = Child(what, command, log, env=env, announces=True)
        self._exits.callback(child.end)
        self._record.processes[name] = child.mark
        self._record.save()
        return child

    def _start_switch(self) -> Child:
        port = f"{_PORT}=udp:{self._place.ip}:{self._place.udp_port}"
        serve = ["--lanes", str(self._lanes), "--port", port, "--p4runtime", self._p4runtime]
        if self._place.shm is not None:
            serve += ["--port", f"{_SHM_PORT}=shm:{self._place.shm}?net={_SHM_HOSTS}"]
        command = [*process.module("wiresum.softswitch"), *serve, "--exit-with-parent"]
        return self._start("the switch", SWITCH, [*self._place.enter, *command])

    @property
    def _p4runtime(self) -> str:
        return f"unix:{self._record.folder / 'p4runtime'}"

    def _start_controller(self) -> str:
        serve = ["controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:"]
        serve += ["--plaintext"]
        command = [*process.module("wiresum.cli.main"), *serve, "--exit-with-parent"]
        env = os.environ | {"WIRESUM_ADMIN_TOKEN": self._token}
        return str(self._start("the controller", "controller", command, env).ready()["address"])

    def _register(self) -> None:
        where = str(self._switch.ready()["ports"][str(_PORT)]).removeprefix("udp:")
        self.address = parse_endpoint(where, what="the switch's port")
        request = add_switch_request(
            SWITCH,
            p4runtime=self._p4runtime,
            ip=self.address.host,
            udp_port=self.address.port,
            hosts=[
                (self._place.hosts, _PORT),
                *([(_SHM_HOSTS, _SHM_PORT)] if self._place.shm is not None else []),
            ],
            lanes=self._lanes,
        )
        state = self._client.add_switch(request)
        deadline = time.monotonic() + START_S
        while state.state != pb.SWITCH_STATE_UP:
            if time.monotonic() > deadline:
                raise RackError(
                    f"the controller has not taken over its switch within {START_S:g} s: "
                    f"{state.reason or 'no reason given'}"
                )
            time.sleep(_LOOK_S)
            (state,) = self._client.list_switches()

    def job(self, name: str, slots: int, field: int) -> Session:
        """A job that lives as long as this."""
        options = JobOptions(
            controller=self._controller,
            field=field,
            name=name,
            slots=SlotRequest(slots),
            token=self._token,
        )
        return self._exits.enter_context(Session(options))

    def join(self, session: Session, places: Sequence[Mapping[str, Any]]) -> list[pb.Lease]:
        """Join ranks 0, 1, … to a new attempt of a job; a place is an ip, udp_port and mac."""
        session.check()
        job, field = session.job, session.environment.field
        self._attempts[job.id] += 1

        def join(rank: int) -> pb.Lease:
            return self._client.join_job(
                job.id, job.token, rank=rank, workers=len(places),
                attempt=self._attempts[job.id], field=field, timeout_s=JOIN_S, **places[rank],
            )  # fmt: skip

        return list(self._pool.map(join, range(len(places))))

    def cpu_s(self) -> float:
        """CPU seconds that the switch has used. Raises :class:`RackError` if it has ended."""
        if self._switch.process.poll() is not None:
            raise RackError(self._switch.obituary())
        return cpu.of_process(self._switch.mark.pid)


def plain(lease: pb.Lease) -> dict[str, Any]:
    """What the engine needs of a lease."""
    names = (
        "switch_ip", "switch_udp_port", "switch_name", "rank", "workers", "job", "epoch", "key",
        "reply_key", "slots", "lanes",
    )  # fmt: skip
    return {name: getattr(lease, name) for name in names}
