"""Checks of the values in requests; each refusal is one line that tells what to do."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NoReturn

from wiresum.common.address import AddressError, parse_endpoint
from wiresum.common.errors import LineText
from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.state.model import default_mac, format_mac
from wiresum.p4 import FIELDS, MAX_WORKERS

MAX_PRIORITY = 1000
MAX_LIMIT = (1 << 31) - 1
"""Of a tenant's slots and jobs."""

MAX_P4RUNTIME = 256
MAX_HOSTS = 4096
"""Host ranges of a switch."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_JOB_ID = re.compile(r"j-[0-9a-f]{12}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def invalid(message: LineText) -> NoReturn:
    """Refuse an impossible value."""
    raise ControllerError("INVALID_ARGUMENT", message)


def check_name(name: str, what: str) -> None:
    """Names go into tables and one-line messages: keep them plain."""
    if not _NAME.fullmatch(name):
        invalid(lines.NOT_A_NAME.of(what=what, name=name[:80]))
    if _JOB_ID.fullmatch(name):
        invalid(lines.NAME_LIKE_AN_ID.of(what=what, name=name))


def check_p4runtime(text: str, what: str) -> None:
    """``HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``; it is part of one-line messages."""
    is_path = text.startswith("unix:") and len(text) > len("unix:") and text.isprintable()
    if len(text) > MAX_P4RUNTIME:
        invalid(lines.P4RUNTIME_TOO_LONG.of(what=what, length=len(text)))
    try:
        if not is_path:
            parse_endpoint(text.removeprefix("https://"))
    except AddressError:
        invalid(lines.NOT_P4RUNTIME.of(what=what, text=text[:80]))


def check_request_id(text: str) -> None:
    """A caller's own name for its request, if it has one."""
    if text and not _REQUEST_ID.fullmatch(text):
        invalid(lines.NOT_A_REQUEST_ID.of(text=text[:80]))


def check_reason(text: str) -> str:
    """A reason that people give, as one line of printable characters."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    if len(line) > 200:
        invalid(lines.REASON_TOO_LONG.of(length=len(line)))
    return line


def parse_ip(text: str, what: str) -> IPv4Address:
    """The unicast IPv4 address in ``text``."""
    try:
        ip = IPv4Address(text)
    except AddressValueError:
        invalid(lines.NOT_IPV4.of(what=what, text=text))
    if ip.is_multicast or ip.is_unspecified or ip == IPv4Address("255.255.255.255"):
        invalid(lines.NOT_A_HOST_ADDRESS.of(what=what, ip=ip))
    return ip


def parse_mac(text: str, ip: IPv4Address, what: str) -> int:
    """The unicast MAC address in ``text``, or if it is empty the one made from ``ip``."""
    if not text:
        return default_mac(ip)
    plain = text.lower().replace("-", ":")
    if not _MAC.fullmatch(plain):
        invalid(lines.NOT_A_MAC.of(what=what, text=text, example=format_mac(default_mac(ip))))
    mac = int(plain.replace(":", ""), 16)
    if mac >> 40 & 1 or mac == 0:
        invalid(lines.NOT_A_HOST_MAC.of(what=what, text=plain))
    return mac


def parse_network(text: str) -> IPv4Network:
    """The IPv4 network in ``text``."""
    try:
        return IPv4Network(text)
    except ValueError as error:
        invalid(lines.NOT_A_NETWORK.of(text=text, why=error))


def check_udp_port(port: int, what: str) -> None:
    """UDP ports are 1 to 65535."""
    if not 0 < port < 65536:
        invalid(lines.NOT_A_UDP_PORT.of(what=what, port=port))


def check_rank(rank: int, workers: int) -> None:
    """``n`` is 1 to 64, and ranks are 0 to ``n - 1``."""
    if not 0 < workers <= MAX_WORKERS:
        invalid(lines.TOO_MANY_WORKERS.of(workers=workers, most=MAX_WORKERS))
    if not 0 <= rank < workers:
        invalid(lines.NOT_A_RANK.of(rank=rank, highest=workers - 1, workers=workers))


def check_field(bits: int) -> None:
    """The widths that a quantized element can have."""
    if bits not in FIELDS:
        invalid(lines.NOT_A_FIELD.of(bits=bits))
