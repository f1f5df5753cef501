"""The last reports of ranks on their progress. In memory: they are for people only.

After a restart of the controller the next heartbeats bring it back.
"""

import math
from dataclasses import dataclass, field

from wiresum.common.logs import one_line
from wiresum.controller.carriers import CARRIERS
from wiresum.controller.clock import Clock
from wiresum.controller.state.model import Job
from wiresum.controller.v1 import controller_pb2 as pb

SPAN_S = 1.0
"""How far two reports of a rank lie apart if there are any: rates over an instant are noise."""

_Sample = tuple[float, pb.RankReport]

_LONGEST_REASON = 500

_NUMBERS = ("in_flight_s", "exposed_s", "rtt_s")


@dataclass
class _Attempt:
    """The reports of one attempt of a job, by rank, with the times at which they came."""

    number: int | None
    ranks: dict[int, list[_Sample]] = field(default_factory=dict)


class Reports:
    """The latest report of each rank of each live job, and one before it."""

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
        kept.carrier = kept.carrier if kept.carrier in CARRIERS else ""
        kept.carrier_reason = one_line(kept.carrier_reason)[:_LONGEST_REASON]
        samples = attempt.ranks.setdefault(report.rank, [])
        _add(samples, self._clock.now(), kept)

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


def _add(samples: list[_Sample], now: float, report: pb.RankReport) -> None:
    """Keep the first of what the next answers may need: a handful, however fast they come."""
    if len(samples) > 1 and samples[-1][0] - samples[-2][0] < SPAN_S / 4:
        samples.pop()
    samples.append((now, report))
    while len(samples) > 2 and samples[1][0] <= now - SPAN_S:
        samples.pop(0)


def _answer(samples: list[_Sample], now: float) -> pb.RankReport:
    answer = pb.RankReport()
    answer.CopyFrom(samples[-1][1])
    answer.age_s = max(0.0, now - samples[-1][0])
    if len(samples) > 1:
        answer.before.CopyFrom(samples[0][1])
        answer.before.age_s = max(0.0, now - samples[0][0])
    return answer
