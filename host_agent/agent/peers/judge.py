"""Compares the states of all ranks: finds the reason why a waiting collective will never end.

Pure functions over states, which :mod:`.hub` collects. A state describes one moment, and the
moments of two ranks differ: a lost result is believed only after several rounds that agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wiresum.common.errors import LineText
from wiresum.host_agent import lines
from wiresum.host_agent.agent.issued import KEPT, Issued
from wiresum.host_agent.errors import CollectiveMismatch, EngineError, ResultLost

FRESH_S = 1.0
"""The greatest age of a WAIT that describes the present; seconds. A rank that waits asks ten times
a second."""

ROUNDS = 3
"""How many rounds must agree before a result counts as lost. A WAIT may have been on its way when
the result came; the next question is then answered with the result."""

_LONGEST_HOST = 255


class StreamPosition(Protocol):
    """See ``_engine.pyi``."""

    @property
    def oldest(self) -> int:
        """The oldest chunk without a result."""

    @property
    def next(self) -> int:
        """The first chunk that is not open yet."""

    @property
    def wait(self) -> tuple[int, int] | None:
        """The last WAIT: position, and the ranks that the switch has it from, as bits."""

    @property
    def wait_s(self) -> float | None:
        """Seconds since it came."""


@dataclass(frozen=True)
class Stream:
    """The position of a rank in one of its streams of chunks."""

    oldest: int
    next: int
    there: int | None = None
    """If the switch has just said that it waits at ``oldest``: the ranks that it has, as bits."""


@dataclass(frozen=True)
class State:
    """One rank at one moment."""

    epoch: int
    streams: Mapping[str, Stream]
    issued: Sequence[Issued] = ()
    ended: int = 0
    """All-reduces over the switch that have ended here."""

    @property
    def waits(self) -> bool:
        """Whether the switch waits for another rank's part of what this rank waits for."""
        return any(stream.there is not None for stream in self.streams.values())

    def to_message(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "epoch": self.epoch,
            "streams": {name: [s.oldest, s.next, s.there] for name, s in self.streams.items()},
            "issued": [each.to_message() for each in self.issued],
            "ended": self.ended,
        }

    @classmethod
    def from_message(cls, message: Any) -> "State":
        """From :meth:`to_message`. Raises ``ValueError`` for anything else."""
        try:
            streams = {str(name): Stream(*three) for name, three in message["streams"].items()}
            issued = [Issued.from_message(each) for each in message["issued"][:KEPT]]
            numbers = [n for s in streams.values() for n in (s.oldest, s.next, s.there or 0)]
            numbers += [message["epoch"], message["ended"]]
            if not all(type(n) is int for n in numbers) or len(streams) > 4:
                raise ValueError("not a state")
            return cls(message["epoch"], streams, issued, message["ended"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a state: {error}") from None


def stream_at(at: StreamPosition) -> Stream:
    """A stream of an engine that has this in its ``positions()``."""
    waits = at.oldest < at.next and at.wait is not None and at.wait[0] == at.oldest
    fresh = at.wait_s is not None and at.wait_s < FRESH_S
    return Stream(at.oldest, at.next, at.wait[1] if at.wait and waits and fresh else None)


@dataclass(frozen=True)
class Lost:
    """A rank waits for a chunk whose result others have."""

    rank: int
    epoch: int
    stream: str
    chunk: int
    having: tuple[int, ...]
    """Ranks that have the result, and that the switch waits for all the same."""


def lost_result(states: Mapping[int, State], left: Mapping[int, int] | None = None) -> Lost | None:
    """A chunk whose result the switch has forgotten, so that it waits for it in vain.

    ``left``: ranks that are not in the group any more, with the all-reduces that they completed.
    """
    for rank, mine in sorted(states.items()):
        for name, stream in mine.streams.items():
            if stream.there is None:
                continue
            having = [
                other
                for other, theirs in sorted(states.items())
                if theirs.epoch == mine.epoch
                and not stream.there >> other & 1
                and name in theirs.streams
                and theirs.streams[name].oldest > stream.oldest
            ]
            having += [
                other
                for other, completed in sorted((left or {}).items())
                if completed > mine.ended and not stream.there >> other & 1
            ]
            if having:
                return Lost(rank, mine.epoch, name, stream.oldest, tuple(having))
    return None


@dataclass(frozen=True)
class Mismatch:
    """Two ranks that have issued different collectives in the same place."""

    one: int
    other: int
    its: Issued
    others: Issued


def mismatch(states: Mapping[int, State]) -> Mismatch | None:
    """The first place in which two ranks' collectives disagree, if any rank waits."""
    if not any(each.waits for each in states.values()):
        return None
    found: Mismatch | None = None
    latest = {rank: {each.sequence: each for each in s.issued} for rank, s in states.items()}
    for one, its in sorted(latest.items()):
        for other, theirs in sorted(latest.items()):
            if other <= one:
                continue
            for sequence in sorted(its.keys() & theirs.keys()):
                if found is not None and sequence >= found.its.sequence:
                    break
                if not its[sequence].agrees_with(theirs[sequence]):
                    found = Mismatch(one, other, its[sequence], theirs[sequence])
                    break
    return found


@dataclass
class Judge:
    """Takes one round of states after the other; returns an error once it is certain."""

    hosts: Mapping[int, str]
    suspect: Lost | None = None
    """The result that counts as lost once enough rounds have agreed."""
    _rounds: int = 0
    left: dict[int, int] = field(default_factory=dict)
    """See :func:`lost_result`."""

    def forget(self) -> None:
        """Drop the suspicion: this process did not run for a while."""
        self.suspect, self._rounds = None, 0

    def hear(self, states: Mapping[int, State]) -> EngineError | None:
        """The states of one round; the error that all ranks shall end with, if any."""
        differ = mismatch(states)
        if differ is not None:
            return CollectiveMismatch(
                lines.OTHER_COLLECTIVES.of(
                    its=differ.its,
                    one=self._name(differ.one),
                    others=differ.others,
                    other=self._name(differ.other),
                )
            )
        lost = lost_result(states, self.left)
        if lost is None or lost != self.suspect:
            self.suspect, self._rounds = lost, 0 if lost is None else 1
            return None
        self._rounds += 1
        if self._rounds < ROUNDS:
            return None
        return ResultLost(
            lines.RESULT_LOST.of(
                stream=lost.stream,
                chunk=lost.chunk,
                having=", ".join(self._name(rank) for rank in lost.having),
                rank=self._name(lost.rank),
            )
        )

    def _name(self, rank: int) -> str:
        return named(rank, self.hosts.get(rank, ""))


def named(rank: int, host: str) -> str:
    """``rank 1 on node3``."""
    return f"rank {rank} on {host}" if host else f"rank {rank}"


def listed(ranks: Sequence[int], most: int = 8) -> str:
    """``0, 2, 4``; of many, the first."""
    return ", ".join(map(str, ranks[:most])) + (", …" if len(ranks) > most else "")


def numbered(members: Sequence[int]) -> str:
    """Which ranks of the run the ranks of a group are, for errors."""
    return (
        f"ranks {listed(range(len(members)))} of this group are ranks {listed(members)} of the run"
    )


def with_numbers(line: str, members: Sequence[int]) -> str:
    """An error line of a group that says, once, which ranks of the run its ranks are."""
    numbers = f"({numbered(members)})"
    if numbers in line:
        return line
    return LineText(f"{line} {numbers}", getattr(line, "code", ""))


def host_name(given: Any) -> str:
    """A host's name from a message, if it can be printed; empty otherwise."""
    good = isinstance(given, str) and given.isprintable() and len(given) <= _LONGEST_HOST
    return given if good else ""
