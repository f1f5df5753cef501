"""The switch program: its compiled forms and the packet format as constants."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wiresum.common.errors import WiresumError
from wiresum.p4 import lines

LANE_COUNTS = (64, 256)
"""The lanes of a chunk that there is a compiled program for."""

FIELDS = (32, 16, 8)
"""Bits of a field: what a lane may be cut into."""

MAX_WORKERS = 64
"""Of one job on one switch: a bit each in the bitmap of a slot (``packet.CONTRIBUTORS_BYTES``)."""

MAX_PORT = 510
"""Of a switch: a port number has 9 bits in v1model, and 511 means "drop"."""


class UnknownProgram(WiresumError):
    """No program is built for the lane count that was asked for."""

    exit_code = 2


@dataclass(frozen=True)
class Program:
    """A compiled switch program.

    ``json`` is p4c's BMv2 JSON, ``p4info`` the P4Info text; ``lanes`` the 32-bit lanes of a
    chunk, ``slots`` the slots of one switch, ``version`` what P4Info's ``pkg_info`` says.
    """

    json: Path
    p4info: Path
    lanes: int
    slots: int
    version: str


@cache
def program(lanes: int) -> Program:
    """The committed program for ``lanes`` lanes; raises :class:`UnknownProgram`."""
    from wiresum.p4 import packet

    if lanes not in LANE_COUNTS:
        known = " or ".join(map(str, LANE_COUNTS))
        raise UnknownProgram(lines.NO_PROGRAM.of(lanes=lanes, known=known))
    compiled = Path(__file__).resolve().parent / "compiled"
    p4info = compiled / f"wiresum_{lanes}.p4info.txtpb"
    version = re.search(r'^pkg_info \{.*?version: "([^"]*)"', p4info.read_text(), re.M | re.S)
    if version is None:
        raise UnknownProgram(lines.NO_VERSION.of(p4info=p4info))
    return Program(
        json=compiled / f"wiresum_{lanes}.json",
        p4info=p4info,
        lanes=lanes,
        slots=packet.SLOTS,
        version=version.group(1),
    )
