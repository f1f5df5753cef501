"""The engine as the backend sees it: the C++ engine itself, or a relay in front of engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Call = tuple[int, int, str, bool, int]
"""Arguments of ``all_reduce``; the last one is the ticket."""


class Finished(Protocol):
    """The end of one all-reduce, as the engine reports it."""

    @property
    def ticket(self) -> int:
        """The ticket that ``all_reduce`` was given."""

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
    """The end of a collective that the C++ engine does not report: see :class:`Finished`."""

    ticket: int
    error: str | None
    kind: str | None
    nonfinite: Sequence[tuple[int, int]] = ()


class EngineFace(Protocol):
    """The part of the C++ engine that the backend uses."""

    def all_reduce(self, data: int, count: int, dtype: str, average: bool, ticket: int) -> object:
        """Start an in-place all-reduce of ``count`` elements at address ``data``.

        ``dtype`` is float32, float16, bfloat16, int32 (summed mod 2^32) or max_uint32 (the largest
        is the result); ``average`` is for floats. ``ticket`` counts up. The caller keeps the memory
        alive until the ticket has been reported by :meth:`poll`.
        """

    @property
    def suspended(self) -> str | None:
        """Why it stands still, for another carrier to take over; None while it works."""

    @property
    def started(self) -> int:
        """How many all-reduces this engine has taken so far."""

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
