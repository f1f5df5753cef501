"""The table of predictions beside measurements, and what its command refuses."""

import json
import statistics
from pathlib import Path

import pytest

from support import reports
from wiresum.cli.main import ROOT
from wiresum.common import command_line
from wiresum.measure.validation import cases, judge, results

ROOT_FOLDER = Path(__file__).parents[3]
MACHINE = {"cores": 2, "model": "Chip", "kernel": "6.18", "python": "3.11"}


def entry(factor: float = 1.0, exposed_ms: float = 600.0, **more) -> dict:
    """A case whose fp16 step was measured to be ``factor`` times the predicted one."""
    content = reports.report(
        computation_ms=700 - exposed_ms, exposed_ms=exposed_ms, comm_ms=690.0
    ) | {"threshold": 0.05, "job": {"world_size": 4, "hosts": ["vm"], "cores": 2}}
    predicted = judge.predicted(content)
    return {
        "model": "wide",
        "rate_mbit": 1000.0,
        "workers": 4,
        "unequal": False,
        "measured": {"gloo": 0.7, "fp16": factor * predicted["fp16"].step_s},
        "report": content,
    } | more


BOUND, HIDDEN = entry(), entry(exposed_ms=30.0)


def test_an_error_is_the_predicted_step_by_the_measured_one():
    far = entry(0.5)
    judged = judge.judge(far)
    assert results.errors(far, judged) == pytest.approx({"gloo": 0, "fp16": 1.0})
    assert results.inside(far, judged) == 1
    assert results.inside(BOUND, judge.judge(BOUND)) == 2


def test_a_verdict_is_right_if_it_follows_from_the_measured_steps():
    assert judge.judge(HIDDEN).verdict == judge.judge(HIDDEN).right == ("stop here", "")
    found = judge.judge(BOUND)
    assert found.verdict == ("software", "ranks-16")
    assert found.right == ("software", "fp16"), "the one remedy that was measured"
    useless = judge.judge(entry(3.0))
    assert useless.right[0] == "infrastructure"


def test_a_verdict_beside_the_threshold_is_close_where_it_differs():
    plain = 0.7
    found = []
    for saved in (0.03, 0.045, 0.055):
        case = entry(measured={"gloo": plain, "ranks-16": (1 - saved) * plain})
        judged = judge.judge(case)
        assert judged.verdict[0] == "software"
        assert (judged.right[0] == "software") == (saved > 0.05)
        found.append(judged.close)
        page = results.page({"machine": MACHINE, "cases": [case]})
        word = "yes" if saved > 0.05 else "close: " if judged.close else "no: "
        assert f"software, ranks-16 | {word}" in page
        assert f"in {1 if 'close' in word else 0} of the others the best software" in page
    assert found == [False, True, True]


def test_the_page_shows_what_is_far_off_and_which_verdicts_were_wrong():
    cases = [BOUND, entry(0.5, unequal=True), HIDDEN, entry(3.0)]
    page = results.page({"machine": MACHINE, "cases": cases})
    assert "| wide | 1000 Mbit/s, one half | 4 | 86 % | 700 (+0 %) | **" in page
    assert "(+100 %)** | software, ranks-16 | yes |" in page
    assert "no: infrastructure, " in page
    assert "8 steps: the prediction is off by 0.0 % in the median and 100 % at most; 6 are" in page
    assert "right in 3 of 4 cases (1 of them *stop here*), with the same remedy in 1" in page


def test_the_kept_cases_have_the_verdicts_that_follow_from_what_was_measured():
    kept = json.loads((ROOT_FOLDER / "docs" / "planning" / "advise.json").read_text())
    cores = kept["machine"]["cores"]
    judged = [(each, judge.judge(each, cores)) for each in kept["cases"]]
    same = [found.verdict[0] == found.right[0] for _, found in judged]
    assert all(each or found.close for each, (_, found) in zip(same, judged, strict=True))
    assert sum(same) > 0.8 * len(same)
    off = [abs(each) for entry, found in judged for each in results.errors(entry, found).values()]
    assert statistics.median(off) < 0.05
    assert sum(each <= 0.1 for each in off) >= 0.9 * len(off)


