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


def carrier(reports: Iterable[pb.RankReport]) -> Carrier:
    """The carrier of a job with these reports: the ranks if any rank says so.

    It is empty if no rank has said anything.
    """
    said = [Carrier(each.carrier, each.carrier_reason) for each in reports if each.carrier]
    ranks = [each for each in said if each.name == RANKS]
    return (ranks or said or [Carrier()])[0]
