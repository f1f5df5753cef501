"""Packet-in and packet-out: the controller header in front of a frame, to metadata and back.

The header's fields are packed without gaps in the order of P4Info, highest bit first.
"""

from collections.abc import Sequence

from finsy.proto import p4r

from wiresum.softswitch.p4runtime.schema import HeaderField
from wiresum.softswitch.p4runtime.status import invalid
from wiresum.softswitch.p4runtime.values import decode, encode


def _bytes(header: Sequence[HeaderField]) -> int:
    return (sum(field.width for field in header) + 7) // 8


def build_packet_out(header: Sequence[HeaderField] | None, packet: p4r.PacketOut) -> bytes:
    """Return the frame that enters the program; raises INVALID_ARGUMENT.

    ``header`` is the program's ``packet_out`` header, None where it has none.
    """
    if header is None:
        if packet.metadata:
            raise invalid("packet-out has metadata, but the program has no packet_out header")
        return packet.payload
    given = {item.metadata_id: item.value for item in packet.metadata}
    unknown = given.keys() - {field.id for field in header}
    if unknown:
        raise invalid(f"the packet_out header has no metadata field {min(unknown)}")
    bits = 0
    for field in header:
        if field.id not in given:
            raise invalid(f"packet-out lacks the metadata field {field.name!r}")
        value = decode(given[field.id], field.width, f"packet-out metadata {field.name!r}")
        bits = bits << field.width | value
    width = sum(field.width for field in header)
    bits <<= _bytes(header) * 8 - width
    return bits.to_bytes(_bytes(header), "big") + packet.payload


def parse_packet_in(header: Sequence[HeaderField] | None, frame: bytes) -> p4r.PacketIn | None:
    """Return the message for a frame that left through the CPU port, None where it is too short.

    ``header`` is the program's ``packet_in`` header, None where it has none.
    """
    if header is None:
        return p4r.PacketIn(payload=frame)
    length = _bytes(header)
    if len(frame) < length:
        return None
    bits = int.from_bytes(frame[:length], "big")
    left = length * 8
    message = p4r.PacketIn(payload=frame[length:])
    for field in header:
        left -= field.width
        value = bits >> left & ((1 << field.width) - 1)
        message.metadata.add(metadata_id=field.id, value=encode(value))
    return message
