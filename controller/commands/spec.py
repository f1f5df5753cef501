"""Switches as operators write them on the command line."""

from wiresum.controller import lines
from wiresum.controller.commands.switch_options import SwitchOptions
from wiresum.controller.errors import SpecError
from wiresum.controller.v1 import controller_pb2 as pb

_KEYS = ("name", "p4runtime", "address", "host", "mac", "lanes", "device-id", "shared-address")


def parse_switch(text: str) -> pb.AddSwitchRequest:
    """Parse ``name=s1,p4runtime=HOST:PORT,address=IP:PORT,host=CIDR=PORT[,host=…][,lanes=…]…``.

    The keys are the options of ``wiresum switch add``. Raises :class:`SpecError`, or
    ``AddressError`` for an address that is none.
    """
    values: dict[str, list[str]] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS:
            raise SpecError(lines.SPEC_PART.of(text=text, part=part, keys=", ".join(_KEYS)))
        values.setdefault(key, []).append(value)
    for key, given in values.items():
        if key != "host" and len(given) > 1:
            raise SpecError(lines.SPEC_TWICE.of(text=text, key=key))
    for key in ("name", "p4runtime", "address", "host"):
        if key not in values:
            raise SpecError(lines.SPEC_MISSING.of(text=text, key=key))
    shared = values["shared-address"][0] if "shared-address" in values else None
    if shared not in (None, "yes", "no"):
        raise SpecError(lines.SPEC_SHARED.of(text=text, value=shared))
    described = SwitchOptions(
        p4runtime=values["p4runtime"][0],
        address=values["address"][0],
        host=values["host"],
        mac=values.get("mac", [""])[0],
        lanes=_number(text, "lanes", values.get("lanes", ["0"])[0]),
        device_id=_number(text, "device-id", values.get("device-id", ["0"])[0]),
        shared_address=None if shared is None else shared == "yes",
    )
    return described.request(values["name"][0])


def _number(text: str, key: str, value: str) -> int:
    if not value.isdecimal() or int(value) > 0xFFFFFFFF:
        raise SpecError(lines.SPEC_NUMBER.of(text=text, key=key, value=value))
    return int(value)
