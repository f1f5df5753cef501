"""The collectives that a group has issued. Ranks are compared by them when one of them waits.

This module does not know torch: the backend records collectives, ``peers`` compares ranks.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from wiresum.common.errors import WiresumError

SWITCH, FALLBACK = "switch", "fallback"

KEPT = 64
"""How many of the latest collectives are kept: as many as a rank may have in flight."""


@dataclass(frozen=True)
class Issued:
    """One collective of a group. The ranks' collectives of one ``sequence`` belong together."""

    sequence: int
    """Its number in the group, from 1."""
    name: str
    """``all_reduce``, ``broadcast``, …"""
    path: str
    """``switch`` or ``fallback``."""
    op: str = ""
    """``SUM``, ``AVG``, …; empty where it is not known or means nothing."""
    dtype: str = ""
    """Of the tensors, such as ``float32``; empty where it is not known or may differ."""
    elements: int | None = None
    """Of all tensors together; None where it is not known or may differ between ranks."""

    def __str__(self) -> str:
        what = " ".join(
            str(each) for each in (self.elements, self.dtype, self.op) if each not in (None, "")
        )
        over = "the switch" if self.path == SWITCH else "the fallback"
        return f"{self.name} {self.sequence} ({what + ', ' if what else ''}over {over})"

    def agrees_with(self, other: "Issued") -> bool:
        """Whether two ranks that issue these in the same place can complete them."""
        if (self.name, self.path) != (other.name, other.path):
            return False
        pairs = ((self.op, other.op), (self.dtype, other.dtype), (self.elements, other.elements))
        return all(mine in (None, "") or theirs in (None, "", mine) for mine, theirs in pairs)

    def to_message(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Any) -> "Issued":
        """From :meth:`to_message`. Raises ``ValueError`` for anything else."""
        try:
            made = cls(**message)
        except TypeError as error:
            raise ValueError(str(error)) from None
        texts = (made.name, made.path, made.op, made.dtype)
        if type(made.sequence) is not int or not all(
            isinstance(text, str) and len(text) <= 64 and text.isprintable() for text in texts
        ):
            raise ValueError("not a collective")
        if made.elements is not None and type(made.elements) is not int:
            raise ValueError("not a number of elements")
        return made


class Ledger:
    """The latest collectives of one group, numbered. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._latest: deque[tuple[Any, ...]] = deque(maxlen=KEPT)  # what makes an `Issued` each

    def issue(
        self, name: str, path: str, op: str = "", dtype: str = "", elements: int | None = None
    ) -> int:
        """Record the next collective; returns its number.

        Only for collectives that all ranks issue in the same order: not for those of one rank
        alone (send, recv), nor for those of callbacks.
        """
        with self._lock:
            self._count += 1
            self._latest.append((self._count, name, path, op, dtype, elements))
            return self._count

    def issued(self) -> Sequence[Issued]:
        """The latest collectives, the oldest first."""
        with self._lock:
            latest = tuple(self._latest)
        return tuple(Issued(*each) for each in latest)


class Group(Protocol):
    """The part of a process group that ``peers`` uses. Any thread may call it."""

    def issued(self) -> Sequence[Issued]:
        """The latest collectives of this rank, the oldest first; at most :data:`KEPT`."""

    def abort(self, error: WiresumError) -> None:
        """End what the fallback has in flight, if anything, with ``error``. Must not block."""


class NoGroup:
    """Stands in until there is one."""

    def issued(self) -> Sequence[Issued]:
        """None."""
        return ()

    def abort(self, error: WiresumError) -> None:
        """Nothing to end."""
