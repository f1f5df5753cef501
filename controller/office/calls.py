"""The calls in progress that wait for news of a job, and how they are told of it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError

Turn = tuple[int, int]
"""What a rank joins: the attempt of its job, and the change of the lease in it."""

MAX_CALLS = 512
"""Calls that may wait for news of one job: some for each of its ranks, some for each launcher."""


# An answer takes this much of the time that the caller is willing to wait. Seconds.
_MARGIN_S = 1.0


def until(limit: float, time_left: float | None) -> float:
    """How long to wait at most so that an answer still reaches a caller with ``time_left``."""
    if time_left is None:
        return limit
    return min(limit, time_left - min(_MARGIN_S, time_left / 2))


@dataclass
class CallsInProgress:
    """The calls that wait for news of jobs: JoinJob calls of ranks (joiners), and all others.

    A rank may have two calls for a moment: its first was lost on the way, and it has called again
    before the controller noticed. It is gone when its last call has ended.
    """

    _calls: Counter[tuple[str, Turn, int]] = field(default_factory=Counter)
    _joiners: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    _gave_up: dict[str, tuple[Turn, set[int]]] = field(default_factory=dict)
    """Of each job's latest turn only: attempts are numbers that callers choose."""
    _watchers: dict[str, set[asyncio.Event]] = field(default_factory=dict)

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """A call that waits for news of the job; by itself, it does not keep the job alive."""
        self._check_room(job_id)
        event = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            self._watchers[job_id].discard(event)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    @contextmanager
    def call(self, job_id: str, turn: Turn, rank: int) -> Iterator[asyncio.Event]:
        """A JoinJob call of a rank, which keeps the job alive; the event is set at any news."""
        self._check_room(job_id)
        event = asyncio.Event()
        self._calls[job_id, turn, rank] += 1
        self._joiners.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            self._calls[job_id, turn, rank] -= 1
            if not self._calls[job_id, turn, rank]:
                del self._calls[job_id, turn, rank]
            self._joiners[job_id].discard(event)
            if not self._joiners[job_id]:
                del self._joiners[job_id]
                self._gave_up.pop(job_id, None)

    def _check_room(self, job_id: str) -> None:
        waiting = len(self._watchers.get(job_id, ())) + len(self._joiners.get(job_id, ()))
        if waiting >= MAX_CALLS:
            raise ControllerError(
                "RESOURCE_EXHAUSTED",
                lines.TOO_MANY_WAIT.of(count=waiting, job=job_id),
                retry_after_s=1.0,
            )

    def give_up(self, job_id: str, turn: Turn, rank: int) -> None:
        """A rank that had joined has stopped waiting; remembered as long as others go on."""
        latest, ranks = self._gave_up.get(job_id, (turn, set()))
        if turn > latest:
            latest, ranks = turn, set()
        if turn == latest:
            self._gave_up[job_id] = (turn, ranks | {rank})

    def gave_up(self, job_id: str, turn: Turn) -> set[int]:
        """The ranks that had joined and stopped waiting while other ranks went on."""
        latest, ranks = self._gave_up.get(job_id, (turn, set()))
        return ranks if latest == turn else set()

    def count(self, job_id: str, turn: Turn, rank: int) -> int:
        """How many calls of the rank are in progress."""
        return self._calls[job_id, turn, rank]

    def jobs(self) -> list[str]:
        """The jobs that any rank is joining."""
        return list(self._joiners)

    def notify(self, job_id: str) -> None:
        """Something about the job has changed."""
        for waiting in (self._joiners, self._watchers):
            for event in waiting.get(job_id, ()):
                event.set()
