"""A switch and a controller of its own for one run, as child processes on this host."""

import json
import os
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from wiresum.common import logs
from wiresum.common.address import parse_endpoint
from wiresum.common.errors import WiresumError
from wiresum.common.patience import Patience
from wiresum.common.temporary import PrivateFolder
from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.environment import without_secrets
from wiresum.host_agent.launcher import process

START_S = 60.0
NAME = "embedded"
LANES = 256
UDP_PORT, SHM_PORT = 1, 2
"""The switch's ports. Workers come from 127.0.0.0/8 or, through shared memory, from SHM_HOSTS."""

SHM_HOSTS = "127.77.0.0/16"
_PASSING = ("--store", ":memory:", "--plaintext")
_LINE_LIMIT = 65536
_LOOK_S = 0.2


class EmbeddedError(WiresumError):
    """The embedded switch or controller did not start, or has ended."""


class Part:
    """One child process that says in one line of JSON on stdout that it serves."""

    def __init__(
        self,
        what: str,
        command: list[str],
        limit_s: float,
        env: Mapping[str, str] | None = None,
        *,
        scratch: Path | None = None,
    ) -> None:
        """Start ``command`` and wait for its line. Raises :class:`EmbeddedError`.

        What it writes to stderr is kept in the folder ``scratch`` (None: the system's choice).
        """
        self.what = what
        self._stderr: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 (end closes)
        self.process = process.start(
            command,
            supervised=False,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        try:
            self.ready = self._ready_line(limit_s)
        except BaseException:
            self.end()
            raise

    def _ready_line(self, limit_s: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        patience = Patience(limit_s)
        line = b""
        while not line.endswith(b"\n"):
            if patience.step(_LOOK_S) <= 0:
                raise EmbeddedError(
                    f"the embedded {self.what} did not start within {limit_s:g} s{self._said()}"
                )
            if not select.select([fd], [], [], _LOOK_S)[0]:
                continue
            data = os.read(fd, _LINE_LIMIT)
            if not data:
                self.process.wait()
                raise EmbeddedError(self.obituary("did not start"))
            line += data
        try:
            ready = json.loads(line)
        except ValueError:
            ready = None
        if not isinstance(ready, dict):
            text = line[:200].decode(errors="replace").strip()
            raise EmbeddedError(f"the embedded {self.what} said {text!r} instead of being ready")
        return ready

    def obituary(self, verb: str = "has ended") -> str:
        """One line that says how the process ended and its last words."""
        status = process.exit_status(self.process.wait())
        return f"the embedded {self.what} {verb} (status {status}){self._said()}"

    def _said(self) -> str:
        self._stderr.flush()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _LINE_LIMIT))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1]}" if said else ""

    def end(self) -> None:
        """Stop the process."""
        process.end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()


class Embedded:
    """The pair. Use as a context manager.

    ``controller`` is where the controller listens, on loopback and without TLS; ``token`` is what
    it asks of whoever wants something. ``shm`` is the socket of the switch's shm port, if it has
    one. ``folder`` holds the sockets of this run: it is this user's alone.
    """

    def __init__(self, limit_s: float = START_S, *, shm: bool = True) -> None:
        self._parts: list[Part] = []
        self.token = secrets.token_urlsafe(32)
        self.folder = PrivateFolder("run", for_sockets=True)
        self.shm = str(self.folder.path / "shm.sock") if shm else ""
        # Whoever reaches P4Runtime may load programs into the switch: no other user of this host.
        p4runtime = f"unix:{self.folder.path / 'p4runtime.sock'}"
        ports = ["--port", f"{UDP_PORT}=udp:127.0.0.1:0"]
        if shm:
            ports += ["--port", f"{SHM_PORT}=shm:{self.shm}?net={SHM_HOSTS}"]
        try:
            switch = self._start(
                "switch",
                ["switch", "serve", "--lanes", str(LANES), "--p4runtime", p4runtime, *ports],
                limit_s,
                {},
            )
            controller = self._start(
                "controller",
                [
                    "controller",
                    "serve",
                    "--listen",
                    "127.0.0.1:0",
                    "--store",
                    ":memory:",
                    "--plaintext",
                ],
                limit_s,
                {"WIRESUM_ADMIN_TOKEN": self.token},
            )
            self.controller = f"http://{controller.ready['listen']}"
            self._register(switch.ready, limit_s)
        except BaseException:
            self.close()
            raise

    def _start(self, what: str, command: list[str], limit_s: float, env: dict[str, str]) -> Part:
        cli = [*process.module("wiresum.cli.main"), *command, "--exit-with-parent"]
        # Its last line is quoted in our errors: text, whatever the format of our own log.
        env = {**without_secrets(os.environ), logs.VARIABLE: "text", **env}
        part = Part(what, cli, limit_s, env, scratch=self.folder.path)
        self._parts.append(part)
        return part

    def _register(self, switch: dict[str, Any], limit_s: float) -> None:
        where = parse_endpoint(
            str(switch["ports"][str(UDP_PORT)]).removeprefix("udp:"),
            what="the embedded switch's port",
        )
        request = add_switch_request(
            NAME,
            p4runtime=str(switch["p4runtime"]),
            ip=where.host,
            udp_port=where.port,
            hosts=[("127.0.0.0/8", UDP_PORT), *([(SHM_HOSTS, SHM_PORT)] if self.shm else [])],
            lanes=LANES,
            device_id=int(switch.get("device_id", 0)),
        )
        patience = Patience(limit_s)
        with ControllerClient(self.controller, token=self.token) as client:
            state = client.add_switch(request)
            while state.state != pb.SWITCH_STATE_UP:
                self.check()
                if patience.step() <= 0:
                    raise EmbeddedError(
                        f"the embedded controller has not taken over its switch within "
                        f"{limit_s:g} s: {state.reason or 'no reason given'}"
                    )
                time.sleep(0.05)
                state = client.list_switches()[0]

    def check(self) -> None:
        """Raise :class:`EmbeddedError` if a part has ended."""
        for part in self._parts:
            if part.process.poll() is not None:
                raise EmbeddedError(part.obituary())

    def close(self) -> None:
        """Stop both, the controller first, and remove the folder."""
        while self._parts:
            self._parts.pop().end()
        self.folder.close()

    def __enter__(self) -> "Embedded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
