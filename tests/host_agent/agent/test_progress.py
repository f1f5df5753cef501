"""A worker's report to the controller."""

import pytest

from wiresum.host_agent.agent import progress as module
from wiresum.host_agent.agent.counters import Counters


def test_a_report_says_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    monkeypatch.setattr(module, "COUNTERS", counters)
    counters.count_carried("all_reduce", 2, 100, ranks=False)
    counters.count_carried("all_reduce_coalesced", 3, 100, ranks=True)
    counters.count_fallback("barrier", "because", 8, level=0)
    counters.count_ended(0.25)
    counters.count_exposed(0.125)
    engine = {
        "contributions": 7, "retransmissions": 1, "bytes_sent": 1000, "header_bytes_sent": 42,
        "rtt_us": 150.0, "window": 64,
    }  # fmt: skip
    report = module.progress(3, engine)
    assert (report.rank, report.started, report.ended, report.fallback) == (3, 2, 1, 1)
    assert (report.in_flight_s, report.exposed_s) == (0.25, 0.125)
    assert (report.chunks, report.retransmissions, report.window) == (7, 1, 64)
    assert report.bytes_sent == 1042
    assert report.rtt_s == pytest.approx(150e-6)
    assert module.progress(0, {}).chunks == 0, "an engine that has been closed"
