"""What sums a job's collectives, as its ranks report: the switch, or the ranks themselves."""

from dataclasses import dataclass

from wiresum.controller.v1 import controller_pb2 as pb

SWITCH, RANKS = "switch", "ranks"


@dataclass(frozen=True)
class Carrier:
    """``name`` is ``switch``, ``ranks`` or empty; ``reason`` is why the ranks sum, in one line."""

    name: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" if self.reason else self.name


def carrier(job: pb.Job) -> Carrier:
    """Of a live job; the ranks' if any rank says so. Empty where no rank has reported."""
    said = [Carrier(report.carrier, report.carrier_reason) for report in job.reports]
    ranks = [each for each in said if each.name == RANKS]
    return (ranks or said or [Carrier()])[0]
