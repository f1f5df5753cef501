"""The owners of jobs: of the process groups that hold a job's token, one has the job.

One `wiresum run` may start more than one group: of a helper, of a second training. The first has
the job until its ranks have left. Its ranks name it as ``owner``: a name that the group chooses,
and keeps when it is made anew.

Everything is in memory: groups are known by their calls in progress. When a rank dies, its calls
end at once; a rank whose call was answered must call again soon.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wiresum.controller import lines
from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.presence import Presence
from wiresum.controller.rules.checks import check_rank
from wiresum.p4 import MAX_WORKERS

_LONGEST_NAME = 128


@dataclass
class _Ranks:
    """The ranks of one job's owner."""

    owner: str
    there: Presence
    """By their numbers."""
    where: str = ""


@dataclass(frozen=True)
class Claim:
    """The answer to a group that wants the job."""

    granted: bool
    lives: bool = False
    """Whether another group certainly has it; if not, ask again soon."""
    where: str = ""
    """The host of the other group's rank 0; empty if it is not known."""


class Owners:
    """The owners of all jobs. Methods raise :class:`ControllerError`."""

    def __init__(self, clock: Clock, heartbeat_s: float, expiry_s: float) -> None:
        """``heartbeat_s``: how often a rank calls; after ``expiry_s`` of silence it is gone."""
        self._clock = clock
        self._expiry_s = expiry_s
        # Owners from before a restart of the controller call again before then.
        self._known_from = clock.now() + 2 * heartbeat_s
        self._jobs: dict[str, _Ranks] = {}

    def claim(self, job_id: str, owner: str, where: str, *, joined: bool) -> Claim:
        """A group wants the job. ``joined``: some group has joined it and may still have it."""
        _check(owner, where)
        if not owner:
            raise ControllerError("INVALID_ARGUMENT", lines.NO_OWNER.of())
        ranks = self._jobs.get(job_id)
        if ranks is None and joined and self._clock.now() < self._known_from:
            return Claim(False)
        if ranks is not None and ranks.owner != owner:
            if ranks.there.calling:
                return Claim(False, lives=True, where=ranks.where)
            if ranks.there.expected:
                return Claim(False, where=ranks.where)
            ranks = None
        if ranks is None:
            ranks = self._new(job_id, owner)
        ranks.where = where
        ranks.there.expect(0)  # is about to join
        return Claim(True)

    @contextmanager
    def call(self, job_id: str, owner: str, rank: int) -> Iterator[None]:
        """A call of a rank is in progress. Does nothing for a caller without an owner.

        Refuses the ranks of a group that does not have the job, or no longer.
        """
        _check(owner)
        if not owner:
            yield
            return
        ranks = self._jobs.get(job_id)
        if ranks is None:
            # The controller was restarted, or the owner has been away for longer than it may.
            ranks = self._new(job_id, owner)
        if ranks.owner != owner:
            raise ControllerError(
                "ABORTED",
                lines.TAKEN_OVER.of(on=_on(ranks.where), job=job_id),
            )
        check_rank(rank, MAX_WORKERS)
        with ranks.there.call(rank):
            yield

    def left(self, job_id: str, owner: str, rank: int) -> None:
        """A rank has left its group, and waits for nothing any more."""
        ranks = self._jobs.get(job_id)
        if ranks is not None and owner and ranks.owner == owner:
            ranks.there.left(rank)

    def forget(self, job_id: str) -> None:
        """The job is over."""
        self._jobs.pop(job_id, None)

    def keep(self, job_ids: Iterable[str]) -> None:
        """Forget all jobs but these: ranks may also call about jobs that are over."""
        live = set(job_ids)
        self._jobs = {job_id: ranks for job_id, ranks in self._jobs.items() if job_id in live}

    def _new(self, job_id: str, owner: str) -> _Ranks:
        made = self._jobs[job_id] = _Ranks(owner, Presence(self._clock, self._expiry_s))
        return made


def _on(where: str) -> str:
    return f" (rank 0 on {where})" if where else ""


def _check(*names: str) -> None:
    for name in names:
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise ControllerError(
                "INVALID_ARGUMENT",
                lines.NOT_AN_OWNER.of(name=name[:40], most=_LONGEST_NAME),
            )
