"""This process's place in its group, with everything that joining a job needs."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.host_agent.environment import LONGEST_S, Carrier, Environment

SWITCH_TIMEOUT_S = 10.0
"""For a run that insists on the switch; seconds."""

CARRIER_TIMEOUT_S = 4.0
"""For a run that goes on over the ranks; seconds."""


class Store(Protocol):
    """The part of ``torch.distributed.Store`` that joining needs."""

    def set(self, key: str, value: str) -> None:
        """Publish."""

    def get(self, key: str) -> bytes:
        """Read; waits for the key."""

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Wait for keys; raises on timeout."""

    def check(self, keys: list[str]) -> bool:
        """Whether all of them are there."""

    def add(self, key: str, amount: int) -> int:
        """Count."""


class Whole(Protocol):
    """The worker in the job of all ranks, of which a group's job is a part."""

    def lends(self) -> tuple[str, str] | None:
        """The job and its token, of which a part can be had now; None: not yet."""

    def add_part(self, part: "PartOfWhole") -> None:
        """Tell it from now on which ranks are gone; it is held weakly."""

    @property
    def ended(self) -> WiresumError | None:
        """Why the job has ended for all its groups."""


class Departure(Protocol):
    """A rank that has died or left: see ``peers.member.Gone``."""

    @property
    def rank(self) -> int:
        """Its number in the whole."""

    @property
    def after(self) -> int | None:
        """If it has left: how many collectives of the whole it has completed. None: it died."""

    def line(self, waits: str = "") -> str:
        """One line about its end, and what this rank waits in."""


class PartOfWhole(Protocol):
    """A worker in the job of a group."""

    def rank_is_gone(self, gone: Departure) -> None:
        """A rank of the whole has died or left."""


@dataclass(frozen=True)
class Part:
    """What makes a group's job a part of the job of all ranks."""

    name: str
    """Its own among the parts of the job."""
    members: tuple[int, ...]
    """The group's ranks, by their numbers in the whole."""
    whole: Whole
    label: str
    """What logs and errors call the group."""
    share: float
    """Of the job's slots, that its part asks for."""


@dataclass(frozen=True)
class Worker:
    """Rank ``rank`` of ``workers``, started with the environment ``where``.

    ``store`` is the group's key-value store, through which rank 0 tells the others the attempt;
    ``generation`` tells groups of one process apart there. ``timeout`` is the group's own limit.
    """

    where: Environment
    store: Store
    rank: int
    workers: int
    timeout: timedelta
    generation: str
    endpoint: str = ""
    """``HOST:PORT`` of the store, if it has one; process groups differ in it."""
    round: int = 0
    """How many times the ranks have joined again after they had left the switch."""
    part: Part | None = None
    """For a group of some of the ranks; None for the group of all."""

    @property
    def key(self) -> str:
        """The key in the store under which this group's ranks agree."""
        again = f"/{self.round}" if self.round else ""
        return f"wiresum/join/{self.generation}{again}"

    @property
    def join_s(self) -> float:
        """How long joining may take: ``where.timeout_s``, or the group's own limit, as in torch."""
        return min(self.where.timeout_s or self.timeout.total_seconds(), LONGEST_S)

    @property
    def collective_s(self) -> float:
        """How long a collective may go without a result."""
        return min(self.where.timeout_s or self.timeout.total_seconds(), LONGEST_S)

    @property
    def switch_s(self) -> float:
        """How long the switch may say nothing at all while a collective waits.

        ``where.switch_timeout_s``, or 4 s (10 s where the run ends then); never more than a
        collective may take.
        """
        usual = CARRIER_TIMEOUT_S if self.may_leave_switch else SWITCH_TIMEOUT_S
        return min(self.where.switch_timeout_s or usual, self.collective_s)

    @property
    def may_leave_switch(self) -> bool:
        """Whether the ranks carry what the switch does not."""
        return self.where.carrier is not Carrier.SWITCH
