"""The ranks that a job is waiting for, as its ranks' reports tell.

Three signs, each of which says something else:

- **missing**: the attempt is not complete, and the controller knows who has not joined;
- **stopped**: no rank's count of collectives moves, and some have started fewer than others: the
  switch holds open slots for those;
- **late**: all go on, but one rank's collectives take much less time than the others'. A collective
  ends for all at once, so whoever starts it last is in it for the shortest time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from wiresum.controller.carriers import RANKS, carrier_of
from wiresum.controller.v1 import controller_pb2 as pb

LATE_SHARE = 0.05
"""A rank counts as late if the others lose more than this share of their time to it."""
LATE_RATIO = 0.5
"""…and if its collectives take less than this share of the time that the others' take."""
SILENT_HEARTBEATS = 3
"""A rank counts as silent after so many heartbeats without a report."""


@dataclass(frozen=True)
class Straggler:
    """A rank and what is wrong with it, in a few words."""

    rank: int
    why: str


def stragglers(job: pb.Job) -> list[Straggler]:
    """The ranks that the others wait for, by rank; empty if no rank waits."""
    if job.state not in (pb.JOB_STATE_WAITING, pb.JOB_STATE_READY):
        return []
    # Ranks that sum by themselves join again in the background: no rank waits for that.
    if job.missing and carrier_of(job).name != RANKS:
        return [Straggler(rank, "has not joined") for rank in job.missing]
    reports = sorted(job.reports, key=lambda report: report.rank)
    silent = [
        Straggler(report.rank, f"silent for {report.age_s:.0f} s")
        for report in reports
        if job.heartbeat_s and report.age_s > SILENT_HEARTBEATS * job.heartbeat_s
    ]
    return silent or _stopped(reports) or _late(reports)


def _stopped(reports: Sequence[pb.RankReport]) -> list[Straggler]:
    if len(reports) < 2 or any(_moves(report) for report in reports):
        return []
    most = max(report.started for report in reports)
    if all(report.ended == report.started for report in reports):
        return []  # no rank waits
    return [
        Straggler(report.rank, f"has not started all-reduce {report.started + 1}")
        for report in reports
        if report.started < most
    ]


def _moves(report: pb.RankReport) -> bool:
    return not report.HasField("before") or report.started != report.before.started


def _late(reports: Sequence[pb.RankReport]) -> list[Straggler]:
    latencies = {}
    rates = []
    for report in reports:
        before, span = report.before, report.before.age_s - report.age_s
        ended = report.ended - before.ended
        if not report.HasField("before") or span <= 0 or ended <= 0:
            return []
        latencies[report.rank] = (report.in_flight_s - before.in_flight_s) / ended
        rates.append(ended / span)
    found = []
    for rank, latency in latencies.items():
        others = [other for its_rank, other in latencies.items() if its_rank != rank]
        if not others:
            return []
        lost = median(others) - latency
        # Several collectives may be in flight at once, and all of them wait: a share is at most 1.
        share = min(1.0, lost * median(rates))
        if latency < LATE_RATIO * median(others) and share > LATE_SHARE:
            found.append(Straggler(rank, f"late by {_short(lost)} in each all-reduce"))
    return found


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
