"""Sums over ranks that are threads of this process: an ``agent.sums.Sums`` without any network."""

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wiresum.host_agent.agent.sums import Copy, Words

LIMIT_S = 60.0


class NumpyWords:
    """Words in an array."""

    def __init__(self, sums: "ThreadSums", count: int) -> None:
        self._sums = sums
        self.array = np.zeros(count, np.int32)

    @property
    def address(self) -> int:
        return int(self.array.ctypes.data)

    def __len__(self) -> int:
        return len(self.array)

    def get(self, first: int, count: int) -> list[int]:
        return [int(each) for each in self.array[first : first + count]]

    def put(self, first: int, values: Sequence[int]) -> None:
        self.array[first : first + len(values)] = values

    def total(self, count: int) -> "_Pending":
        return self._sums.start("total", self.array[:count], _total)

    def maximum(self, count: int) -> "_Pending":
        return self._sums.start("maximum", self.array[:count], np.maximum.reduce)

    def scattered(self, counts: Sequence[int], got: Words) -> "_Pending":
        # The sum of all of them, of which this rank takes its own.
        first, mine = sum(counts[: self._sums.rank]), counts[self._sums.rank]
        assert len(got) >= mine * len(counts)
        assert isinstance(got, NumpyWords)
        part = self.array[: sum(counts)].copy()

        def take() -> None:
            got.array[:] = -1
            got.array[:mine] = part[first : first + mine]

        return self._sums.start(f"scattered {list(counts)}", part, _total, take)


def _total(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    total = np.sum([part.view(np.uint32) for part in parts], axis=0, dtype=np.uint32)
    return np.asarray(total).view(np.int32)


class Meeting:
    """Where the ranks' parts of one sum meet: the last one adds them up."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.changed = threading.Condition()
        self.parts: dict[tuple[str, int], dict[int, NDArray[Any]]] = {}
        self.severed = False

    def add(
        self,
        key: tuple[str, int],
        rank: int,
        part: NDArray[Any],
        combine: Callable[[Any], NDArray[Any]],
    ) -> None:
        with self.changed:
            parts = self.parts.setdefault(key, {})
            parts[rank] = part
            if len(parts) == self.ranks:
                result = combine(list(parts.values()))
                for each in parts.values():
                    each[...] = result
                del self.parts[key]
                self.changed.notify_all()

    def wait(self, key: tuple[str, int]) -> None:
        with self.changed:
            done = self.changed.wait_for(lambda: key not in self.parts or self.severed, LIMIT_S)
            assert done, f"sum {key} did not end"
            if key in self.parts:
                raise ConnectionError("Connection closed by peer")


class _Pending:
    def __init__(
        self, meeting: Meeting, key: tuple[str, int], then: Callable[[], None] = lambda: None
    ) -> None:
        self._meeting, self._key, self._then = meeting, key, then

    def wait(self) -> None:
        self._meeting.wait(self._key)
        self._then()


class ThreadSums:
    """One rank's ``Sums``."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting, self.rank = meeting, rank
        self._count = 0

    def words(self, count: int) -> NumpyWords:
        return NumpyWords(self, count)

    def start(
        self,
        what: str,
        part: NDArray[Any],
        combine: Callable[[Any], Any],
        then: Callable[[], None] = lambda: None,
    ) -> _Pending:
        if self._meeting.severed:
            raise ConnectionError("Connection closed by peer")
        self._count += 1
        key = (f"{what} of {len(part)}", self._count)
        self._meeting.add(key, self.rank, part, combine)
        return _Pending(self._meeting, key, then)

    def copy(self, copies: Sequence[Copy]) -> _Pending:
        # All bytes of all copies, added to zeros.
        sizes = [each.size for each in copies]
        part = np.zeros(sum(sizes), np.uint8)
        starts = np.cumsum([0, *sizes])
        for first, each in zip(starts, copies, strict=False):
            if each.source == self.rank:
                part[first : first + each.size] = np.frombuffer(
                    ctypes.string_at(each.address, each.size), np.uint8
                )

        def take() -> None:
            for first, each in zip(starts, copies, strict=False):
                if self.rank in each.readers:
                    found = part[first : first + each.size].tobytes()
                    ctypes.memmove(each.address, found, each.size)

        what = f"copy {[(each.size, each.source, each.readers) for each in copies]}"
        return self.start(what, part, lambda parts: np.sum(parts, axis=0, dtype=np.uint8), take)

    def largest(self, values: Sequence[int]) -> list[int]:
        part = np.array(values, np.int64)
        self.start("largest", part, np.maximum.reduce).wait()
        return [int(each) for each in part]

    def sever(self) -> None:
        with self._meeting.changed:
            self._meeting.severed = True
            self._meeting.changed.notify_all()


def thread_sums(ranks: int) -> list[ThreadSums]:
    """One for each rank."""
    meeting = Meeting(ranks)
    return [ThreadSums(meeting, rank) for rank in range(ranks)]
