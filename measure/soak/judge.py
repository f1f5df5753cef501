"""Judges what the workers of a soak say: the first difference, hang or unasked restart ends it.

Pure: it gets lines and the time, and reads neither files nor clocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wiresum.common.errors import WiresumError
from wiresum.measure import lines

START_FACTOR = 2.0
"""A rank may take so many times as long for its first step, or the first one after a restart."""


class SoakFailed(WiresumError):
    """The soak has found a fault of the product."""


@dataclass(frozen=True)
class Step:
    """One step of one rank, as it says it.

    ``pid``: its process. ``lap`` and ``step`` count from 0. ``digest``: hashes of the sums of its
    own all-reduces and of its weights after it, with ``-`` between. ``carrier``: what sums its
    collectives. ``took_s``: how long the step took.
    """

    pid: int
    lap: int
    step: int
    digest: str
    carrier: str
    took_s: float


@dataclass
class _Rank:
    since: float
    limit_s: float
    last: Step | None = None
    starts: int = 0


@dataclass
class _Seen:
    """Of one job, since the last :meth:`Judge.news`."""

    carriers: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    restarted: bool = False


@dataclass
class _Job:
    expected: Sequence[str]
    ranks: list[_Rank]
    kills: int = 0
    killed_s: float = 0.0
    leaves: bool = False
    seen: _Seen = field(default_factory=_Seen)


@dataclass
class Totals:
    """Of a whole soak. Times in seconds."""

    steps: int = 0
    restarts: int = 0
    to_ranks: int = 0
    to_switch: int = 0
    by_carrier: dict[str, int] = field(default_factory=dict)
    longest_s: float = 0.0


class Judge:
    """Compares each step of each rank with the undisturbed training of its job."""

    def __init__(self, limit_s: float) -> None:
        """``limit_s``: from one step of a rank to its next, whatever fails meanwhile."""
        self.totals = Totals()
        self._jobs: dict[str, _Job] = {}
        self._limit_s = limit_s
        self._start_limit_s = START_FACTOR * limit_s

    def begins(self, job: str, expected: Sequence[str], workers: int, now: float) -> None:
        """A job is started. ``expected``: the digests of the steps of a lap."""
        ranks = [_Rank(now, self._start_limit_s) for _ in range(workers)]
        self._jobs[job] = _Job(expected, ranks)

    def kills(self, job: str, now: float) -> None:
        """A worker of the job is killed: all its ranks may start again, once."""
        found = self._jobs[job]
        found.kills += 1
        found.killed_s = now
        for rank in found.ranks:
            rank.since, rank.limit_s = now, self._start_limit_s

    def leaves(self, job: str) -> None:
        """The job may end after its lap."""
        self._jobs[job].leaves = True

    def steps(self, job: str, rank: int, step: Step, now: float) -> None:
        """A rank has done a step. Raises :class:`SoakFailed` if that is not what must be."""
        found = self._jobs[job]
        each = found.ranks[rank]
        self._check_order(job, found, rank, step)
        wanted = found.expected[step.step]
        if step.digest != wanted:
            raise SoakFailed(
                lines.SOAK_DIFFERS.of(
                    job=job,
                    rank=rank,
                    lap=step.lap,
                    step=step.step,
                    carrier=step.carrier,
                    digest=step.digest,
                    wanted=wanted,
                )
            )
        self._note(found, rank, step)
        each.last, each.since, each.limit_s = step, now, self._limit_s

    def _check_order(self, job: str, found: _Job, rank: int, step: Step) -> None:
        """Each step follows the one before; after a restart, some steps are done again."""
        each = found.ranks[rank]
        last = each.last
        length = len(found.expected)
        at = step.lap * length + step.step
        follows = 0 if last is None else last.lap * length + last.step + 1
        if last is None or step.pid != last.pid:
            each.starts += 1
            if each.starts > 1:
                found.seen.restarted = True
                self.totals.restarts += 1
            if each.starts > 1 + found.kills:
                raise SoakFailed(lines.SOAK_RESTARTS.of(job=job, rank=rank, kills=found.kills))
            right = at <= follows
        else:
            right = at == follows
        if not right or step.step >= length:
            raise SoakFailed(
                lines.SOAK_SKIPS.of(
                    job=job, rank=rank, lap=step.lap, step=step.step, steps=length, done=follows
                )
            )

    def _note(self, found: _Job, rank: int, step: Step) -> None:
        seen, totals = found.seen, self.totals
        totals.steps += 1
        totals.by_carrier[step.carrier] = totals.by_carrier.get(step.carrier, 0) + 1
        totals.longest_s = max(totals.longest_s, step.took_s)
        seen.longest_s = max(seen.longest_s, step.took_s)
        if rank != 0:
            return
        last = found.ranks[0].last
        before = last.carrier if last is not None and last.pid == step.pid else step.carrier
        if not seen.carriers:
            seen.carriers.append(before)
        if seen.carriers[-1] != step.carrier:
            seen.carriers.append(step.carrier)
        if before != step.carrier:
            if step.carrier == "ranks":
                totals.to_ranks += 1
            else:
                totals.to_switch += 1

    def look(self, now: float) -> None:
        """Raise :class:`SoakFailed` if a rank has done nothing for too long, or was not started
        again after a kill."""
        for name, job in self._jobs.items():
            for number, rank in enumerate(job.ranks):
                if now - rank.since > rank.limit_s:
                    last = "none yet" if rank.last is None else f"{rank.last.lap}:{rank.last.step}"
                    raise SoakFailed(
                        lines.SOAK_HANGS.of(job=name, rank=number, limit_s=rank.limit_s, last=last)
                    )
                late = now - job.killed_s > self._start_limit_s
                if job.kills and late and rank.starts <= job.kills:
                    raise SoakFailed(
                        lines.SOAK_NO_RESTART.of(job=name, rank=number, limit_s=self._start_limit_s)
                    )

    def ends(self, job: str, status: int, why: str, log: object) -> None:
        """A job has ended, with torchrun's ``status``. Raises if it should not, or not so."""
        found = self._jobs.pop(job)
        if status or not found.leaves:
            raise SoakFailed(lines.SOAK_JOB_ENDS.of(job=job, status=status, reason=why, log=log))
        at = {(r.last.lap, r.last.step) if r.last is not None else None for r in found.ranks}
        if len(at) != 1 or at == {None} or next(iter(at))[1] != len(found.expected) - 1:  # type: ignore[index]
            raise SoakFailed(lines.SOAK_UNEVEN.of(job=job, ends=sorted(map(str, at))))

    def done(self, job: str) -> int:
        """How many steps the slowest rank of a job has done, laps included; -1 if it is over."""
        found = self._jobs.get(job)
        if found is None:
            return -1
        length = len(found.expected)
        return min(
            0 if r.last is None else r.last.lap * length + r.last.step + 1 for r in found.ranks
        )

    def fresh(self, job: str, since: float) -> bool:
        """Whether each rank of the job has done a step that began after ``since``.

        A job that is over counts as fresh.

        After a kill: a step since its restart.
        """
        found = self._jobs.get(job)
        return found is None or all(
            rank.last is not None
            and rank.starts == 1 + found.kills
            and rank.since - rank.last.took_s > since
            for rank in found.ranks
        )

    @property
    def running(self) -> list[str]:
        """The jobs that have not ended."""
        return list(self._jobs)

    def news(self) -> str:
        """What has become of each job since the last call, in words."""
        parts = []
        for name, job in self._jobs.items():
            seen, job.seen = job.seen, _Seen()
            carriers = " → ".join(seen.carriers) or "no step"
            restarted = ", started again" if seen.restarted else ""
            parts.append(f"{name} {carriers}, longest step {seen.longest_s:.1f} s{restarted}")
        return "; ".join(parts)
