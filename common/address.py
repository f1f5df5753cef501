"""Network endpoints as users write them."""

from dataclasses import dataclass

from wiresum.common import lines
from wiresum.common.errors import WiresumError

SHM_NETWORK = "127.77.0.0/16"
"""The addresses that a switch gives to workers that reach it through shared memory."""


class AddressError(WiresumError):
    """An endpoint that cannot be parsed."""

    exit_code = 2


@dataclass(frozen=True)
class Endpoint:
    """A host and a port; ``str()`` gives ``HOST:PORT`` (``[HOST]:PORT`` for IPv6)."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoint(text: str, *, what: str = "address") -> Endpoint:
    """Parse ``HOST:PORT`` or ``[IPV6]:PORT``; port 0 means "any free port".

    ``what`` names the thing in the error message. Raises :class:`AddressError`.
    """
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    named = separator and host and host.isprintable() and not any(map(str.isspace, host))
    if not named or not (port.isascii() and port.isdigit() and len(port) < 6) or int(port) > 65535:
        raise AddressError(lines.NO_ENDPOINT.of(what=what, text=text[:80]))
    return Endpoint(host, int(port))
