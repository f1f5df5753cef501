"""Checks of the values in requests; each refusal is one line that tells what to do."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NoReturn

from wiresum.common.address import AddressError, parse_endpoint
from wiresum.controller.errors import ControllerError
from wiresum.controller.state.model import default_mac, format_mac
from wiresum.p4 import FIELDS, MAX_WORKERS

MAX_PRIORITY = 1000
MAX_LIMIT = (1 << 31) - 1
"""Of a tenant's slots and jobs."""

# BMv2 drops packets that are sent to port 511; 0 is not a port anywhere.
MAX_PORT = 510

MAX_P4RUNTIME = 256
MAX_HOSTS = 4096
"""Host ranges of a switch."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_JOB_ID = re.compile(r"j-[0-9a-f]{12}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def invalid(message: str) -> NoReturn:
    """Refuse an impossible value."""
    raise ControllerError("INVALID_ARGUMENT", message)


def check_name(name: str, what: str) -> None:
    """Names go into tables and one-line messages: keep them plain."""
    if not _NAME.fullmatch(name):
        invalid(
            f"{what} {name[:80]!r} is not a name: use up to 64 letters, digits, '.', '_', '/', '-'"
        )
    if _JOB_ID.fullmatch(name):
        invalid(f"{what} {name!r} looks like a job's id: choose another name")


def check_p4runtime(text: str, what: str) -> None:
    """``HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``; it is part of one-line messages."""
    is_path = text.startswith("unix:") and len(text) > len("unix:") and text.isprintable()
    if len(text) > MAX_P4RUNTIME:
        invalid(f"{what}: a P4Runtime address of {len(text)} characters is too long: use up to 256")
    try:
        if not is_path:
            parse_endpoint(text.removeprefix("https://"))
    except AddressError:
        invalid(
            f"{what}: {text[:80]!r} is no P4Runtime address: give HOST:PORT, https://HOST:PORT or "
            "unix:/path"
        )


def check_request_id(text: str) -> None:
    """A caller's own name for its request, if it has one."""
    if text and not _REQUEST_ID.fullmatch(text):
        invalid(f"request id {text[:80]!r} is not one: use up to 64 letters and digits")


def check_reason(text: str) -> str:
    """A reason that people give, as one line of printable characters."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    if len(line) > 200:
        invalid(f"a reason of {len(line)} characters is too long: use up to 200")
    return line


def parse_ip(text: str, what: str) -> IPv4Address:
    """The unicast IPv4 address in ``text``."""
    try:
        ip = IPv4Address(text)
    except AddressValueError:
        invalid(f"{what} {text!r} is not an IPv4 address")
    if ip.is_multicast or ip.is_unspecified or ip == IPv4Address("255.255.255.255"):
        invalid(f"{what} {ip} is not one host's address: give the address that packets come from")
    return ip


def parse_mac(text: str, ip: IPv4Address, what: str) -> int:
    """The unicast MAC address in ``text``, or if it is empty the one made from ``ip``."""
    if not text:
        return default_mac(ip)
    plain = text.lower().replace("-", ":")
    if not _MAC.fullmatch(plain):
        invalid(f"{what} {text!r} is not a MAC address such as {format_mac(default_mac(ip))}")
    mac = int(plain.replace(":", ""), 16)
    if mac >> 40 & 1 or mac == 0:
        invalid(f"{what} {plain} is not one host's MAC address")
    return mac


def parse_network(text: str) -> IPv4Network:
    """The IPv4 network in ``text``."""
    try:
        return IPv4Network(text)
    except ValueError as error:
        invalid(f"host range {text!r} is not an IPv4 network such as 10.0.1.0/24: {error}")


def check_udp_port(port: int, what: str) -> None:
    """UDP ports are 1 to 65535."""
    if not 0 < port < 65536:
        invalid(f"{what} {port} is not a UDP port: it must be from 1 to 65535")


def check_rank(rank: int, workers: int) -> None:
    """``n`` is 1 to 64, and ranks are 0 to ``n - 1``."""
    if not 0 < workers <= MAX_WORKERS:
        invalid(
            f"a job of {workers} workers is not possible: a switch sums for 1 to {MAX_WORKERS}; "
            "use another backend for this run"
        )
    if not 0 <= rank < workers:
        invalid(f"rank {rank} is not one of 0 to {workers - 1}, the ranks of {workers} workers")


def check_field(bits: int) -> None:
    """The widths that a quantized element can have."""
    if bits not in FIELDS:
        invalid(f"a field of {bits} bits is not possible: choose 32, 16 or 8")
