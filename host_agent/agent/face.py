"""The engine as the backend sees it: the C++ engine itself, or a relay in front of engines.

A collective is a *unit*: a list of pieces that an engine takes together. Each piece is a sum or a
copy, and has a ticket.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

ALL, ONLY, ALL_BUT = 0, 1, 2
"""Who gets a piece's result: all ranks, only one, or all but one."""

BYTES = "bytes"
"""The ``dtype`` of a copy."""


class Call(NamedTuple):
    """One piece, as the engine's ``collect`` takes it. The ranks differ in ``data`` alone."""

    data: int
    """Where it lies. 0 on a rank that neither gives a copy nor gets it."""
    count: int  # type: ignore[assignment]  # a tuple has a method of that name
    """Elements of a sum; bytes of a copy."""
    dtype: str
    """float32, float16, bfloat16, int32 (summed mod 2^32), max_uint32 (the largest is the result),
    or :data:`BYTES`."""
    average: bool
    """A mean; for floats."""
    ticket: int
    """Counts up."""
    source: int = -1
    """The rank whose bytes are copied; -1: a sum over all ranks."""
    readers: int = ALL
    """:data:`ALL`, :data:`ONLY` or :data:`ALL_BUT`."""
    reader: int = -1
    """The rank that ``readers`` names; -1 for all."""
    field: int = 0
    """Bits of an element, for floats in tensors that are not small; 0: as the engine was told."""

    def read_by(self, rank: int) -> bool:
        """Whether ``rank`` gets the result."""
        return self.readers == ALL or (rank == self.reader) == (self.readers == ONLY)


Unit = Sequence[Call]
"""The pieces of one collective."""


class Finished(Protocol):
    """The end of one piece, as the engine reports it."""

    @property
    def ticket(self) -> int:
        """The ticket of the piece."""

    @property
    def error(self) -> str | None:
        """One line, or None for success."""

    @property
    def kind(self) -> str | None:
        """The kind of error: the name of a class in ``wiresum.host_agent.errors``."""

    @property
    def nonfinite(self) -> Sequence[tuple[int, int]]:
        """Ranges (first element, count) that hold Inf or NaN on some rank.

        The engine has left them as they were; their sums are for the caller to get. The same on all
        ranks.
        """


@dataclass(frozen=True)
class Ended:
    """The end of a piece that the C++ engine does not report: see :class:`Finished`."""

    ticket: int
    error: str | None
    kind: str | None
    nonfinite: Sequence[tuple[int, int]] = ()


class EngineFace(Protocol):
    """The part of the C++ engine that the backend uses."""

    def collect(self, pieces: Unit) -> object:
        """Start the pieces of one collective, in place: all of them or, with an error, none.

        A sum reads ``data`` on all ranks and writes it on the readers; a copy reads it on its
        source and writes it on the readers other than the source. The caller keeps the memory
        alive until the ticket has been reported by :meth:`poll`.
        """

    @property
    def suspended(self) -> str | None:
        """Why it stands still, for another carrier to take over; None while it works."""

    @property
    def started(self) -> int:
        """How many pieces this engine has taken so far."""

    def poll(self, timeout_s: float) -> Sequence[Finished]:
        """Wait without the GIL until at least one ticket ends; empty on timeout or close."""

    def stats(self) -> dict[str, int | float]:
        """Counters of this engine."""

    def positions(self) -> Mapping[str, Any]:
        """How far its streams are: see ``_engine.pyi``."""

    def fail(self, kind: str, line: str) -> None:
        """End everything in flight, and all that comes, with an error of that kind."""

    def close(self) -> None:
        """End the engine's thread; unfinished tickets end with an error. May be called twice."""

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
