"""The Grafana dashboard: it parses, and uses only metrics that an endpoint exposes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from promql import parse

from wiresum.controller.api.metrics import METRICS as CONTROLLER
from wiresum.host_agent.backend.metrics import METRICS as AGENT
from wiresum.softswitch.metrics import METRICS as SWITCH

FILE = Path(__file__).parents[2] / "docs" / "grafana" / "wiresum.json"
EXPOSED = {m.name: m for part in (CONTROLLER, SWITCH, AGENT) for m in part.metrics}
SCRAPED = {"instance", "job"}
"""The labels that Prometheus adds."""
PROCESS = {"process_resident_memory_bytes"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found = json.loads(FILE.read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(panels: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(p["title"], t["expr"], t["legendFormat"]) for p in panels for t in p["targets"]]


def test_every_expression_parses_and_uses_exposed_metrics(panels: list[dict[str, Any]]) -> None:
    asked = targets(panels)
    assert len(asked) > 25
    for title, expression, legend in asked:
        used = parse(expression)
        assert used.metrics, title
        known = set(SCRAPED)
        for name, labels in used.metrics.items():
            assert name in EXPOSED.keys() | PROCESS, f"{title}: no endpoint exposes {name}"
            own = set(EXPOSED[name].labels) if name in EXPOSED else set()
            assert labels <= own | SCRAPED, f"{title}: {name} has no labels {labels - own}"
            known |= own
            counts = name in EXPOSED and EXPOSED[name].counts
            assert counts == (name in used.ranges), f"{title}: rate() is for counters: {name}"
        wanted = used.labels | set(re.findall(r"\{\{(\w+)\}\}", legend))
        assert wanted <= known, f"{title}: nothing has the labels {wanted - known}"


def test_variables_are_defined(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", FILE.read_text())) - {"__rate_interval", "__all"}
    assert used == variables.keys()
    for name in used - {"datasource"}:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"])
        assert match is not None
        assert match[2] in EXPOSED[match[1]].labels


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    everything = dashboard["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    cells: set[tuple[int, int]] = set()
    for panel in everything:
        where = panel["gridPos"]
        assert where["x"] + where["w"] <= 24
        mine = {
            (x, y)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine


@pytest.mark.parametrize(
    "wrong",
    ["rate(a_total)", "sum(a", "a{b=c}", "a b", "sum by a (b)", "rate(a[5x])", "", "a + ", "a)"],
)
def test_the_parser_refuses_wrong_expressions(wrong: str) -> None:
    with pytest.raises(SyntaxError):
        parse(wrong)


def test_the_parser_finds_the_metrics_in_use() -> None:
    used = parse(
        '8 * sum by (x) (rate(a{b=~"c",d!="e"}[5m])) / on (f) group_left (g) h > 0 or vector(1)'
    )
    assert used.metrics == {"a": {"b", "d"}, "h": set()}
    assert used.ranges == {"a"}
    assert used.labels == {"x", "f", "g"}
