"""Switches as operators write them on the command line."""

from wiresum.common.address import parse_endpoint
from wiresum.controller.client import add_switch_request
from wiresum.controller.errors import ServeError
from wiresum.controller.v1 import controller_pb2 as pb

_KEYS = ("name", "p4runtime", "address", "host", "mac", "lanes", "device-id", "shared-address")


class SpecError(ServeError):
    """A switch's description that cannot be understood."""

    exit_code = 2


def parse_switch(text: str) -> pb.AddSwitchRequest:
    """Parse ``name=s1,p4runtime=HOST:PORT,address=IP:PORT,host=CIDR=PORT[,host=…][,lanes=…]…``.

    The keys are the options of ``wiresum switch add``. Raises :class:`SpecError`, or
    ``AddressError`` for an address that is none.
    """
    values: dict[str, list[str]] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS:
            raise SpecError(
                f"switch {text!r}: {part!r} is not KEY=VALUE with a key of {', '.join(_KEYS)}"
            )
        values.setdefault(key, []).append(value)
    for key, given in values.items():
        if key != "host" and len(given) > 1:
            raise SpecError(f"switch {text!r}: {key} is given twice")
    for key in ("name", "p4runtime", "address", "host"):
        if key not in values:
            raise SpecError(f"switch {text!r}: {key}=… is missing")
    shared = values["shared-address"][0] if "shared-address" in values else None
    if shared not in (None, "yes", "no"):
        raise SpecError(f"switch {text!r}: shared-address is yes or no, not {shared!r}")
    return describe(
        values["name"][0],
        p4runtime=values["p4runtime"][0],
        address=values["address"][0],
        hosts=values["host"],
        mac=values.get("mac", [""])[0],
        lanes=_number(text, "lanes", values.get("lanes", ["0"])[0]),
        device_id=_number(text, "device-id", values.get("device-id", ["0"])[0]),
        shared_address=None if shared is None else shared == "yes",
    )


def describe(
    name: str,
    *,
    p4runtime: str,
    address: str,
    hosts: list[str],
    mac: str,
    lanes: int,
    device_id: int,
    shared_address: bool | None,
) -> pb.AddSwitchRequest:
    """The request for a switch whose ``address`` is ``IP:PORT`` and ``hosts`` ``CIDR=PORT``."""
    endpoint = parse_endpoint(address, what=f"switch {name}: address")
    return add_switch_request(
        name,
        p4runtime=p4runtime,
        ip=endpoint.host,
        udp_port=endpoint.port,
        hosts=[_host(name, text) for text in hosts],
        mac=mac,
        lanes=lanes,
        device_id=device_id,
        shared_address=shared_address,
    )


def _host(name: str, text: str) -> tuple[str, int]:
    cidr, equals, port = text.rpartition("=")
    if not equals or not port.isdecimal() or int(port) > 0xFFFF:
        raise SpecError(f"switch {name}: host {text!r} is not CIDR=PORT, e.g. 10.0.1.0/24=1")
    return cidr, int(port)


def _number(text: str, key: str, value: str) -> int:
    if not value.isdecimal() or int(value) > 0xFFFFFFFF:
        raise SpecError(f"switch {text!r}: {key} {value!r} is not a number")
    return int(value)
