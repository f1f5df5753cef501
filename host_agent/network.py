"""Which of this host's addresses a worker uses, and the hardware address behind it."""

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

_SIOCGIFADDR = 0x8915

# linux/in.h; Python's socket module does not have them.
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_INTERFACE = 4


def bound_socket(ip: str) -> socket.socket:
    """A UDP socket bound to ``ip`` for a worker's chunks. Raises OSError.

    It believes nobody about the path's MTU: a switch neither answers an ICMP "fragmentation
    needed" nor puts fragments together, so that one forged message, which any host on the network
    can send, would cut every chunk in pieces and stop the job for ten minutes.
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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _index, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == ip:
                return Path("/sys/class/net", name, "address").read_text().strip()
    return ""
