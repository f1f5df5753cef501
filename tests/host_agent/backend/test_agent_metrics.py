"""The worker's metrics: what a process has done, in Prometheus' words."""

import multiprocessing
import os
import urllib.request
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
from fakes import Ended, FakeAgent, FakeEngine, group_of_one
from prometheus_client.parser import text_string_to_metric_families

from support.engines import open_engine
from wiresum.common.address import AddressError, Endpoint
from wiresum.common.metrics import MetricsServer, Scrape
from wiresum.host_agent.agent import counters
from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.backend import metrics
from wiresum.host_agent.environment import AgentError

LIMIT_S = 10.0
Values = dict[str, dict[tuple[str, ...], float]]

ENGINE = {
    "collectives": 2, "elements": 512, "contributions": 9, "exponent_contributions": 2,
    "data_contributions": 7, "retransmissions": 6, "fast_retransmissions": 1, "probes": 2,
    "results": 8, "exponent_results": 2, "data_results": 6, "waits": 3, "losses": 1,
    "spurious_losses": 1,
    "drops_key": 4, "bytes_sent": 1000, "header_bytes_sent": 42, "window": 64,
    "exponent_window": 8, "rtt_us": 150.0, "rto_us": 20000.0, "gso": 1,
}  # fmt: skip
LEASE = {
    "job": "j-1", "switch": "s1 (10.0.0.254:22355)", "rank": 2, "workers": 4, "slots": 128,
    "field": 16, "gone": None, "held": 0, "change": 1,
}  # fmt: skip


class Engine(FakeEngine):
    def stats(self) -> dict[str, int | float]:
        return dict(ENGINE)


class MetricsAgent(FakeAgent):
    def watch(self, group: Group) -> None:
        pass

    def describe(self) -> dict[str, object]:
        return dict(LEASE)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fresh = counters.Counters()
    for module in ("collective_router", "completion", "report", "work", "exposed"):
        monkeypatch.setattr(f"wiresum.host_agent.backend.{module}.COUNTERS", fresh)
    monkeypatch.setattr(metrics, "_server", None)
    yield
    if metrics._server is not None:
        metrics._server.close()


def values(text: str) -> Values:
    found: Values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def get(address: Endpoint) -> Values:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=LIMIT_S) as answer:
        return values(answer.read().decode())


def test_what_a_worker_has_done() -> None:
    group = group_of_one(MetricsAgent(Engine(at_once=False)))
    address = metrics.serve({"WIRESUM_METRICS": "127.0.0.1:0"})
    assert address is not None
    assert metrics.serve({"WIRESUM_METRICS": "127.0.0.1:0"}) == address, "one for each process"
    engine = group.router.agent.engine  # type: ignore[union-attr]
    work = group.allreduce([torch.ones(256)])
    engine.ended.put(Ended(0))  # type: ignore[attr-defined]
    work.wait(timedelta(seconds=LIMIT_S))
    failing = group.allreduce([torch.ones(256)])
    engine.ended.put(Ended(1, "rank 3 is missing", "CollectiveTimeout"))  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="rank 3"):
        failing.wait(timedelta(seconds=LIMIT_S))
    group.allreduce([torch.ones(3, dtype=torch.int64)]).wait()

    found = get(address)
    assert found["wiresum_agent_info"].keys() == {
        ("16", "j-1", "2", "s1", metrics.package_version(), "4")
    }
    assert found["wiresum_agent_collectives_total"] == {
        ("all_reduce", "switch"): 2, ("all_reduce", "fallback"): 1,
    }  # fmt: skip
    assert found["wiresum_agent_failed_total"] == {("CollectiveTimeout",): 1}
    assert found["wiresum_agent_ended_total"] == {(): 2}
    assert found["wiresum_agent_reduced_bytes_total"] == {(): 2048}
    assert 0 < found["wiresum_agent_exposed_seconds_total"][()] < LIMIT_S
    assert found["wiresum_agent_chunks_sent_total"] == {("exponent",): 2, ("data",): 7}
    assert found["wiresum_agent_retransmissions_total"] == {
        ("overtaken",): 1, ("timeout",): 2, ("repair",): 3,
    }  # fmt: skip
    assert found["wiresum_agent_rtt_seconds"]["j-1",] == pytest.approx(150e-6)
    assert found["wiresum_agent_window_chunks"] == {("j-1", "data"): 64, ("j-1", "exponent"): 8}
    assert found["wiresum_agent_drops_total"] == {("key",): 4}
    assert found["wiresum_agent_bytes_total"] == {("out", "payload"): 1000, ("out", "headers"): 42}
    assert found["wiresum_agent_lease_slots"] == {("j-1",): 128}
    group.shutdown()

    found = get(address)
    assert "wiresum_agent_info" not in found, "no lease any more"
    assert found["wiresum_agent_elements_total"] == {(): 512}, "what was counted stays"