def test_a_report_without_cores_is_taken_for_one_of_this_machine():
    old = {**BOUND["report"], "job": {"world_size": 4, "hosts": ["vm"]}}
    assert judge.with_cores(old, 2)["job"]["cores"] == 2
    assert judge.with_cores(BOUND["report"], 8)["job"]["cores"] == 2
    found = judge.judge({**BOUND, "report": old}, 2)
    assert found.predicted == judge.judge(BOUND).predicted
    assert found.predicted != judge.judge({**BOUND, "report": old}).predicted


def test_a_case_with_unequal_links_has_one_slow_link():
    options = cases.Options((100.0,), (2, 4), ("wide", "deep"), ("fp16",))
    assert len(options.case_list()) == 5
    assert options.case_list()[-1].rates == [100, 100, 100, 50]


def test_the_table_is_made_again_from_kept_reports(capsys, tmp_path):
    kept, page = tmp_path / "advise.json", tmp_path / "page.md"
    kept.write_text(json.dumps({"kind": results.KIND, "machine": MACHINE, "cases": [BOUND]}))
    page.write_text(f"# Planning\n\n{results.BEGIN}\nas it was\n<!-- to here -->\nrest\n")
    with pytest.raises(SystemExit) as end:
        command_line.main(
            ROOT, ["bench", "advise", "--json", str(kept), "--table-only", "--markdown", str(page)]
        )
    assert end.value.code in (0, None)
    assert "right in 1 of 1 cases" in capsys.readouterr().out
    text = page.read_text()
    assert "| wide | 1000 Mbit/s | 4 | 86 % |" in text
    assert "as it was" not in text
    assert "cores of Chip" in text, "the machine that has measured"
    assert text.endswith("rest\n")


def test_what_a_file_lacks_is_measured_and_the_rest_is_kept(capsys, tmp_path, monkeypatch):
    asked = []

    class Rack:
        def __init__(self, options, _say):
            self.options = options

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def case(self, case, kept):
            asked.append((case.rate_mbit, None if kept is None else set(kept["measured"])))
            made = entry(rate_mbit=case.rate_mbit) if kept is None else dict(kept)
            lacks = set(self.options.remedies) - set(made["measured"])
            return made | {"measured": made["measured"] | dict.fromkeys(lacks, 0.5)}

    monkeypatch.setattr("wiresum.measure.validation.run.Validation", Rack)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    kept = tmp_path / "advise.json"
    kept.write_text(json.dumps({"kind": results.KIND, "machine": MACHINE, "cases": [BOUND]}))
    arguments = ["--equal", "--append", "--models", "wide", "--workers", "4", "--json"]
    for remedies, rates, found in (
        ("fp16", "1gbit", []),
        ("fp16,top-k", "1gbit", [(1000.0, {"gloo", "fp16"})]),
        ("local-steps", "300mbit", [(300.0, None)]),
    ):
        asked.clear()
        with pytest.raises(SystemExit) as end:
            command_line.main(
                ROOT,
                ["bench", "advise", *arguments, str(kept), "--remedies", remedies, "--rate", rates],
            )
        assert end.value.code in (0, None)
        assert asked == found
    written = json.loads(kept.read_text())["cases"]
    assert [set(each["measured"]) for each in written] == [
        {"gloo", "fp16", "top-k"},
        {"gloo", "fp16", "local-steps"},
    ]
    assert "right in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "wide,fast"), "--models 'wide,fast'"),
        (("--remedies", "gloo"), "--remedies 'gloo'"),
        (("--remedies", "fp16,fp16"), "each once"),
        (("--rate", "none,1gbit"), "--rate 'none,1gbit': links need a limit"),
        (("--table-only",), "name the file"),
        (("--table-only", "--json", "none.json"), "cannot read none.json"),
        (("--table-only", "--json", __file__), "is not from `wiresum bench"),
    ],
)
def test_bad_options_are_one_line(capsys, arguments, words):
    with pytest.raises(SystemExit) as end:
        command_line.main(ROOT, ["bench", "advise", *arguments])
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert end.value.code != 0
    assert words in err
