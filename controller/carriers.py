"""What sums a job's collectives, as its ranks report: its switch, or the ranks themselves."""

from collections.abc import Iterable
from dataclasses import dataclass

from wiresum.controller.v1 import controller_pb2 as pb

SWITCH, RANKS = "switch", "ranks"
CARRIERS = (SWITCH, RANKS)
"""The values of ``RankReport.carrier``."""


@dataclass(frozen=True)
class Carrier:
    """``name`` is one of :data:`CARRIERS` or empty; ``reason``: why the ranks sum, in one line."""

    name: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.reason else self.name


WAITS = "it waits for room on a switch"
"""Why the ranks of a job in the queue sum."""


def carrier_of(job: pb.Job) -> Carrier:
    """The carrier of a job, also of one in the queue whose training goes on."""
    if job.state == pb.JOB_STATE_QUEUED:
        return Carrier(RANKS, WAITS) if job.started else Carrier()
    return carrier(job.reports)


def carrier(reports: Iterable[pb.RankReport]) -> Carrier:
    """The carrier of a job with these reports: the ranks if any rank says so.

    It is empty if no rank has said anything.
    """
    said = [Carrier(each.carrier, each.carrier_reason) for each in reports if each.carrier]
    ranks = [each for each in said if each.name == RANKS]
    return (ranks or said or [Carrier()])[0]