SUMS = {"collectives", "contributions", "results", "retransmissions"}
"""Sums of other counters: not exposed."""


def test_every_counter_of_the_engine_is_exposed(engine_stats: dict[str, float]) -> None:
    """Whoever adds a counter to the engine says here what becomes of it."""
    known = metrics._COUNTERS.keys() | metrics._GAUGES.keys() | SUMS
    left = {name for name in engine_stats if name not in known and not name.startswith("drops_")}
    assert left == set()
    assert known <= engine_stats.keys(), "no longer counted"


@pytest.fixture
def engine_stats() -> Iterator[dict[str, float]]:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        engine = open_engine(sock, 9, slots=16)
        try:
            yield engine.stats()
        finally:
            engine.close()


@pytest.mark.parametrize(
    ("env", "rank", "port"),
    [
        ({}, 1, None),
        ({"WIRESUM_METRICS": ""}, 1, None),
        ({"WIRESUM_METRICS": "0.0.0.0:9470"}, None, 9470),
        ({"WIRESUM_METRICS": "0.0.0.0:9470"}, 5, 9475),
        ({"WIRESUM_METRICS": "0.0.0.0:9470", "LOCAL_RANK": "3"}, None, 9473),
        ({"WIRESUM_METRICS": "0.0.0.0:9470", "LOCAL_RANK": "3"}, 7, 9473),
        ({"WIRESUM_METRICS": "0.0.0.0:9470", "LOCAL_RANK": "3", "RANK": "7"}, 7, 9473),
        # Processes that a worker of torchrun has started: what it has in its environment is its.
        ({"WIRESUM_METRICS": "0.0.0.0:9470", "LOCAL_RANK": "0", "RANK": "0"}, 1, 9471),
        ({"WIRESUM_METRICS": "127.0.0.1:0", "LOCAL_RANK": "3"}, 5, 0),
    ],
)
def test_the_port_follows_from_the_local_rank_or_the_groups(
    env: dict[str, str], rank: int | None, port: int | None
) -> None:
    found = metrics.where(env, rank)
    assert (found.port if found else None) == port


def test_addresses_that_make_no_sense() -> None:
    with pytest.raises(AddressError, match="WIRESUM_METRICS"):
        metrics.where({"WIRESUM_METRICS": "9470"})
    with pytest.raises(AgentError, match="the port would be 65536"):
        metrics.where({"WIRESUM_METRICS": "0.0.0.0:65535", "LOCAL_RANK": "1"})


def test_a_port_that_is_taken_costs_the_metrics_only(caplog: pytest.LogCaptureFixture) -> None:
    def nothing(scrape: Scrape) -> None:
        pass

    with MetricsServer("127.0.0.1:0", metrics.METRICS, nothing) as other:
        assert metrics.serve({"WIRESUM_METRICS": str(other.address)}) is None
    assert "no metrics of this worker" in caplog.text
    assert "address already in use" in caplog.text


def test_a_forked_child_lets_go_of_the_port() -> None:
    address = metrics.serve({"WIRESUM_METRICS": "127.0.0.1:0"})
    assert address is not None
    context = multiprocessing.get_context("fork")
    ready, go_on = context.Event(), context.Event()

    def child() -> None:
        ready.set()
        go_on.wait(LIMIT_S)
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    try:
        assert ready.wait(LIMIT_S)
        assert get(address), "the parent serves on"
        assert metrics._server is not None
        metrics._server.close()
        metrics._server = None
        again = metrics.serve({"WIRESUM_METRICS": str(address)})
        assert again == address, "the child, which lives, does not hold the port"
    finally:
        go_on.set()
        process.join(LIMIT_S)
