"""The cases of the all-reduce benchmark, and the options as users write them."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from wiresum.measure import lines
from wiresum.measure.model import limits
from wiresum.p4 import FIELDS, MAX_WORKERS, program
from wiresum.testbed.errors import RackUsageError
from wiresum.testbed.options import MAX_MBIT, check_name, parse_loss, parse_rate

GLOO = "gloo"

UDP, SHM = TRANSPORTS = ("udp", "shm")
RANKS = "ranks"
CARRIERS = ("switch", RANKS)
ELEMENT_BYTES = 4

_UNITS = {"b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_LARGEST = 1 << 32
TRAIN = 64 << 10
"""Bytes that a shaper lets pass at once: it charges a train when it has gone. That is also the most
by which a sample can be ahead of its link."""

_SAMPLE_TRAINS = 128  # in a sample, so that this is less than 1 %
_SAMPLE_S = 0.06  # what a sample should take at least, if nothing limits the links
_UNLIMITED_MBIT = 10_000.0  # an estimate of that
_MOST_OPS = 512
_MOST_BYTES = 64 << 20  # of the operations in a sample together, unless it is one


@dataclass(frozen=True)
class Side:
    """What reduces: wiresum with a field over a transport, or gloo with a congestion control.

    ``transport`` is the way to the switch, or ``ranks`` where the ranks sum the same lanes.
    """

    field: int | None = None
    tcp: str | None = None
    transport: str = UDP

    @property
    def key(self) -> str:
        """Its name in the JSON: ``32``, ``32-shm``, ``gloo-cubic``."""
        if self.field is None:
            return f"{GLOO}-{self.tcp}"
        return str(self.field) if self.transport == UDP else f"{self.field}-{self.transport}"

    @classmethod
    def of(cls, key: str) -> "Side":
        """The side with that key."""
        name, _, way = key.partition("-")
        return cls(tcp=way) if name == GLOO else cls(field=int(name), transport=way or UDP)

    def order(self) -> tuple[bool, int, int, str]:
        """Where it stands in tables: wiresum's widest field first, gloo last."""
        return (
            self.field is None,
            (*TRANSPORTS, RANKS).index(self.transport),
            -(self.field or 0),
            self.key,
        )

    def __str__(self) -> str:
        if self.field is None:
            return f"{GLOO}, {self.tcp}"
        way = {SHM: ", shared memory", RANKS: ", the ranks"}.get(self.transport, "")
        return f"F = {self.field}{way}"

    @property
    def by_ranks(self) -> bool:
        """Whether no switch takes part."""
        return self.field is None or self.transport == RANKS


