"""A switch under test: table writes and frames in; frames, refusals and counters out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

MatchValue = int | tuple[int, int]
"""exact, optional: a value. lpm: (value, prefix length). ternary: (value, mask), no bit of the
value outside the mask. range: (low, high). A field that is left out matches anything."""

Frame = tuple[int, bytes]
"""A frame and the port that it comes in by or leaves by."""

Leaving = dict[int, list[bytes]]
"""The frames that left, by port, in order. Between ports there is no order."""

EntryKey = tuple[str, tuple[tuple[str, MatchValue], ...], int]
"""Table, match fields by name and in order of their names, priority."""

PROBE_MARK = b"\xc5wiresum"
PROBE_TAIL_BYTES = len(PROBE_MARK) + 8


@dataclass(frozen=True)
class Insert:
    """Add an entry."""

    table: str
    match: Mapping[str, MatchValue]
    action: str
    params: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True)
class Modify:
    """Give an entry another action."""

    table: str
    match: Mapping[str, MatchValue]
    action: str
    params: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True)
class Delete:
    """Remove an entry."""

    table: str
    match: Mapping[str, MatchValue]
    priority: int = 0


@dataclass(frozen=True)
class Default:
    """Set a table's default action."""

    table: str
    action: str
    params: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Make or replace a multicast group of (egress port, instance) copies."""

    number: int
    replicas: tuple[tuple[int, int], ...]


Write = Insert | Modify | Delete | Default | Group


class Count(NamedTuple):
    """A counter's value; bytes are those of the frames as they came in."""

    packets: int
    bytes: int


@dataclass(frozen=True)
class Probe:
    """A frame that the program sends out once, by one port, with the end as it came.

    It goes in behind the frames of interest; when it is back, whatever they caused has left before:
    ingress is one thread in order, and so is each egress thread, chosen by port. ``head`` is the
    frame but for its last PROBE_TAIL_BYTES, which carry a mark and a number.
    """

    port: int
    head: bytes

    def frame(self, number: int) -> Frame:
        """The probe with its number."""
        return self.port, self.head + PROBE_MARK + number.to_bytes(8)


def probe_number(frame: bytes) -> int | None:
    """The number of the probe that ``frame`` is; None: it is none."""
    if frame[-PROBE_TAIL_BYTES:-8] != PROBE_MARK:
        return None
    return int.from_bytes(frame[-8:])


class Target(Protocol):
    """The interface of a switch that is compared."""

    name: str

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Do these in order; for each, whether it was accepted."""

    def ready(self, probes: Sequence[Probe]) -> None:
        """Make sure that frames get through; counters count from here on."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Feed frames; at most as many as the switch's queues hold."""

    def collect(self) -> Leaving:
        """What left because of the frames sent, once all of it has."""

    def counters(self) -> dict[tuple[str, int], Count]:
        """Every cell of every indirect counter that is not zero."""

    def direct_counters(self) -> dict[EntryKey, Count]:
        """The direct counter of every entry of tables that have one."""

    def close(self) -> None:
        """End it."""


def inject(switch: Target, port: int, frame: bytes) -> list[Frame]:
    """Feed one frame; all that leaves because of it, by port."""
    switch.send([(port, frame)])
    return [(to, data) for to, frames in sorted(switch.collect().items()) for data in frames]
