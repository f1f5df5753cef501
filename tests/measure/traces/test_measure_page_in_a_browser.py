"""The page of ``wiresum measure`` in a real browser: nothing fails, nothing is asked for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chromium import Chromium, chromium, needs_chromium
from support.traces import Trace
from wiresum.measure.probe.links import Links, Pair
from wiresum.measure.traces import html, show
from wiresum.measure.traces.load import read
from wiresum.measure.traces.records import Job
from wiresum.measure.traces.summary import Report, summarize
from wiresum.measure.traces.timeline import timeline

pytestmark = needs_chromium
TAB = 9
SMALLEST_TEXT_PX = 11
# The height that a line of text takes on the screen, whatever scales it.
SMALLEST = """
Math.min(...[...document.querySelectorAll('text, td, th, p, li, h1, h2')]
  .filter(each => each.textContent.trim())
  .map(each => each instanceof SVGElement ? each.getBoundingClientRect().height / 1.2
                                          : parseFloat(getComputedStyle(each).fontSize)))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def report() -> tuple[Report, str]:
    traces = []
    for rank in range(4):
        trace = Trace(rank, 4, clock=5e6 * rank).step(1, 0, 1000).op(0, 600)
        traces.append(trace.gloo(500 + 100 * rank, 900, 1000).gloo(950, 990, 70_000, "broadcast"))
    records = [read(each.document(), Path(f"rank{i}.json")) for i, each in enumerate(traces)]
    links = Links(
        tuple(Pair(a, b, 50.0, 1.0 + a) for a in range(4) for b in range(4) if a != b), ""
    )
    job = Job("torchrun train.py", 4, ("node0", "node1"), "cpu", "gloo", 0.01, links)
    made = summarize(records, job)
    return made, html.page(made, timeline(records))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_whole_readable_and_alone(
    browser: Chromium, report: tuple[Report, str], tmp_path: Path, width: int
) -> None:
    figures, text = report
    page = tmp_path / "report.html"
    page.write_text(text)
    browser.open(page, width)
    assert browser.value("innerWidth") == width
    assert browser.errors == []
    assert browser.requests == [page.as_uri()]
    # The figures of the page are the JSON's.
    said = browser.value("document.getElementById('report').textContent")
    assert json.loads(said) == show.as_json(figures)
    shown = browser.value("[...document.querySelectorAll('.figures strong')].map(e => e.innerText)")
    assert shown == [figure for figure, _ in show.headline(figures)]
    # Wide parts scroll by themselves; the page does not.
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(SMALLEST) >= SMALLEST_TEXT_PX


def test_the_keyboard_reaches_every_part_that_scrolls_or_speaks(
    browser: Chromium, report: tuple[Report, str], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(report[1])
    browser.open(page, 1280)
    wanted = browser.value("[...document.querySelectorAll('[tabindex]')].map(e => e.ariaLabel)")
    assert len(wanted) >= 5 + 3 * 4  # scrolling parts, and three lanes of four ranks
    reached = []
    for _ in wanted:
        browser.press("Tab", TAB)
        reached.append(browser.value("document.activeElement.ariaLabel"))
    assert reached == wanted
    outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
