"""The operations guide has every metric and error line of the code, and no other."""

import re

import catalogues
import operations
import pytest

from wiresum.common.metrics import MetricsServer
from wiresum.controller.api.metrics import METRICS as CONTROLLER
from wiresum.host_agent.backend.metrics import METRICS as AGENT
from wiresum.p4 import packet
from wiresum.softswitch.metrics import METRICS as SWITCH

PARTS = (CONTROLLER, SWITCH, AGENT)


# ---- metrics


def test_every_metric_is_explained_and_every_explanation_has_its_metric() -> None:
    explained = {row.name: row.labels for row in operations.metrics()}
    exposed = {metric.name: metric.labels for part in PARTS for metric in part.metrics}
    assert len(explained) == len(operations.metrics()), "one explanation for each"
    ours = {name: labels for name, labels in explained.items() if name.startswith("wiresum_")}
    assert exposed.keys() - ours.keys() == set(), "not explained"
    assert ours.keys() - exposed.keys() == set(), "not exposed"
    assert ours == exposed, "the labels, in their order"


def test_the_process_metrics_match_an_endpoints() -> None:
    import urllib.request

    explained = {row.name for row in operations.metrics() if row.name.startswith("process_")}
    with (
        MetricsServer("127.0.0.1:0", CONTROLLER, lambda scrape: None) as server,
        urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as answer,
    ):
        names = set(re.findall(r"^# TYPE (\S+) ", answer.read().decode(), re.M))
    assert explained == {name for name in names if name.startswith("process_")}


def test_names_of_counters_follow_prometheus() -> None:
    for part in PARTS:
        for metric in part.metrics:
            assert metric.counts == metric.name.endswith("_total"), metric.name
            assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
            for wrong in ("_ms", "_us", "_kb", "_mb", "_bits", "_s_total"):
                assert not metric.name.endswith(wrong), metric.name


def test_every_reason_to_drop_is_explained() -> None:
    text = operations.FILE.read_text()
    table = text.partition("### What drops mean")[2].partition("###")[0]
    named = set(re.findall(r"^\| ([^|]*) \|", table, re.M))
    reasons = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert reasons == {reason.name.lower() for reason in packet.DropReason}


# ---- the runbook


@pytest.fixture(scope="module")
def runbook() -> list[operations.Entry]:
    return operations.runbook()


def test_every_declared_line_has_an_entry_with_its_code_and_its_text(
    runbook: list[operations.Entry],
) -> None:
    entries = {code: entry for entry in runbook for code in entry.codes}
    declared = {line.code: line for line in catalogues.declared()}
    assert declared.keys() - entries.keys() == set(), "write what they mean in docs/operations.md"
    assert entries.keys() - declared.keys() == set(), "no code says this (any more)"
    differ = [
        f"{code}: {declared[code].pattern}"
        for code, entry in entries.items()
        if not operations.covers(entry.pattern, declared[code].pattern)
    ]
    assert not differ, "the runbook has another text:\n" + "\n".join(differ)


def test_every_code_has_one_entry_and_every_entry_a_cure(runbook: list[operations.Entry]) -> None:
    codes = [code for entry in runbook for code in entry.codes]
    assert len(set(codes)) == len(codes), sorted(code for code in codes if codes.count(code) > 1)
    for entry in runbook:
        assert entry.cure, f"{entry.pattern}: and what shall one do?"
