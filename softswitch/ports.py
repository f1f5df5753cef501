"""Ports of the embedded switch: what users write, and the native ports made from it."""

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from urllib.parse import parse_qsl

from wiresum.common.address import SHM_NETWORK, AddressError, parse_endpoint
from wiresum.common.errors import LineText, WiresumError
from wiresum.p4 import MAX_PORT
from wiresum.p4.packet import UDP_PORT
from wiresum.softswitch import _softswitch, lines

IFNAMSIZ = 16

_SHM_NETWORK = IPv4Network(SHM_NETWORK)
"""Where the workers of a shm port get their addresses from, unless the user says otherwise."""

_SHM_PATH_BYTES = 107  # sockaddr_un
_WIDEST, _NARROWEST = 8, 29  # prefixes of such a network


class PortError(WiresumError):
    """A port that cannot be understood or opened."""


@dataclass(frozen=True)
class PortSpec:
    """A port as the user wants it.

    ``kind`` is ``udp``, ``raw`` or ``shm``; ``host`` is an IPv4 address, an interface or the path
    of a socket; ``port`` is a UDP port (udp only, 0: any); ``loss`` is the probability with which
    each frame is lost, in each direction. Of a shm port, ``network`` is where its workers'
    addresses come from, ``switch_ip`` the address that their frames go to (None: the first udp
    port's, else the network's first), ``mode`` the mode of the socket's file.
    """

    number: int
    kind: str
    host: str
    port: int = 0
    loss: float = 0.0
    seed: int = 0
    network: IPv4Network = _SHM_NETWORK
    switch_ip: IPv4Address | None = None
    mode: int = 0o600


def parse_port(text: str) -> PortSpec:
    """Parse ``N=udp:HOST:PORT``, ``N=raw:INTERFACE`` or ``N=shm:PATH``.

    Each may go on with ``?loss=P&seed=S``, a shm port with ``net=CIDR``, ``ip=ADDRESS`` and
    ``mode=OCTAL`` too. Raises :class:`PortError`.
    """
    number, equals, rest = text.partition("=")
    if not equals or not (number.isascii() and number.isdigit()) or int(number) > MAX_PORT:
        raise PortError(lines.NOT_A_PORT.of(text=text, most=MAX_PORT))
    where, _, query = rest.partition("?")
    kind, _, address = where.partition(":")
    options = _options(text, query, _SHM_OPTIONS if kind == "shm" else ())
    loss, seed = _loss(text, options)
    if kind == "udp":
        return PortSpec(int(number), kind, *_udp_address(text, address), loss, seed)
    if kind == "raw":
        if not address or len(address) >= IFNAMSIZ or "/" in address:
            raise PortError(lines.NOT_AN_INTERFACE.of(text=text, name=address))
        return PortSpec(int(number), kind, address, 0, loss, seed)
    if kind == "shm":
        if not address or len(address.encode()) > _SHM_PATH_BYTES:
            raise PortError(lines.SOCKET_PATH.of(text=text, most=_SHM_PATH_BYTES))
        return PortSpec(int(number), kind, address, 0, loss, seed, *_shm(text, options))
    raise PortError(lines.UNKNOWN_PORT_KIND.of(text=text, kind=kind))


def _udp_address(text: str, address: str) -> tuple[str, int]:
    try:
        endpoint = parse_endpoint(address, what=f"--port {text!r}:")
    except AddressError as error:
        raise PortError(str(error)) from error
    host = "127.0.0.1" if endpoint.host == "localhost" else endpoint.host
    try:
        IPv4Address(host)
    except AddressValueError as error:
        raise PortError(lines.NOT_IPV4.of(text=text, host=host)) from error
    return host, endpoint.port


_SHM_OPTIONS = ("net", "ip", "mode")


def _options(text: str, query: str, more: Sequence[str]) -> dict[str, str]:
    known = ("loss", "seed", *more)
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise PortError(lines.PORT_OPTIONS.of(text=text, why=error)) from error
    for name, _ in options:
        if name not in known:
            names = f"{', '.join(known[:-1])} and {known[-1]}"
            raise PortError(lines.UNKNOWN_PORT_OPTION.of(text=text, known=names, name=name))
    return dict(options)


