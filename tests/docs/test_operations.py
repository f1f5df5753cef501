"""The operations guide has every metric and error line of the code, and no other."""

import re

import catalogues
import error_lines
import operations
import pytest

from wiresum.common.metrics import MetricsServer
from wiresum.controller.api.metrics import METRICS as CONTROLLER
from wiresum.host_agent.backend.metrics import METRICS as AGENT
from wiresum.p4 import packet
from wiresum.softswitch.metrics import METRICS as SWITCH

PARTS = (CONTROLLER, SWITCH, AGENT)


@pytest.fixture(scope="module")
def code() -> error_lines.Code:
    return error_lines.read()


@pytest.fixture(scope="module")
def lines(code: error_lines.Code) -> list[error_lines.Line]:
    found = [line for line in error_lines.lines(code) if not line.opaque]
    return [*found, *error_lines.cpp_lines()]


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


def test_lines_without_a_code_have_an_entry_without_one(
    lines: list[error_lines.Line], runbook: list[operations.Entry]
) -> None:
    """What the packages of catalogues.WITHOUT say."""
    patterns = [entry.pattern for entry in runbook]
    missing = [
        f"{line.where}: {line.template}"
        for line in lines
        if not any(operations.covers(pattern, line.template) for pattern in patterns)
    ]
    assert not missing, "write what they mean in docs/operations.md:\n" + "\n".join(missing)
    dead = [
        entry.pattern
        for entry in runbook
        if not entry.codes
        and not any(operations.covers(entry.pattern, line.template) for line in lines)
    ]
    assert not dead, "no code says this (any more):\n" + "\n".join(dead)


def test_raises_without_a_line_of_their_own_are_listed(code: error_lines.Code) -> None:
    """OPAQUE lists each function that raises an error whose line comes from elsewhere."""
    found = {f"{line.path}:{line.function}" for line in error_lines.lines(code) if line.opaque}
    assert found - OPAQUE == set(), "is that line in the runbook? see error_lines.SOURCES"
    assert OPAQUE - found == set(), "no longer so"


@pytest.mark.parametrize(
    ("line", "whose"),
    [
        ("command 'x' not found", "host_agent/"),
        ("job j is gone: there is no job", "host_agent/"),
    ],
)  # fmt: skip
def test_the_collector_finds_lines_in_their_folders(
    lines: list[error_lines.Line], line: str, whose: str
) -> None:
    """The collector finds raises, helpers, variables and lines that are passed on."""
    assert any(
        operations.covers(each.template, line) for each in lines if each.path.startswith(whose)
    )


OPAQUE = {
    "host_agent/agent/agent.py:_change",  # over's
    "host_agent/agent/agent.py:_lost",  # its argument
    "host_agent/agent/change.py:_drain",  # an EngineError
    "host_agent/agent/control.py:_run",  # over's, _failed's, _heard's
    "host_agent/agent/control.py:create_job",  # a ControllerError
    "host_agent/agent/join.py:_read",  # rank 0's NoRoom
    "host_agent/agent/peers/member.py:look",  # line's and _waits'
    "host_agent/launcher/session.py:check",  # a line of Heartbeats
}
