"""The progress report in a worker's heartbeats, by which the controller finds late ranks."""

from collections.abc import Mapping

from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.agent.counters import COUNTERS


def progress(rank: int, engine: Mapping[str, float]) -> pb.RankReport:
    """The report of ``rank``, whose engine has counted ``engine`` (its ``stats()``)."""
    counts = COUNTERS.snapshot()
    return pb.RankReport(
        rank=rank,
        started=sum(counts["switch"].values()) + sum(counts["ranks"].values()),
        ended=counts["ended"],
        in_flight_s=counts["in_flight_s"],
        exposed_s=counts["exposed_s"],
        chunks=int(engine.get("contributions", 0)),
        retransmissions=int(engine.get("retransmissions", 0)),
        bytes_sent=int(engine.get("bytes_sent", 0) + engine.get("header_bytes_sent", 0)),
        rtt_s=engine.get("rtt_us", 0.0) * 1e-6,
        window=int(engine.get("window", 0)),
        fallback=sum(sum(reasons.values()) for reasons in counts["fallback"].values()),
    )
