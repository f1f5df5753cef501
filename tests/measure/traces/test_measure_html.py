"""The HTML page of ``wiresum measure``: it stands alone, and its figures are the JSON's."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support.traces import Trace
from wiresum.measure.probe.links import Links
from wiresum.measure.traces import html, show
from wiresum.measure.traces.load import read
from wiresum.measure.traces.records import Job
from wiresum.measure.traces.summary import summarize
from wiresum.measure.traces.timeline import timeline


class Page(HTMLParser):
    """The elements of a page, and the text of its data and its figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.inside: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "rect"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.inside.pop() == tag

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside[-1]] = self.texts.get(self.inside[-1], "") + data + "\n"


@pytest.fixture(scope="module")
def made():
    traces = []
    for rank in (0, 1):
        trace = Trace(rank, 2, clock=5e6 * rank).step(1, 0, 1000).op(0, 600)
        trace.extra["distributedInfo"]["pg_config"][0]["pg_desc"] = "</script><b>"
        traces.append(trace.gloo(500 + 100 * rank, 900, 1000))
    records = [read(each.document(), Path("rank0.json")) for each in traces]
    job = Job("train.py", 2, ("a", "b"), "cpu", "gloo", None, Links((), "nobody asked"), 2)
    return summarize(records, job), timeline(records)


def test_the_page_has_the_figures_of_the_json(made):
    page = Page(html.page(*made))
    assert page.inside == []
    assert json.loads(page.texts["script"]) == show.as_json(made[0])
    assert page.texts["strong"].split("\n")[:-1] == [each for each, _ in show.headline(made[0])]


def test_the_page_needs_nothing_from_elsewhere(made):
    text = html.page(*made)
    assert not re.search(r"https?:|//|@import|url\(", text)
    for tag, attributes in Page(text).tags:
        assert not {"src", "href"} & attributes.keys()
        assert tag != "script" or attributes["type"] == "application/json"


def test_the_timeline_shows_all_lanes_on_one_clock(made):
    first, second = made[1].ranks
    assert first.communication == [(500_000, 900_000)]
    assert second.communication == [(600_000, 900_000)]
    assert second.exposed == [(600_000, 900_000)]
    lanes = [given for tag, given in Page(html.page(*made)).tags if tag == "g"]
    assert len(lanes) == 6
    assert all(given["tabindex"] == "0" and given["aria-label"] for given in lanes)
