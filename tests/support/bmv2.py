"""BMv2 running our program, as the tests' switch; the product's own conformance target."""

from pathlib import Path

from support.frames import SWITCH_IP, SWITCH_MAC, ethernet, ipv4
from support.targets import Target
from wiresum.p4 import Program
from wiresum.testbed.conformance.bmv2 import BINARY, LIMIT_S, Bmv2Target, available
from wiresum.testbed.conformance.target import (
    PROBE_TAIL_BYTES,
    Delete,
    Group,
    Insert,
    Probe,
    Write,
    inject,
)
from wiresum.testbed.conformance.wiresum_traffic import BMV2_GROWTH_BYTES

__all__ = ["BINARY", "LIMIT_S", "Bmv2", "available", "takes_bare"]

_PING = ethernet(
    SWITCH_MAC, b"\x02\xff\0\0\0\1", 0x0800,
    ipv4(b"\x0a\xff\0\1", SWITCH_IP, 1, bytes([8, 0, 0, 0]) + bytes(PROBE_TAIL_BYTES)),
)  # fmt: skip
PROBES = [Probe(port, _PING[:-PROBE_TAIL_BYTES]) for port in (1, 2, 3, 4)]


def takes_bare(switch: Target) -> bool:
    """Whether a bare contribution may become a RESULT with lanes: some end BMv2."""
    return not isinstance(switch, Bmv2) or 4 * switch.lanes <= BMV2_GROWTH_BYTES


class Bmv2(Bmv2Target):
    """One simple_switch_grpc process running ``program``; close it when done."""

    def __init__(self, program: Program, directory: Path) -> None:
        super().__init__(program, directory)
        self.lanes = program.lanes
        self._attached = False

    def _must(self, write: Write) -> None:
        assert self.write([write]) == [True], f"BMv2 refuses {write}"

    def insert(
        self, table: str, match: dict[str, int], action: str, params: dict[str, int]
    ) -> None:
        """Add an exact-match entry."""
        self._must(Insert(table, match, action, params))

    def remove(self, table: str, match: dict[str, int]) -> None:
        """Remove an entry."""
        self._must(Delete(table, match))

    def group(self, number: int, replicas: list[tuple[int, int]]) -> None:
        """Set a multicast group."""
        self._must(Group(number, tuple(replicas)))

    def inject(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Feed one frame; all that leaves. Needs the switch's address in its tables."""
        if not self._attached:
            self.ready(PROBES)
            self._attached = True
        return inject(self, port, frame)

    def counter(self, name: str, index: int) -> int:
        """Packets counted."""
        return self.cell(name, index).packets
