"""The page of ``wiresum trial``: its picture, and what a real browser makes of it."""

import json
from pathlib import Path

import pytest

from support.chromium import chromium, needs_chromium
from wiresum.measure.trial import html
from wiresum.measure.trial.options import Target, TrialOptions, chosen
from wiresum.measure.trial.outcome import FINISHED, STOPPED, Outcome
from wiresum.measure.trial.report import Report, as_json, report_of
from wiresum.measure.trial.trial import Trial


def made(**losses: float) -> Report:
    """A trial of two seeds; fp16 was stopped."""
    sizes = {"gloo": 4e6, "ranks_8": 1e6, "ranks_16": 2e6, "ranks_32": 4.1e6}
    trial = Trial(
        TrialOptions(["train", "</script><b>"], chosen([], switch=False), Target(), 50, 2, Path())
    )
    for name, loss in {"gloo": 2.0, "ranks_8": 2.5, "ranks_16": 2.01, **losses}.items():
        trial.runs[name.replace("_", "-")] = [
            Outcome(
                name.replace("_", "-"), seed, FINISHED, steps=50, world=2, step_ms=[20.0, 30.0],
                bytes_per_step=sizes[name], losses=[loss], loss=loss * (1 + 0.01 * seed),
            )
            for seed in range(2)
        ]  # fmt: skip
    trial.runs["fp16"] = [Outcome("fp16", 0, STOPPED, "slower than ranks-16")]
    return report_of(trial)


def test_the_front_holds_what_no_other_remedy_beats_in_both():
    report = made(ranks_32=2.0)
    rows = [row for row in report.rows if row.loss is not None]
    assert [row.remedy.name for row in html.front(rows)] == ["ranks-8", "ranks-16", "gloo"]
    assert report.least == "ranks-16"
    assert "ranks-16's: 0.5 of plain gloo's bytes" in report.conclusion


def test_a_trial_in_which_nothing_helps_says_so():
    assert "no remedy is worth it" in made(ranks_16=3.0).conclusion


@needs_chromium
def test_a_browser_shows_the_page_whole_and_asks_for_nothing(tmp_path: Path):
    report = made()
    page = tmp_path / "report.html"
    page.write_text(html.page(report))
    home = tmp_path / "home"
    home.mkdir()
    with chromium(home) as browser:
        for width in (1280, 400):
            browser.open(page, width)
            assert browser.errors == []
            assert browser.requests == [page.as_uri()]
            assert browser.value("document.documentElement.scrollWidth") <= width
        said = browser.value("document.getElementById('report').textContent")
        assert json.loads(said) == json.loads(json.dumps(as_json(report)))
        points = browser.value(
            "[...document.querySelectorAll('g[role=img]')].map(e => e.ariaLabel)"
        )
        assert len(points) == 3
        assert points[0].startswith("gloo: 3.815 MiB per step, loss 2.01, 25 ms per step; meets")
        reached = set()
        for _ in range(8):
            browser.press("Tab", 9)
            reached.add(browser.value("document.activeElement.ariaLabel"))
        assert reached >= {*points, "All remedies"}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_leaves_the_page_and_the_json_whole(loss: float):
    report = made(ranks_16=loss)
    assert report.least == "gloo"
    assert json.loads(json.dumps(as_json(report), allow_nan=False))
    assert "NaN" not in html.page(report)
