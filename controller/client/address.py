"""Where controllers are, as users write it: ``HOST:PORT``, with TLS unless they say otherwise."""

import ipaddress
from dataclasses import dataclass

from wiresum.common.address import Endpoint, parse_endpoint

DEFAULT_CONTROLLER = "127.0.0.1:7500"
"""The default address of a controller, for its server and for its clients."""

_PLAINTEXT = "http://"
_TLS = "https://"


@dataclass(frozen=True)
class ControllerAddress:
    """Where a controller listens, and whether it speaks TLS there."""

    endpoint: Endpoint
    plaintext: bool

    def __str__(self) -> str:
        return f"{_PLAINTEXT if self.plaintext else ''}{self.endpoint}"


def parse_address(text: str, *, what: str = "controller address") -> ControllerAddress:
    """Parse ``HOST:PORT``, ``https://HOST:PORT`` (TLS) or ``http://HOST:PORT`` (plaintext).

    ``what`` names the thing in the error message. Raises ``AddressError``.
    """
    if text.startswith(_PLAINTEXT):
        return ControllerAddress(parse_endpoint(text.removeprefix(_PLAINTEXT), what=what), True)
    return ControllerAddress(parse_endpoint(text.removeprefix(_TLS), what=what), False)


def parse_addresses(
    text: str, *, what: str = "controller address"
) -> tuple[ControllerAddress, ...]:
    """Parse the addresses of the controllers of one store, with commas between them.

    Each is as in :func:`parse_address`, and counts once. Raises ``AddressError``.
    """
    found = (parse_address(part.strip(), what=what) for part in text.split(","))
    return tuple(dict.fromkeys(found))


def is_loopback(host: str) -> bool:
    """Whether the address is a loopback address: only processes of this machine are there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
