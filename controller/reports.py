"""What ranks last said of their progress. Kept in memory: people look at it, nothing depends on it.

After a restart of the controller the next heartbeats bring it back.
"""

import math
from dataclasses import dataclass, field

from wiresum.controller.clock import Clock
from wiresum.controller.model import Job
from wiresum.controller.v1 import controller_pb2 as pb

SPAN_S = 1.0
"""How far the two reports of a rank should lie apart at least."""

_NUMBERS = ("in_flight_s", "exposed_s", "rtt_s")


@dataclass
class _Attempt:
    """The reports of one attempt of a job: by rank, the latest and the one before, with times."""

    number: int | None
    ranks: dict[int, list[tuple[float, pb.RankReport]]] = field(default_factory=dict)


class Reports:
    """The two latest reports of each rank of each live job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, _Attempt] = {}

    def heard(self, job: Job, report: pb.RankReport) -> None:
        """A worker of ``job`` has said this; what cannot be is ignored."""
        if not job.state.live or report.rank >= job.workers:
            return
        if not all(0 <= getattr(report, name) < math.inf for name in _NUMBERS):
            return
        attempt = self._jobs.get(job.id)
        if attempt is None or attempt.number != job.attempt:
            attempt = self._jobs[job.id] = _Attempt(job.attempt)
        kept = pb.RankReport()
        kept.CopyFrom(report)
        kept.ClearField("before")
        now = self._clock.now()
        earlier = attempt.ranks.get(report.rank, [])
        # News cuts heartbeats short; rates over an instant would be noise.
        if len(earlier) > 1 and now - earlier[0][0] < SPAN_S:
            earlier.pop()
        attempt.ranks[report.rank] = [*earlier[-1:], (now, kept)]

    def forget(self, job: Job) -> None:
        """The job is over."""
        self._jobs.pop(job.id, None)

    def of(self, job: Job) -> list[pb.RankReport]:
        """The reports of the job's current attempt by rank, with ages and the ones before."""
        attempt = self._jobs.get(job.id)
        if attempt is None or attempt.number != job.attempt:
            return []
        now = self._clock.now()
        return [_answer(attempt.ranks[rank], now) for rank in sorted(attempt.ranks)]


def _answer(latest: list[tuple[float, pb.RankReport]], now: float) -> pb.RankReport:
    answer = pb.RankReport()
    answer.CopyFrom(latest[-1][1])
    answer.age_s = max(0.0, now - latest[-1][0])
    if len(latest) > 1:
        answer.before.CopyFrom(latest[0][1])
        answer.before.age_s = max(0.0, now - latest[0][0])
    return answer
