"""The benchmark's switch and controller, and the leases of its workers."""

import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.launcher.session import Session
from wiresum.p4.packet import UDP_PORT
from wiresum.testbed.bench import cpu
from wiresum.testbed.bench.crew import Crew
from wiresum.testbed.bench.links import SWITCH, SWITCH_IP, Star
from wiresum.testbed.children import START_S, Child
from wiresum.testbed.errors import RackError

JOIN_S = 60.0
_PORT = 1
_LOOK_S = 0.05


class Control:
    """A softswitch on the bridge's address, a controller that drives it, and a job for each field.

    The controller has no place in the workers' network: the benchmark joins for them, with the
    addresses of their sockets. Use as a context manager.
    """

    def __init__(self, star: Star, fields: Sequence[int], lanes: int, slots: int) -> None:
        self._star = star
        self._lanes = lanes
        self._token = secrets.token_urlsafe(32)
        self._exits = ExitStack()
        self._attempts = dict.fromkeys(fields, 0)
        try:
            self._switch = self._start_switch()
            controller = self._start_controller()
            self._client = self._exits.enter_context(
                ControllerClient(controller, token=self._token)
            )
            self._register()
            self._sessions = {
                field: self._exits.enter_context(
                    Session(
                        controller,
                        field=field,
                        name=f"bench-{field}",
                        slots=slots,
                        token=self._token,
                    )
                )
                for field in fields
            }
            self._pool = self._exits.enter_context(ThreadPoolExecutor(star.workers))
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
        log = self._star.record.folder / f"{name}.log"
        child = Child(what, command, log, env=env, announces=True)
        self._exits.callback(child.end)
        self._star.record.processes[name] = child.mark
        self._star.record.save()
        return child

    def _start_switch(self) -> Child:
        port = f"{_PORT}=udp:{SWITCH_IP}:{UDP_PORT}"
        serve = ["--lanes", str(self._lanes), "--port", port, "--p4runtime", self._p4runtime]
        command = [sys.executable, "-m", "wiresum.softswitch", *serve, "--exit-with-parent"]
        return self._start("the switch", SWITCH, [*self._star.enter(SWITCH), *command])

    @property
    def _p4runtime(self) -> str:
        return f"unix:{self._star.record.folder / 'p4runtime'}"

    def _start_controller(self) -> str:
        serve = ["controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:"]
        serve += ["--plaintext"]
        command = [sys.executable, "-m", "wiresum.cli.main", *serve, "--exit-with-parent"]
        env = os.environ | {"WIRESUM_ADMIN_TOKEN": self._token}
        return str(self._start("the controller", "controller", command, env).ready()["address"])

    def _register(self) -> None:
        self._switch.ready()
        request = add_switch_request(
            SWITCH,
            p4runtime=self._p4runtime,
            ip=SWITCH_IP,
            udp_port=UDP_PORT,
            hosts=[("10.0.0.0/24", _PORT)],
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

    def join(self, crew: Crew, workers: int, field: int) -> pb.Lease:
        """Give the first workers of a crew an engine on the job with this field; rank 0's lease."""
        self._attempts[field] += 1
        session = self._sessions[field]
        session.check()
        places = crew.all(workers, "bind", field=field, switch_ip=SWITCH_IP)

        def join(rank: int) -> pb.Lease:
            return self._client.join_job(
                session.job.id, session.job.token, rank=rank, workers=workers,
                attempt=self._attempts[field], field=field, timeout_s=JOIN_S, **places[rank],
            )  # fmt: skip

        leases = list(self._pool.map(join, range(workers)))
        crew.each([{"do": "lease", "field": field, "lease": _plain(lease)} for lease in leases])
        return leases[0]

    def cpu_s(self) -> float:
        """CPU seconds that the switch has used. Raises :class:`RackError` if it has ended."""
        if self._switch.process.poll() is not None:
            raise RackError(self._switch.obituary())
        return cpu.of_process(self._switch.mark.pid)


def _plain(lease: pb.Lease) -> dict[str, Any]:
    """What the engine needs of a lease."""
    names = (
        "switch_ip", "switch_udp_port", "switch_name", "rank", "workers", "job", "epoch", "key",
        "slots", "lanes",
    )  # fmt: skip
    return {name: getattr(lease, name) for name in names}
