"""The ranks of each side: forked by the nursery, driven over sockets."""

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wiresum.common.children import process
from wiresum.measure import lines
from wiresum.measure.bench import cpu
from wiresum.measure.bench.links import INTERFACE, Star
from wiresum.testbed.errors import RackError

START_S = 120.0
_LEAVE_S = 20.0
_READ = 1 << 16

Order = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """What the ranks of a side join."""

    name: str
    backend: str
    ranks: int
    field: int | None
    """None: the check takes the sums for float32's."""
    env: Mapping[str, str]
    limit_s: float
    """How long a collective may take."""


class Nursery:
    """The process that forks ranks; use as a context manager."""

    def __init__(self, star: Star, data: Path) -> None:
        """Start it, from the main thread; returns when it has imported torch."""
        self.star, self.data = star, data
        self.folder = star.record.folder
        self.made = 0
        self._log = self.folder / "nursery.log"
        with self._log.open("ab") as errors:
            self._process = process.start(
                process.module("wiresum.measure.bench.collectives.nursery"),
                supervised=False,
                options=process.ProcessOptions(
                    env=_variables(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                ),
            )
        try:
            self._ready()
        except BaseException:
            self.close()
            raise

    def _ready(self) -> None:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_S)[0]:
            raise RackError(lines.NO_ANSWER.of(process="the process that forks the ranks"))
        if not self._process.stdout.readline():
            status = process.exit_status(self._process.wait())
            part = "the process that forks the ranks"
            said = last_words(self._log)
            raise RackError(lines.PART_ENDED.of(part=part, status=status, last_words=said))

    def fork(self, places: Sequence[Order]) -> None:
        """Make a rank for each place."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # then nobody connects
            self._process.stdin.write(json.dumps(places).encode() + b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End it, and all ranks with it."""
        process.end(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # an order may be left in it
                    stream.close()

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Member:
    """One rank."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self._log = name, log
        self.connection: socket.socket | None = None
        self.pid = 0
        self._rest = b""

    def tell(self, order: Order) -> None:
        """Give an order."""
        assert self.connection is not None
        try:
            self.connection.sendall(json.dumps(order).encode() + b"\n")
        except OSError:
            raise RackError(self.obituary()) from None

    def answer(self, deadline: float) -> Order:
        """Its next answer. Raises :class:`RackError` if that is an error, or none comes."""
        assert self.connection is not None
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.connection], [], [], left)[0]:
                raise RackError(lines.NO_ANSWER.of(process=self.name))
            data = b""
            with contextlib.suppress(OSError):
                data = self.connection.recv(_READ)
            if not data:
                raise RackError(self.obituary())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: Order = json.loads(line)
        if "error" in answer:
            raise RackError(lines.PROCESS_FAILED.of(process=self.name, why=answer["error"]))
        return answer

    def obituary(self) -> str:
        """One line about its end."""
        return lines.PROCESS_FAILED.of(process=self.name, why=last_words(self._log))

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        try:
            return cpu.of_process(self.pid)
        except OSError:
            raise RackError(self.obituary()) from None


class Crew:
    """All ranks of one side; use as a context manager."""

    def __init__(self, nursery: Nursery, group: Group) -> None:
        """Fork the ranks, and let them join their group."""
        self._limit_s = group.limit_s
        nursery.made += 1
        folder, number = nursery.folder, nursery.made
        self._members = [
            Member(f"rank {rank} of {group.name}", folder / f"{number}-{rank}.log")
            for rank in range(group.ranks)
        ]
        try:
            with socket.socket(socket.AF_UNIX) as server:
                path = folder / f"{number}.sock"
                server.bind(str(path))
                server.listen(group.ranks)
                nursery.fork(
                    [
                        {
                            "rank": rank,
                            "world": group.ranks,
                            "namespace": nursery.star.namespace(f"w{rank}"),
                            "backend": group.backend,
                            "field": group.field,
                            "env": _variables()
                            | dict(group.env)
                            | {"GLOO_SOCKET_IFNAME": INTERFACE},
                            "log": str(folder / f"{number}-{rank}.log"),
                            "socket": str(path),
                            "store": str(folder / f"{number}.store"),
                            "data": str(nursery.data),
                            "limit_s": group.limit_s,
                        }
                        for rank in range(group.ranks)
                    ]
                )
                self._meet(server)
            self.all("join", limit_s=START_S)
        except BaseException:
            self._drop()
            raise

    def _meet(self, server: socket.socket) -> None:
        deadline = time.monotonic() + START_S
        for _ in self._members:
            server.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                connection, _address = server.accept()
            except TimeoutError:
                silent = next(each for each in self._members if each.connection is None)
                raise RackError(silent.obituary()) from None
            newcomer = Member("a rank", Path(os.devnull))
            newcomer.connection = connection
            said = newcomer.answer(deadline)
            member = self._members[said["rank"]]
            member.connection, member.pid = connection, said["pid"]

    def all(self, do: str, /, *, limit_s: float | None = None, **order: Any) -> list[Order]:
        """Give all ranks the same order; their answers, when all have answered."""
        return self.each([{"do": do, **order}] * len(self._members), limit_s)

    def each(self, orders: Sequence[Order], limit_s: float | None = None) -> list[Order]:
        """Give each rank an order of its own; their answers, when all have answered."""
        for member, order in zip(self._members, orders, strict=True):
            member.tell(order)
        deadline = time.monotonic() + (limit_s or 2 * self._limit_s)
        return [member.answer(deadline) for member in self._members]

    def cpu_s(self) -> list[float]:
        """CPU seconds of each rank."""
        return [member.cpu_s() for member in self._members]

    def close(self) -> None:
        """Let the ranks leave their group together, and end."""
        with contextlib.suppress(RackError):
            self.all("leave", limit_s=_LEAVE_S)
        self._drop()

    def _drop(self) -> None:
        for member in self._members:
            if member.connection is not None:
                member.connection.close()  # at which the rank ends
                member.connection = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._drop()


def last_words(log: Path) -> str:
    """The last line of a log."""
    try:
        said = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        said = []
    return said[-1] if said else "no reason given"


def _variables() -> dict[str, str]:
    """This process's environment, without what concerns wiresum."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
    return mine | {"OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
