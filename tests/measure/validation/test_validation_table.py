"""The table of predictions beside measurements, and what its command refuses."""

import pytest

from wiresum.cli.main import ROOT
from wiresum.common import command_line
from wiresum.measure.validation import cases, results


def entry(predicted: float, verdict: str = "software", right: str = "software", **more) -> dict:
    return {
        "model": "wide",
        "rate_mbit": 100.0,
        "workers": 4,
        "unequal": False,
        "exposed_share": 0.8,
        "predicted": {"gloo": 0.4, "fp16": predicted},
        "low": {"gloo": 0.39, "fp16": 0.9 * predicted},
        "high": {"gloo": 0.41, "fp16": 1.1 * predicted},
        "measured": {"gloo": 0.4, "fp16": 0.25},
        "verdict": {"verdict": verdict, "choice": "fp16" if verdict == "software" else ""},
        "right": {"verdict": right, "choice": "fp16" if right == "software" else ""},
    } | more


MACHINE = {"cores": 2, "model": "Chip", "kernel": "6.18", "python": "3.11"}


def test_an_error_is_the_predicted_step_by_the_measured_one():
    assert results.errors(entry(0.3)) == pytest.approx({"gloo": 0, "fp16": 0.2})
    assert results.inside(entry(0.3)) == 1
    assert results.inside(entry(0.26)) == 2


def test_the_page_shows_what_is_far_off_and_which_verdicts_were_wrong():
    content = {
        "machine": MACHINE,
        "cases": [
            entry(0.26),
            entry(0.3, unequal=True),
            entry(0.25, "stop here", "stop here"),
            entry(0.25, "stop here", "software"),
        ],
    }
    page = results.page(content)
    assert "| wide | 100 Mbit/s, one half | 4 | 80 % | 400 (+0 %) | **250 (+20 %)** |" in page
    assert "| 250 (+4 %) | software, fp16 | yes |" in page
    assert "no: software, fp16" in page
    assert "8 steps: the prediction is off by 0.0 % in the median and 20 % at most; 7 are" in page
    assert "right in 3 of 4 cases (1 of them *stop here*), with the same remedy in 3" in page


def test_a_case_with_unequal_links_has_one_slow_link():
    options = cases.Options((100.0,), (2, 4), ("wide", "deep"), ("fp16",))
    assert len(options.case_list()) == 5
    assert options.case_list()[-1].rates == [100, 100, 100, 50]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "wide,fast"), "--models 'wide,fast'"),
        (("--remedies", "gloo"), "--remedies 'gloo'"),
        (("--remedies", "fp16,fp16"), "each once"),
        (("--rate", "none"), "--rate is empty"),
    ],
)
def test_bad_options_are_one_line(capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        command_line.main(ROOT, ["bench", "advise", *arguments])
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert end.value.code != 0
    assert words in err