@dataclass(frozen=True)
class Case:
    """One setting in which both sides reduce. ``rate_mbit`` None: no limit; size in bytes.

    ``loss``: None where trains of frames cross whole; a share where they are cut before the
    receiver, and each frame may be lost by itself. 0: cut, but none is lost.
    """

    rate_mbit: float | None
    loss: float | None
    workers: int
    size: int

    @property
    def elements(self) -> int:
        """Of float32."""
        return self.size // ELEMENT_BYTES

    @property
    def links(self) -> str:
        """Their rate and loss, for tables."""
        lost = "" if self.loss is None else f", {100 * self.loss:g} % lost"
        return rate_text(self.rate_mbit) + lost

    def least_bytes(self, side: Side, mtu: int = 1500) -> int:
        """What one all-reduce puts on each link at least, in each direction."""
        if side.field is None:
            return limits.ring_bytes(self.size, self.workers, mtu)
        if side.by_ranks:
            return limits.ring_bytes(self.size * side.field // 32, self.workers, mtu)
        return limits.wiresum_bytes(self.size, side.field, mtu)

    def ops(self, side: Side) -> int:
        """How many all-reduces a sample has, back to back: one may be too short to time."""
        one = self.least_bytes(side)
        wanted = _SAMPLE_TRAINS * TRAIN
        if self.rate_mbit is None:
            wanted = max(wanted, round(_SAMPLE_S * _UNLIMITED_MBIT * 1e6 / 8))
        return max(1, min(math.ceil(wanted / one), _MOST_OPS, _MOST_BYTES // self.size))

    def __str__(self) -> str:
        return f"{self.links}, {self.workers} workers, {size_text(self.size)}"


@dataclass(frozen=True)
class Options:
    """One run of ``wiresum bench allreduce``."""

    workers: tuple[int, ...] = (2, 4, 8)
    sizes: tuple[int, ...] = (64 << 10, 1 << 20, 4 << 20, 25 << 20, 100 << 20)
    rates: tuple[float | None, ...] = (100.0, 1000.0, None)
    losses: tuple[float | None, ...] = (None,)
    fields: tuple[int, ...] = FIELDS
    tcp: tuple[str, ...] = ()
    repeat: int = 5
    lanes: int = 256
    slots: int = 0
    mtu: int = 1500
    transports: tuple[str, ...] = (UDP,)
    carriers: tuple[str, ...] = CARRIERS[:1]
    name: str = "bench"
    spoil: bool = False

    @property
    def sides(self) -> list[Side]:
        """All sides, in the order of a round: gloo in the middle of wiresum's fields, so that what
        changes slowly on the machine meets both.
        """
        sides = [*self.switch_sides, *self.ranks_sides]
        for place, tcp in enumerate(self.tcp):
            sides.insert(1 + 2 * place, Side(tcp=tcp))
        return sides

    @property
    def switch_sides(self) -> list[Side]:
        """Wiresum's over the switch."""
        return [
            Side(field=field, transport=transport)
            for transport in self.transports
            for field in self.fields
            if CARRIERS[0] in self.carriers
        ]

    @property
    def ranks_sides(self) -> list[Side]:
        """Wiresum's over the ranks."""
        if RANKS not in self.carriers:
            return []
        return [Side(field=field, transport=RANKS) for field in self.fields]

    def check(self) -> "Options":
        """Return the options; raises :class:`RackUsageError` for what makes no sense."""
        check_name(self.name)
        if SHM in self.transports and (set(self.rates) != {None} or set(self.losses) != {None}):
            raise RackUsageError(lines.SHM_HAS_NO_RATE.of())
        program(self.lanes)
        return self

    def case_list(self) -> list[Case]:
        """All cases, in the order of a round."""
        return [
            Case(rate, loss, workers, size)
            for rate in self.rates
            for loss in self.losses
            for workers in self.workers
            for size in self.sizes
        ]


def _items(option: str, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise RackUsageError(lines.NO_VALUE.of(option=option, text=text))
    if len({item.lower() for item in items}) < len(items):
        raise RackUsageError(lines.VALUE_TWICE.of(option=option, text=text))
    return items


def parse_workers(text: str) -> tuple[int, ...]:
    """Parse ``2,4,8``. Raises ``RackUsageError``, like all of these."""
    items = _items("--workers", text)
    if not all(item.isdigit() and 2 <= int(item) <= MAX_WORKERS for item in items):
        raise RackUsageError(lines.WORKERS_OUT_OF_RANGE.of(text=text, most=MAX_WORKERS))
    return tuple(map(int, items))


def parse_sizes(text: str) -> tuple[int, ...]:
    """Parse ``64KiB,25MiB``: bytes of float32 elements."""
    sizes = []
    for item in _items("--sizes", text):
        found = re.fullmatch(r"(\d+)(b|kib|mib|gib)", item.lower())
        size = int(found[1]) * _UNITS[found[2]] if found else 0
        if not ELEMENT_BYTES <= size <= _LARGEST or size % ELEMENT_BYTES:
            raise RackUsageError(lines.NOT_A_SIZE.of(text=item))
        sizes.append(size)
    return tuple(sizes)


def parse_rates(text: str) -> tuple[float | None, ...]:
    """Parse ``100mbit,1gbit,none``: Mbit/s; None for ``none``."""
    rates: list[float | None] = []
    for item in _items("--rate", text):
        rate = None if item.lower() == "none" else parse_rate(item)
        if rate is not None and not 0.1 <= rate <= MAX_MBIT:
            raise RackUsageError(lines.NOT_A_RATE.of(text=item))
        rates.append(rate)
    return tuple(rates)


def parse_limits(text: str) -> tuple[float, ...]:
    """Parse ``100mbit,1gbit``, where links without a limit say nothing: Mbit/s."""
    rates = parse_rates(text)
    limited = tuple(rate for rate in rates if rate is not None)
    if len(limited) < len(rates):
        raise RackUsageError(lines.NO_RATE.of(text=text))
    return limited


def parse_losses(text: str) -> tuple[float | None, ...]:
    """Parse ``none,0,0.1%``: probabilities; None for ``none``. See :class:`Case`."""
    items = _items("--loss", text)
    return tuple(None if item.lower() == "none" else parse_loss(item) for item in items)


def parse_fields(text: str) -> tuple[int, ...]:
    """Parse ``32,16,8``."""
    items = _items("--field", text)
    if not all(item in map(str, FIELDS) for item in items):
        raise RackUsageError(lines.UNKNOWN_FIELDS.of(text=text))
    return tuple(map(int, items))


def parse_transports(text: str) -> tuple[str, ...]:
    """Parse ``udp,shm``."""
    items = _items("--transport", text)
    if not set(items) <= set(TRANSPORTS):
        raise RackUsageError(
            lines.UNKNOWN_TRANSPORT.of(text=text, transports=" or ".join(TRANSPORTS))
        )
    return tuple(items)


def parse_carriers(text: str) -> tuple[str, ...]:
    """Parse ``switch,ranks``."""
    items = _items("--carrier", text)
    if not set(items) <= set(CARRIERS):
        raise RackUsageError(lines.UNKNOWN_CARRIER.of(text=text, carriers=" or ".join(CARRIERS)))
    return tuple(items)


def parse_tcp(text: str) -> tuple[str, ...]:
    """Parse ``cubic,bbr``; empty: the one that this machine uses."""
    machine = Path("/proc/sys/net/ipv4")
    items = tuple(_items("--tcp", text)) if text else ()
    known = (machine / "tcp_available_congestion_control").read_text().split()
    if not set(items) <= set(known):
        raise RackUsageError(lines.UNKNOWN_TCP.of(text=text, known=", ".join(known)))
    return items or ((machine / "tcp_congestion_control").read_text().strip(),)


def rate_text(rate_mbit: float | None) -> str:
    """A rate for people."""
    if rate_mbit is None:
        return "no limit"
    return f"{rate_mbit / 1000:g} Gbit/s" if rate_mbit >= 1000 else f"{rate_mbit:g} Mbit/s"


def size_text(size: int) -> str:
    """A size for people."""
    for unit, bits in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << bits:
            return f"{size / (1 << bits):.6g} {unit}"
    return f"{size} B"
