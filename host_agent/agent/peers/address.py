"""Where rank 0 listens for the other ranks: addresses that they can try in turn."""

import fcntl
import os
import socket
import struct
from collections.abc import Mapping

_SIOCGIFADDR = 0x8915
_LOOPBACK = "127.0.0.1"


def listen(towards_switch: str, env: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Sockets that listen where gloo would, and at ``towards_switch``; the best one first.

    As with gloo, GLOO_SOCKET_IFNAME (the first, if it names several) says which interface alone;
    without it, the addresses of this host's own name, the one from which it reaches the switch,
    and loopback. Raises OSError if not even that can be listened at.
    """
    interface = env.get("GLOO_SOCKET_IFNAME", "").partition(",")[0].strip()
    if interface:
        return [_listener(socket.AF_INET, address_of(interface))]
    found: list[socket.socket] = []
    for family, address in _candidates(towards_switch):
        try:
            found.append(_listener(family, address))
        except OSError:
            continue  # not an address of this host
    if not found:
        raise OSError(f"no address of {socket.gethostname()} can be listened at")
    return found


def _candidates(towards_switch: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    try:
        named = socket.getaddrinfo(socket.gethostname(), 0, type=socket.SOCK_STREAM)
    except OSError:
        named = []
    for family, _, _, _, where in named:
        address = str(where[0])
        if family in (socket.AF_INET, socket.AF_INET6) and not address.startswith("fe80:"):
            found.append((family, address))
    found += [(socket.AF_INET, towards_switch), (socket.AF_INET, _LOOPBACK)]
    return list(dict.fromkeys(found))


def _listener(family: int, address: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.bind((address, 0))
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface. Raises OSError if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
