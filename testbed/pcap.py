"""Reads captures and describes wiresum's packets in them."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wiresum.common.errors import WiresumError
from wiresum.p4 import packet as wire
from wiresum.testbed import lines

FIRST_LANES = 4
_WITH_LANES = (wire.Kind.CONTRIBUTION, wire.Kind.RESULT)


class CaptureError(WiresumError):
    """A capture cannot be read; the message is one line."""


@dataclass
class Seen:
    """One packet of wiresum's, as far as it could be read: what is not known is None.

    ``number`` counts all packets of the capture from 1 on, as other tools do; ``time`` is in
    seconds since 1970. ``lanes``: how many there are; ``first_lanes``: some of them.
    ``contributors``: ranks. ``notes``: what is wrong with it. The lease's keys are left out:
    users pass such output on. ``readers``: ``ALL``, ``ONLY 2``, ``ALL_BUT 2``. ``lanes`` is 0 for a
    bare packet, which adds zero or goes to a rank that does not read.
    """

    number: int
    time: float
    source: str
    destination: str
    kind: str | None = None
    op: str | None = None
    job: int | None = None
    slot: int | None = None
    epoch: int | None = None
    chunk: int | None = None
    fingerprint: int | None = None
    readers: str | None = None
    contributors: list[int] | None = None
    lanes: int | None = None
    first_lanes: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _name(names: Any, value: int) -> str:
    known: dict[int, str] = {int(each): each.name for each in names}
    return known.get(value, f"unknown ({value})")


def _read(seen: Seen, payload: bytes, missing: int) -> None:
    """One wiresum packet; ``missing``: bytes of its UDP payload that were not captured."""
    from wiresum.testbed.scapy_layers import Contributors, Lanes, Wiresum

    if len(payload) < wire.HEADER_BYTES:
        seen.notes.append(
            f"truncated: {len(payload)} of the header's {wire.HEADER_BYTES} bytes are there"
        )
        return
    header = Wiresum(payload)
    seen.kind, seen.op = _name(wire.Kind, header.kind), _name(wire.Op, header.op)
    seen.job, seen.slot, seen.epoch = header.job, header.slot, header.epoch
    seen.chunk, seen.fingerprint = header.chunk, header.fingerprint
    if header.version != wire.VERSION:
        seen.notes.append(f"version {header.version} is not {wire.VERSION}")
        return
    who, rank = divmod(header.readers, 1 << wire.READER_BITS)
    seen.readers = _name(wire.Readers, who)
    if who != wire.Readers.ALL:
        seen.readers += f" {rank}"
    elif rank:
        seen.notes.append(f"it names rank {rank} as a reader beside all")
    body = header.payload
    rest = len(payload) - wire.HEADER_BYTES
    if isinstance(body, Lanes):
        seen.lanes, seen.first_lanes = len(body.lanes), body.lanes[:FIRST_LANES]
        rest -= 4 * seen.lanes
    elif isinstance(body, Contributors):
        seen.contributors = body.ranks()
        rest -= wire.CONTRIBUTORS_BYTES
    elif not payload[wire.HEADER_BYTES :] and header.kind in _WITH_LANES and not missing:
        seen.lanes = 0
    elif header.kind in list(wire.Kind):
        wanted = "lanes" if header.kind in _WITH_LANES else "contributors"
        seen.notes.append(f"truncated: it ends before its {wanted}")
        rest = 0
    if rest and header.kind in list(wire.Kind) and not missing:
        seen.notes.append(f"{rest} bytes more than belong there")
    if missing:
        seen.notes.append(f"truncated: {missing} bytes of it were not captured")


def read(path: Path, count: list[int] | None = None) -> Iterator[Seen]:
    """Wiresum's packets in a pcap or pcapng file; ``count[0]`` becomes the number of all packets.

    Raises :class:`CaptureError` where it is no capture, or ends too early (after what could be
    read), and :class:`wiresum.testbed.scapy_layers.MissingScapy`.
    """
    logging.getLogger("scapy").setLevel(logging.CRITICAL)  # scapy warns of missing programs
    import wiresum.testbed.scapy_layers  # noqa: F401, I001  (binds the layers; says what is missing)
    from scapy.error import Scapy_Exception
    from scapy.layers.inet import UDP
    from scapy.utils import PcapReader

    number = 0
    try:
        with PcapReader(str(path)) as capture:
            while True:
                try:
                    packet = capture.read_packet()
                except EOFError:
                    break
                number += 1
                if count is not None:
                    count[:] = [number]
                found = packet.getlayer(UDP)
                if found is not None and wire.UDP_PORT in (found.sport, found.dport):
                    yield _seen(number, packet, found)
    except OSError as error:
        raise CaptureError(
            lines.CAPTURE_UNREADABLE.of(path=path, why=error.strerror or error)
        ) from error
    except Scapy_Exception as error:
        raise CaptureError(lines.NO_CAPTURE.of(path=path)) from error
    except Exception as error:  # scapy's readers raise whatever their parsing trips over
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CaptureError(lines.CAPTURE_DAMAGED.of(path=path, number=number, why=what)) from error


def _seen(number: int, packet: Any, udp: Any) -> Seen:
    outer = udp.underlayer
    source, destination = (
        f"{getattr(outer, side, '?')}:{port}"
        for side, port in (("src", udp.sport), ("dst", udp.dport))
    )
    seen = Seen(number, float(packet.time), source, destination)
    payload = bytes(udp.original)[wire.UDP_BYTES :]
    claimed = (udp.len or 0) - wire.UDP_BYTES
    if claimed < 0:
        seen.notes.append(f"UDP's length {udp.len} is impossible")
        claimed = len(payload)
    # What is behind the datagram (Ethernet's padding) is not part of it.
    _read(seen, payload[:claimed], max(0, claimed - len(payload)))
    return seen


def line(seen: Seen) -> str:
    """One packet as one line."""
    parts = [f"{seen.number:6} {seen.time:.6f} {seen.source} > {seen.destination}"]
    if seen.kind is not None:
        parts.append(f"{seen.kind} {seen.op} job {seen.job} slot {seen.slot}")
        parts.append(f"epoch {seen.epoch} chunk {seen.chunk} fingerprint {seen.fingerprint:08x}")
    if seen.readers is not None and seen.readers != wire.Readers.ALL.name:
        parts.append(f"readers {seen.readers}")
    if seen.contributors is not None:
        parts.append("contributors " + (",".join(map(str, seen.contributors)) or "none"))
    if seen.lanes == 0:
        parts.append("bare")
    elif seen.lanes is not None:
        more = " …" if seen.lanes > len(seen.first_lanes) else ""
        values = " ".join(f"{lane:08x}" for lane in seen.first_lanes)
        parts.append(f"{seen.lanes} lanes: {values}{more}")
    parts += [f"[{note}]" for note in seen.notes]
    return "  ".join(parts)
