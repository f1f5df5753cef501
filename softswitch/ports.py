"""Ports of the embedded switch: what users write, and the native ports made from it."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import parse_qsl

from wiresum.common.address import AddressError, parse_endpoint
from wiresum.common.errors import WiresumError
from wiresum.p4.packet import UDP_PORT
from wiresum.softswitch import _softswitch

MAX_PORT = 510
"""v1model's port numbers have 9 bits, and 511 means "drop"."""

IFNAMSIZ = 16


class PortError(WiresumError):
    """A port that cannot be understood or opened."""


@dataclass(frozen=True)
class PortSpec:
    """A port as the user wants it.

    ``kind`` is ``udp`` or ``raw``; ``host`` is an IPv4 address or an interface; ``port`` is a
    UDP port (udp only, 0: any); ``loss`` is the probability with which each frame is lost, in
    each direction.
    """

    number: int
    kind: str
    host: str
    port: int = 0
    loss: float = 0.0
    seed: int = 0


def parse_port(text: str) -> PortSpec:
    """Parse ``N=udp:HOST:PORT`` or ``N=raw:INTERFACE``, either with ``?loss=P&seed=S``.

    Raises :class:`PortError`.
    """
    number, equals, rest = text.partition("=")
    if not equals or not (number.isascii() and number.isdigit()) or int(number) > MAX_PORT:
        raise PortError(
            f"--port {text!r} must be N=udp:HOST:PORT or N=raw:INTERFACE, N from 0 to {MAX_PORT}"
        )
    where, _, query = rest.partition("?")
    kind, _, address = where.partition(":")
    loss, seed = _options(text, query)
    if kind == "udp":
        return PortSpec(int(number), kind, *_udp_address(text, address), loss, seed)
    if kind == "raw":
        if not address or len(address) >= IFNAMSIZ or "/" in address:
            raise PortError(f"--port {text!r}: {address!r} cannot be the name of an interface")
        return PortSpec(int(number), kind, address, 0, loss, seed)
    raise PortError(f"--port {text!r}: there are udp and raw ports, no {kind!r}")


def _udp_address(text: str, address: str) -> tuple[str, int]:
    try:
        endpoint = parse_endpoint(address, what=f"--port {text!r}:")
    except AddressError as error:
        raise PortError(str(error)) from error
    host = "127.0.0.1" if endpoint.host == "localhost" else endpoint.host
    try:
        IPv4Address(host)
    except AddressValueError as error:
        raise PortError(f"--port {text!r}: {host!r} is not an IPv4 address") from error
    return host, endpoint.port


def _options(text: str, query: str) -> tuple[float, int]:
    loss, seed = 0.0, 0
    try:
        for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            if name == "loss":
                loss = float(value)
            elif name == "seed":
                seed = int(value)
            else:
                raise PortError(f"--port {text!r}: the options are loss and seed, not {name!r}")
    except ValueError as error:
        raise PortError(f"--port {text!r}: {error}") from error
    if not 0 <= loss <= 1:
        raise PortError(f"--port {text!r}: loss is a probability from 0 to 1")
    if not 0 <= seed < 1 << 64:
        raise PortError(f"--port {text!r}: seed is a number from 0 to 2^64 - 1")
    return loss, seed


def _why(spec: PortSpec, error: OSError) -> str:
    if spec.kind == "udp":
        what = f"port {spec.number} (udp:{spec.host}:{spec.port})"
        reasons = {
            errno.EADDRINUSE: "the address is in use by another process",
            errno.EADDRNOTAVAIL: "the address is not one of this machine's",
            errno.EACCES: "UDP ports below 1024 need root",
        }
    else:
        what = f"port {spec.number} (raw:{spec.host})"
        reasons = {
            errno.ENODEV: "there is no such interface here",
            errno.EPERM: "raw ports need root or CAP_NET_RAW; udp ports need neither",
        }
    return f"cannot open {what}: {reasons.get(error.errno or 0, error.strerror or error)}"


class SwitchPorts:
    """The open ports of one switch and the thread that moves frames between them."""

    def __init__(self, specs: Iterable[PortSpec], cpu_port: int | None = None) -> None:
        """Open every port; raises :class:`PortError` with one line that says what is wrong.

        Frames that leave through ``cpu_port`` go to the controller.
        """
        if cpu_port is not None and not 0 <= cpu_port <= MAX_PORT:
            raise PortError(f"the CPU port {cpu_port} is not from 0 to {MAX_PORT}")
        self.native = _softswitch.Ports(cpu_port)
        self.addresses: dict[int, str] = {}
        for spec in specs:
            if spec.number in self.addresses or spec.number == cpu_port:
                raise PortError(f"port {spec.number} is given twice")
            try:
                if spec.kind == "udp":
                    bound = self.native.add_udp(
                        spec.number, spec.host, spec.port, UDP_PORT, spec.loss, spec.seed
                    )
                else:
                    bound = self.native.add_raw(spec.number, spec.host, spec.loss, spec.seed)
            except OSError as error:
                raise PortError(_why(spec, error)) from error
            self.addresses[spec.number] = f"{spec.kind}:{bound}"

    def stats(self) -> dict[str, dict[str, int]]:
        """Frames and bytes in and out and drops by name: per port, and ``switch`` between them.

        ``frames_out`` were handed to the kernel; of these it refused ``drop_out_full`` and
        ``drop_out_failed``.
        """
        stats: dict[str, dict[str, int]] = {
            str(number): counts for number, counts in self.native.stats().items()
        }
        stats["switch"] = {f"drop_{name}": count for name, count in self.native.drops().items()}
        return stats
