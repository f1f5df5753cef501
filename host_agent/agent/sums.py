"""Sums over the ranks themselves: what the ranks need to carry collectives without a switch.

The backend provides it, over its own process group; tests provide their own.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Pending(Protocol):
    """A sum on its way."""

    def wait(self) -> object:
        """Wait for its end, without the GIL. Called once. Raises if it has failed."""


class Words(Protocol):
    """Memory for int32 words, and the operations of all ranks on it, in place.

    All ranks start the same operations in the same order, from one thread at a time; several may
    be on their way.
    """

    @property
    def address(self) -> int:
        """Where it lies."""

    def __len__(self) -> int:
        """How many words it holds."""

    def get(self, first: int, count: int) -> list[int]:
        """The values of some words."""

    def put(self, first: int, values: Sequence[int]) -> None:
        """Set some words."""

    def total(self, count: int) -> Pending:
        """Start a sum mod 2^32 of the first ``count`` words."""

    def maximum(self, count: int) -> Pending:
        """Start a maximum of the first ``count`` signed words."""

    def scattered(self, counts: Sequence[int], got: "Words") -> Pending:
        """Start sums mod 2^32 of as many runs of words as there are ranks, one for each rank.

        They lie one after the other, of so many words each. This rank's sum will be the first words
        of ``got``, another memory that holds as many words for each rank.
        """


class Copy(NamedTuple):
    """Bytes that one rank gives others."""

    address: int
    """Where this rank gives them from, or gets them to; 0 on a rank that does neither."""
    size: int
    source: int
    readers: tuple[int, ...]
    """The others that get them."""


class Sums(Protocol):
    """Sums and maxima of words over all ranks, and copies. Any thread may call :meth:`sever`."""

    @property
    def rank(self) -> int:
        """This rank."""

    def words(self, count: int) -> Words:
        """New memory."""

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest value of each place over all ranks, as signed 64-bit numbers. Waits."""

    def copy(self, copies: Sequence[Copy]) -> Pending:
        """Start to copy bytes between ranks; all ranks call it with the same copies."""

    def sever(self) -> None:
        """End what waits, here and on the other ranks, with an error; nothing can start after."""
