"""The options of a rack, as users write them."""

import re
from dataclasses import dataclass

from wiresum.p4 import MAX_WORKERS, program
from wiresum.testbed import lines
from wiresum.testbed.errors import RackUsageError

SWITCHES = ("bmv2", "soft")
MAX_MBIT = 100_000.0
_UNITS = {"bit": 1e-6, "kbit": 1e-3, "mbit": 1.0, "gbit": 1e3}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")


@dataclass(frozen=True)
class RackOptions:
    """One rack: ``workers`` hosts, each on a link of its own to one switch.

    ``rate_mbit`` limits each direction of each link (None: no limit); ``loss`` is the probability
    with which a frame is lost on a link, in each direction. ``offloads``: let the kernel pass
    trains of segments as one frame, as between real hosts and network cards; BMv2 takes single
    frames only.
    """

    switch: str = "soft"
    workers: int = 4
    rate_mbit: float | None = None
    loss: float = 0.0
    lanes: int = 64
    name: str = "rack"
    offloads: bool = False

    def check(self) -> "RackOptions":
        """Return the options; raises :class:`RackUsageError` for what makes no sense."""
        if self.switch not in SWITCHES:
            raise RackUsageError(lines.UNKNOWN_SWITCH_KIND.of(kind=self.switch))
        if not 1 <= self.workers <= MAX_WORKERS:
            raise RackUsageError(
                lines.WORKERS_OUT_OF_RANGE.of(workers=self.workers, most=MAX_WORKERS)
            )
        if self.rate_mbit is not None and not 0.01 <= self.rate_mbit <= MAX_MBIT:
            raise RackUsageError(lines.RATE_OUT_OF_RANGE.of(mbit=self.rate_mbit))
        if not 0 <= self.loss < 1:
            raise RackUsageError(lines.LOSS_OUT_OF_RANGE.of(loss=self.loss))
        if self.offloads and (self.switch == "bmv2" or self.loss):
            raise RackUsageError(lines.OFFLOADS_EXCLUDED.of())
        program(self.lanes)
        return self


def check_name(name: str) -> str:
    """Return a rack's name; raises :class:`RackUsageError` for one that names no namespace."""
    if not _NAME.fullmatch(name):
        raise RackUsageError(lines.NOT_A_RACK_NAME.of(name=name))
    return name


def parse_rate(text: str) -> float | None:
    """Parse ``100mbit``, ``1gbit``, ``500kbit``; empty: None. Gives Mbit/s."""
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(bit|kbit|mbit|gbit)", text.lower())
    if not found:
        raise RackUsageError(lines.NOT_A_RATE.of(text=text))
    return float(found[1]) * _UNITS[found[2]]


def parse_loss(text: str) -> float:
    """Parse ``1%`` or ``0.01``; empty: 0. Gives a probability."""
    if not text:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(%?)", text)
    value = float(found[1]) / (100 if found[2] else 1) if found else 1.0
    if not found or value >= 1:
        raise RackUsageError(lines.NOT_A_LOSS.of(text=text))
    return value