def _loss(text: str, options: dict[str, str]) -> tuple[float, int]:
    try:
        loss, seed = float(options.get("loss", 0)), int(options.get("seed", 0))
    except ValueError as error:
        raise PortError(lines.PORT_OPTIONS.of(text=text, why=error)) from error
    if not 0 <= loss <= 1:
        raise PortError(lines.NOT_A_LOSS.of(text=text))
    if not 0 <= seed < 1 << 64:
        raise PortError(lines.NOT_A_SEED.of(text=text))
    return loss, seed


def _shm(text: str, options: dict[str, str]) -> tuple[IPv4Network, IPv4Address | None, int]:
    try:
        network = IPv4Network(options["net"]) if "net" in options else _SHM_NETWORK
        ip = IPv4Address(options["ip"]) if "ip" in options else None
        mode = int(options.get("mode", "600"), 8)
    except ValueError as error:
        raise PortError(lines.PORT_OPTIONS.of(text=text, why=error)) from error
    if not _WIDEST <= network.prefixlen <= _NARROWEST:
        raise PortError(lines.NOT_A_NETWORK.of(text=text, widest=_WIDEST, narrowest=_NARROWEST))
    if not 0 <= mode <= 0o777:
        raise PortError(lines.NOT_A_MODE.of(text=text))
    return network, ip, mode


def _why(spec: PortSpec, error: OSError) -> LineText:
    if spec.kind == "udp":
        what = f"port {spec.number} (udp:{spec.host}:{spec.port})"
        reasons = {
            errno.EADDRINUSE: "the address is in use by another process",
            errno.EADDRNOTAVAIL: "the address is not one of this machine's",
            errno.EACCES: "UDP ports below 1024 need root",
        }
    elif spec.kind == "shm":
        what = f"port {spec.number} (shm:{spec.host})"
        reasons = {
            errno.EADDRINUSE: "another process listens there, or the file is no socket",
            errno.ENOENT: "there is no such folder",
        }
    else:
        what = f"port {spec.number} (raw:{spec.host})"
        reasons = {
            errno.ENODEV: "there is no such interface here",
            errno.EPERM: "raw ports need root or CAP_NET_RAW; udp ports need neither",
        }
    return lines.CANNOT_OPEN.of(
        port=what, why=reasons.get(error.errno or 0, error.strerror or error)
    )


def _switch_ip(spec: PortSpec, specs: Iterable[PortSpec]) -> IPv4Address:
    """Where the frames of a shm port's workers go."""
    if spec.switch_ip is not None:
        return spec.switch_ip
    hosts = (IPv4Address(other.host) for other in specs if other.kind == "udp")
    return next((ip for ip in hosts if not ip.is_unspecified), spec.network.network_address + 1)


class SwitchPorts:
    """The open ports of one switch and the thread that moves frames between them."""

    def __init__(self, specs: Iterable[PortSpec], cpu_port: int | None = None) -> None:
        """Open every port; raises :class:`PortError` with one line that says what is wrong.

        Frames that leave through ``cpu_port`` go to the controller.
        """
        if cpu_port is not None and not 0 <= cpu_port <= MAX_PORT:
            raise PortError(lines.NOT_A_CPU_PORT.of(number=cpu_port, most=MAX_PORT))
        self.native = _softswitch.Ports(cpu_port)
        self.addresses: dict[int, str] = {}
        specs = list(specs)
        for spec in specs:
            if spec.number in self.addresses or spec.number == cpu_port:
                raise PortError(lines.PORT_TWICE.of(number=spec.number))
            try:
                if spec.kind == "udp":
                    bound = self.native.add_udp(
                        spec.number, spec.host, spec.port, UDP_PORT, spec.loss, spec.seed
                    )
                elif spec.kind == "shm":
                    bound = self.native.add_shm(
                        spec.number,
                        spec.host,
                        spec.mode,
                        int(spec.network.network_address),
                        spec.network.num_addresses,
                        int(_switch_ip(spec, specs)),
                        UDP_PORT,
                        spec.loss,
                        spec.seed,
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
