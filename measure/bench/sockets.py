"""The embedded switch over sockets, beside a reflector, which sends back what it gets.

One thread plays all workers, with trains of datagrams over loopback. Switch and reflector get the
same trains and send as many back; each has a process of its own.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from wiresum.common.children import process
from wiresum.controller.client.local_site import SiteOptions
from wiresum.measure import lines
from wiresum.measure.bench import cpu
from wiresum.measure.bench.site import BenchSite, plain
from wiresum.testbed import state
from wiresum.testbed.children import Child
from wiresum.testbed.errors import RackError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Sample:
    """Contributions per second, and the CPU seconds of a million of them."""

    rate: float
    cpu_target: float
    cpu_load: float

    def plain(self) -> dict[str, float]:
        """For the JSON."""
        return asdict(self)


class OverSockets:
    """A switch and a reflector, and a load for each. Use as a context manager."""

    def __init__(self, name: str, lanes: int, workers: int, slots: int) -> None:
        try:
            from wiresum.measure.bench import _native
        except ImportError:
            raise RackError(lines.NO_NATIVE_PART.of()) from None
        self._native = _native
        self._workers = workers
        self._lanes = lanes
        self._exits = ExitStack()
        try:
            self._record = state.create(name)
            self._exits.callback(state.remove, self._record)
            self._loads = {"switch": self._switch(slots), "kernel": self._reflector(slots)}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop both."""
        self._exits.close()

    def __enter__(self) -> "OverSockets":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sockets(self) -> list[socket.socket]:
        made = []
        for _ in range(self._workers):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.append(self._exits.enter_context(sock))
            sock.bind((LOOPBACK, 0))
        return made

    def _switch(self, slots: int) -> "_Load":
        options = SiteOptions(ip=LOOPBACK, hosts="127.0.0.0/8", lanes=self._lanes)
        site = self._exits.enter_context(BenchSite(self._record, options))
        session = site.job("bench", slots, field=32)
        sockets = self._sockets()
        places: Sequence[dict[str, Any]] = [
            {"ip": LOOPBACK, "udp_port": sock.getsockname()[1], "mac": ""} for sock in sockets
        ]
        lease = plain(site.join(session, places)[0])
        load = self._native.Load(
            [sock.fileno() for sock in sockets],
            ip=site.address.host,
            port=site.address.port,
            **{name: lease[name] for name in ("job", "epoch", "key", "slots", "lanes")},
        )
        return _Load(load, self._workers, site.cpu_s)

    def _reflector(self, slots: int) -> "_Load":
        command = [*process.module("wiresum.measure.bench.reflector"), LOOPBACK]
        log = self._record.folder / "reflector.log"
        child = Child("the reflector", command, log, announces=True)
        self._exits.callback(child.end)
        self._record.processes["reflector"] = child.mark
        self._record.save()
        load = self._native.Load(
            [sock.fileno() for sock in self._sockets()],
            ip=LOOPBACK,
            port=int(child.ready()["udp_port"]),
            slots=slots,
            lanes=self._lanes,
            reflected=True,
        )
        return _Load(load, self._workers, lambda: cpu.of_process(child.mark.pid))

    def sample(self, target: str, chunks: int) -> Sample:
        """Reduce ``chunks`` chunks over the ``switch``, or have them sent back by the ``kernel``.

        Raises :class:`RackError` for a wrong reply.
        """
        try:
            return self._loads[target].sample(chunks)
        except self._native.BenchError as error:
            raise RackError(lines.SOCKETS_FAILED.of(switch=target, why=error)) from None


class _Load:
    def __init__(self, load: Any, workers: int, target_cpu: Any) -> None:
        self._load = load
        self._workers = workers
        self._target_cpu = target_cpu

    def sample(self, chunks: int) -> Sample:
        target, own = self._target_cpu(), cpu.of_this_thread()
        seconds = self._load.run(chunks)
        contributions = chunks * self._workers
        return Sample(
            rate=contributions / seconds,
            cpu_target=(self._target_cpu() - target) / contributions * 1e6,
            cpu_load=(cpu.of_this_thread() - own) / contributions * 1e6,
        )
