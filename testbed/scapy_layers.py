"""Scapy layers for wiresum's packets, also for your own scapy sessions.

>>> from scapy.all import *
>>> from wiresum.testbed.scapy_layers import Wiresum, Lanes, Contributors
>>> packet = IP(dst="10.0.0.254") / UDP(sport=40001) / Wiresum(job=1, epoch=5) / Lanes(lanes=[1, 2])

Importing it binds them to UDP: whatever goes to or comes from wiresum's port is taken for
wiresum's. Fields, their order and their widths are those of ``wiresum.p4.packet``, which is made
from the switch program's headers. Needs scapy: ``pip install 'wiresum[pcap]'``.
"""

import struct
from typing import Any

from wiresum.common.errors import WiresumError
from wiresum.p4 import packet as wire
from wiresum.testbed import lines


class MissingScapy(WiresumError, ImportError):
    """Scapy is not installed."""


try:
    from scapy.fields import (
        ByteEnumField,
        ByteField,
        Field,
        FieldListField,
        IntField,
        LongField,
        ShortField,
        XByteField,
        XIntField,
        XLongField,
    )
    from scapy.layers.inet import UDP
    from scapy.packet import Packet, Raw, bind_bottom_up, bind_layers
except ImportError as _error:
    raise MissingScapy(lines.NEEDS_SCAPY.of()) from _error

__all__ = ["Contributors", "Lanes", "MissingScapy", "Wiresum"]

_BY_WIDTH: dict[str, type[Field[Any, Any]]] = {
    "B": ByteField,
    "H": ShortField,
    "I": IntField,
    "Q": LongField,
}
_IN_HEX: dict[str, type[Field[Any, Any]]] = {
    "readers": XByteField,
    "key": XLongField,
    "fingerprint": XIntField,
}
_DEFAULTS = {"version": wire.VERSION, "kind": int(wire.Kind.CONTRIBUTION), "epoch": 1}
_ENUMS = {"kind": wire.Kind, "op": wire.Op}


def _header_field(name: str, width: str) -> Field[Any, Any]:
    default = _DEFAULTS.get(name, 0)
    if name in _ENUMS:
        return ByteEnumField(name, default, {int(each): each.name for each in _ENUMS[name]})
    return _IN_HEX.get(name, _BY_WIDTH[width])(name, default)


class _LanesField(FieldListField):
    """As many whole lanes as there are bytes for; the rest stays payload."""

    def getfield(self, pkt: Any, s: bytes) -> Any:
        """Takes the lanes off ``s``."""
        whole = len(s) // 4
        return s[4 * whole :], list(struct.unpack_from(f"!{whole}I", s))


class Lanes(Packet):
    """The 32-bit lanes of a CONTRIBUTION or a RESULT; a bare one has none."""

    name = "wiresum lanes"
    fields_desc = [_LanesField("lanes", [], IntField("lane", 0))]  # noqa: RUF012


class Contributors(Packet):
    """In a WAIT or a MISMATCH: bit r is set where rank r has contributed."""

    name = "wiresum contributors"
    fields_desc = [XLongField("bitmap", 0)]  # noqa: RUF012

    def ranks(self) -> list[int]:
        """The ranks that have contributed."""
        return [rank for rank in range(64) if self.bitmap >> rank & 1]


class Wiresum(Packet):
    """The wiresum header."""

    name = "wiresum"
    fields_desc = [  # noqa: RUF012
        _header_field(name, width)
        for name, width in zip(wire.HEADER_FIELDS, wire.HEADER_FORMAT[1:], strict=True)
    ]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """By version and kind; what is too short for it stays raw."""
        if self.version == wire.VERSION and payload:
            if self.kind in (wire.Kind.CONTRIBUTION, wire.Kind.RESULT) and len(payload) >= 4:
                return Lanes
            status = self.kind in (wire.Kind.WAIT, wire.Kind.MISMATCH)
            if status and len(payload) >= wire.CONTRIBUTORS_BYTES:
                return Contributors
        return Raw

    def hashret(self) -> bytes:
        """The fields that a contribution and its answer share, for scapy's sr(); not the key."""
        return struct.pack("!HHI", self.job, self.slot, self.epoch)

    def answers(self, other: Packet) -> bool:
        """Whether this is a switch's answer to the contribution ``other``."""
        return (
            isinstance(other, Wiresum)
            and other.kind == wire.Kind.CONTRIBUTION
            and self.kind in (wire.Kind.RESULT, wire.Kind.WAIT, wire.Kind.MISMATCH)
            and self.hashret() == other.hashret()
        )


bind_layers(UDP, Wiresum, dport=wire.UDP_PORT)
bind_bottom_up(UDP, Wiresum, sport=wire.UDP_PORT)  # what a switch sends
