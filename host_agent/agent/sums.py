"""Sums over the ranks themselves: what the ranks need to carry lanes without a switch.

The backend provides it, over its own process group; tests provide their own.
"""

from collections.abc import Sequence
from typing import Protocol


class Words(Protocol):
    """Memory for int32 words."""

    @property
    def address(self) -> int:
        """Where it lies."""

    def __len__(self) -> int:
        """How many words it holds."""

    def get(self, first: int, count: int) -> list[int]:
        """The values of some words."""

    def put(self, first: int, values: Sequence[int]) -> None:
        """Set some words."""


class Pending(Protocol):
    """A sum on its way."""

    def wait(self) -> object:
        """Wait for its end, without the GIL. Raises if it has failed."""


class Sums(Protocol):
    """All-reduces of words over all ranks, in place.

    All ranks start the same ones in the same order, from one thread at a time; several may be on
    their way. :meth:`sever` may be called from any thread.
    """

    def words(self, count: int) -> Words:
        """New memory."""

    def total(self, words: Words, first: int, count: int) -> Pending:
        """Start a sum mod 2^32."""

    def maximum(self, words: Words, first: int, count: int) -> Pending:
        """Start a maximum of signed words."""

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest value of each place over all ranks, as signed 64-bit numbers. Waits."""

    def sever(self) -> None:
        """End what waits, here and on the other ranks, with an error; nothing can start after."""
