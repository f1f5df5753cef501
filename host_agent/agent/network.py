"""A worker's socket towards its switch, and the addresses behind it."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from wiresum.host_agent import lines
from wiresum.host_agent._engine import shm_connect
from wiresum.host_agent.agent.peers.address import address_of
from wiresum.host_agent.engine import ShmSocket, UdpSocket
from wiresum.host_agent.errors import EngineError
from wiresum.p4.packet import HEADER_BYTES

# linux/in.h; Python's socket module does not have them.
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_INTERFACE = 4


@dataclass(frozen=True)
class WorkerSocket:
    """A worker's socket towards its switch, and the address that the switch knows it by."""

    socket: socket.socket
    ip: str
    udp_port: int
    shm_path: str | None = None
    """Where the socket of a shm port is, if this is a connection to one; None: UDP."""

    def for_engine(self) -> UdpSocket | ShmSocket:
        """The socket with its kind, for an engine, which duplicates the descriptor."""
        if self.shm_path is None:
            return UdpSocket(fd=self.socket.fileno())
        return ShmSocket(fd=self.socket.fileno(), path=self.shm_path)


def udp_socket(switch_ip: str, switch_udp_port: int) -> WorkerSocket:
    """A socket bound to the address from which this host reaches the switch. Raises OSError."""
    sock = bound_socket(local_address_towards(switch_ip, switch_udp_port))
    return WorkerSocket(sock, *sock.getsockname())


def shm_socket(path: str, switch_ip: str, lanes: int, slots: int, timeout_s: float) -> WorkerSocket:
    """A connection to a shm port of the switch, with rings for chunks of ``lanes``.

    ``slots``: of the lease, of which half can be in flight. Raises ``EngineError``, also if the
    port belongs to another switch than ``switch_ip``.
    """
    fd, ip, udp_port, there = shm_connect(path, HEADER_BYTES + 4 * lanes, slots, timeout_s)
    sock = socket.socket(fileno=fd)
    if there != int(ipaddress.IPv4Address(switch_ip)):
        sock.close()
        found = ipaddress.IPv4Address(there)
        raise EngineError(lines.SHM_OF_ANOTHER_SWITCH.of(path=path, there=found, wanted=switch_ip))
    return WorkerSocket(sock, str(ipaddress.IPv4Address(ip)), udp_port, path)


def bound_socket(ip: str) -> socket.socket:
    """A UDP socket bound to ``ip`` for a worker's chunks. Raises OSError.

    It ignores messages about the path's MTU. A switch does not reassemble fragments, and any host
    on the network can forge an ICMP "fragmentation needed": one such message would make the kernel
    cut every chunk in pieces, and stop the job for ten minutes.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_INTERFACE)
        sock.bind((ip, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def local_address_towards(ip: str, port: int) -> str:
    """The IPv4 address from which this host sends to ``ip``. Raises OSError without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((ip, port))  # a datagram socket: nothing is sent
        return str(probe.getsockname()[0])


def mac_of(ip: str) -> str:
    """Hardware address of the interface that holds ``ip``; empty for loopback or if unknown."""
    if ipaddress.ip_address(ip).is_loopback:
        return ""
    for _index, name in socket.if_nameindex():
        try:
            found = address_of(name)
        except OSError:
            continue  # an interface without an IPv4 address
        if found == ip:
            return Path("/sys/class/net", name, "address").read_text().strip()
    return ""
