"""``wiresum advise``: the verdicts, the money, the checklist, and what ends in one line."""

import json

import pytest

from support import reports
from support.reports import MIB, report
from wiresum.cli.main import ROOT
from wiresum.common import command_line

PRICES = (
    "--currency", "EUR", "--price-per-hour", "20", "--runs-per-month", "10",
    "--hours-per-run", "24",
)  # fmt: skip


@pytest.fixture
def advise(capsys, tmp_path):
    """Run the command on a report, in this process: its status, stdout and stderr."""

    def run(content, *arguments: object) -> tuple[int, str, str]:
        path = reports.write(tmp_path / "report.json", content)
        with pytest.raises(SystemExit) as end:
            command_line.main(ROOT, ["advise", str(path), *map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def answer(advise):
    """The answer as JSON."""

    def run(content, *arguments: object) -> dict:
        status, out, err = advise(content, "--json", *arguments)
        assert (status, err) == (0, "")
        return json.loads(out)

    return run


def named(found: dict, name: str) -> dict:
    return next(each for each in found["choices"] if each["name"] == name)


# ---- verdicts

HIDDEN = report(computation_ms=1000, exposed_ms=40, comm_ms=350, sizes=((25 * MIB, 2.0),))
BOUND = report(computation_ms=100, exposed_ms=600, comm_ms=690, sizes=((25 * MIB, 2.0),))


def test_stop_here_where_little_is_exposed(answer):
    found = answer(HIDDEN)
    assert found["verdict"] == "stop here"
    assert found["choice"] is None
    assert found["command"] == found["trial"] == ""
    assert "3.8 % of a step is exposed" in found["because"]
    assert any("Gbit/s or less" in each for each in found["changes"])
    assert any("workers or more" in each for each in found["changes"])


def test_stop_here_where_ranks_wait_for_a_late_one(answer):
    found = answer(report(computation_ms=200, exposed_ms=100, comm_ms=100, waiting_share=0.9))
    assert found["verdict"] == "stop here"
    assert "waiting for ranks that come later" in found["because"]


def test_ranks_that_are_late_in_turn_are_no_reason_to_stop(answer):
    content = report(computation_ms=200, exposed_ms=400, comm_ms=400, waiting_share=0.9)
    for rank, share in zip(content["ranks"], (0.3, 0.2, 0.25, 0.25), strict=True):
        rank["late_share"] = share
    assert answer(content)["verdict"] == "software"
    for rank in content["ranks"]:
        rank["late_share"] = 1.0 if rank["rank"] == 2 else 0.0
    saved = named(answer(content), "switch-8")["saved_share"]
    assert saved < 0.08


def test_stop_here_where_the_rest_cannot_be_hidden(answer):
    """The threshold is passed, but no remedy gets under it by more than it."""
    content = report(
        computation_ms=1000, exposed_ms=55, comm_ms=900, sizes=((MIB, 25.0),), links=(50, 0.35)
    )
    found = answer(content)
    assert found["verdict"] == "stop here"
    assert any("hides behind computation" in each for each in found["evidence"])


def test_software_where_the_links_are_the_limit(answer):
    found = answer(BOUND)
    assert found["verdict"] == "software"
    assert found["choice"] == "ranks-8"
    assert "wiresum run --as-default --carrier ranks --field 8 --" in found["command"]
    assert "wiresum trial --candidates" in found["trial"]
    chosen = named(found, "ranks-8")["step_ms"]
    assert chosen["low"] < chosen["predicted"] < chosen["high"] < 700
    assert any("Gbit/s or more" in each for each in found["changes"])


def test_the_gentlest_remedy_is_proposed_where_it_is_nearly_as_good(answer):
    """Half the bytes hide; a quarter of them hides no better."""
    content = report(
        computation_ms=650, exposed_ms=300, comm_ms=690, sizes=((2 * MIB, 25.0),)
    )  # fmt: skip
    found = answer(content)
    assert found["verdict"] == "software"
    assert found["choice"] == "fp16"
    assert found["command"].startswith("env WIRESUM_REMEDY=fp16 ")


def test_cuda_jobs_get_no_advice_that_wiresum_cannot_follow(answer):
    found = answer(report(carrier="nccl", computation_ms=100, exposed_ms=600, comm_ms=650))
    assert found["choice"] == "fp16"
    assert "CUDA" in found["impossible"]["switch-8"]


def test_infrastructure_where_no_software_helps(answer):
    """Sixteen-bit gradients of 65 workers over nccl: neither hooks nor wiresum apply."""
    content = report(
        workers=65, carrier="nccl", dtype="bfloat16", computation_ms=100, exposed_ms=600,
        comm_ms=690,
    )  # fmt: skip
    found = answer(content, "--faster-gbit", 10)
    assert (found["verdict"], found["choice"]) == ("infrastructure", "links")
    assert found["trial"] == ""


def test_end_to_end_encryption_leaves_no_switch(answer):
    found = answer(BOUND, "--protection", "wireguard")
    assert "wireguard" in found["impossible"]["switch-16"]
    plain, protected = answer(BOUND)["step_ms"], found["step_ms"]
    assert protected["predicted"] > plain["predicted"]
    macsec = answer(BOUND, "--protection", "macsec")
    steps = [named(each, "switch-16")["step_ms"]["predicted"] for each in (answer(BOUND), macsec)]
    assert steps[0] < steps[1]


# ---- money


def test_money_stands_only_where_prices_were_given(answer):
    assert named(answer(BOUND), "ranks-8")["saved_per_run"] is None
    found = named(answer(BOUND, *PRICES), "ranks-8")
    assert found["saved_per_run"] == pytest.approx(480 * found["saved_share"])
    assert found["saved_per_month"] == pytest.approx(4800 * found["saved_share"])
    assert found["payback_months"] == 0


def test_what_gains_most_within_the_horizon_is_chosen(answer):
    cheap = ("--switch-cost", "1000", "--links-cost", "1e9")
    dear = ("--switch-cost", "1e9", "--links-cost", "1e9")
    engineers = ("--engineering-days", "100", "--engineering-day", "1000")
    assert answer(BOUND, *PRICES, *cheap)["verdict"] == "infrastructure"
    assert answer(BOUND, *PRICES, *dear)["verdict"] == "software"
    stop = answer(BOUND, *PRICES, *dear, *engineers)
    assert stop["verdict"] == "stop here"
    assert "comes back within 12 months" in stop["because"]
    long = answer(BOUND, *PRICES, *dear, *engineers, "--horizon-months", 120)
    assert long["verdict"] == "software"
    found = named(long, long["choice"])
    assert found["payback_months"] == pytest.approx(100_000 / found["saved_per_month"])


def test_steps_of_a_run_stand_for_its_hours(answer):
    found = answer(BOUND, "--steps-per-run", 3600)
    assert named(found, "ranks-8")["hours_per_run"] == pytest.approx(
        named(found, "ranks-8")["step_ms"]["predicted"] / 1e3
    )


def test_more_racks_are_proposed_only_where_a_run_must_end_in_time(answer):
    hours = ("--hours-per-run", "24", "--wanted-hours")
    assert answer(BOUND, *hours, 30)["verdict"] == "stop here"
    assert answer(BOUND, *hours, 20)["choice"] == "ranks-8"
    content = report(computation_ms=1000, exposed_ms=100, comm_ms=100)
    found = answer(content, *hours, 14)
    assert (found["verdict"], found["choice"]) == ("infrastructure", "racks")
    assert "no single change" in answer(content, *hours, 1)["because"]


# ---- trials


def trial(**remedies) -> dict:
    rows = [
        {
            "name": name,
            "step_ms": {"median": step, "low": 0.98 * step, "high": 1.02 * step},
            "outcome": outcome,
            "why": why,
        }
        for name, (step, outcome, why) in remedies.items()
    ]
    return {"kind": "wiresum trial", "version": 1, "target": "1 %", "remedies": rows, "least": ""}


def test_measured_times_beat_predicted_ones_and_rejected_remedies_are_not_proposed(
    answer, tmp_path
):
    content = trial(
        gloo=(70.0, "meets", ""),
        **{
            "fp16": (50.0, "stopped", "slower than ranks-16"),
            "ranks-16": (42.0, "meets", ""),
            "ranks-8": (25.0, "misses", "its loss is 4 % above"),
        },
    )
    content["least"] = "ranks-16"
    path = reports.write(tmp_path / "trial.json", content)
    found = answer(BOUND, "--trial", path)
    assert found["choice"] == "ranks-16"
    assert found["trial"] == ""
    chosen = named(found, "ranks-16")
    assert chosen["measured"]
    assert chosen["step_ms"]["predicted"] == pytest.approx(700 * 42 / 70)
    for name in ("ranks-8", "switch-8"):
        assert named(found, name)["refused"] == "its loss is 4 % above", "the same bits"
    assert "not tried" in named(found, "ranks-32")["refused"]
    assert "slower" in named(found, "fp16")["refused"]
    assert named(found, "switch-16")["refused"] == ""


# ---- the text and the checklist


def test_the_text_begins_with_the_verdict_and_ends_with_what_would_change_it(advise, tmp_path):
    page = tmp_path / "new" / "checklist.md"
    status, out, err = advise(BOUND, *PRICES, "--checklist", page)
    assert (status, err) == (0, "")
    assert out.startswith("verdict: software\nbecause ")
    for words in ("a step takes 700 ms today", "EUR per run", "per month", "evidence", "ranks-8 ←"):
        assert words in out
    assert out.index("what would change the answer") > out.index("evidence")
    written = page.read_text()
    assert "Verdict today: **software**" in written
    assert written.count("| [ ] ") == 8


def test_the_links_may_be_given_by_hand(answer, advise):
    content = report(links=None, computation_ms=100, exposed_ms=600, comm_ms=690)
    status, out, err = advise(content)
    assert (status, out) == (2, "")
    assert "give --alpha-us and --beta-gbit" in err
    assert answer(content, "--alpha-us", 50, "--beta-gbit", 1)["verdict"] == "software"


def test_the_slowest_pair_of_unequal_links_counts(answer):
    content = report(computation_ms=100, exposed_ms=600, comm_ms=690)
    content["links"]["pairs"][3]["beta_gbit"] = 0.5
    assert any("0.5 Gbit/s" in each and "ranks 1 and 0" in each
               for each in answer(content)["evidence"])  # fmt: skip


def test_what_the_profiler_adds_is_taken_off_the_step(answer):
    content = report(computation_ms=200, exposed_ms=200, comm_ms=200)
    assert answer(content)["step_ms"]["predicted"] == pytest.approx(400)
    content["overhead_share"] = 0.25
    assert answer(content)["step_ms"]["predicted"] == pytest.approx(320)
    content["overhead_share"] = -0.02
    assert answer(content)["step_ms"]["predicted"] == pytest.approx(400)


def test_calibration_measures_this_machine(answer):
    found = answer(BOUND, "--calibrate")
    assert found["verdict"] == "software"


# ---- what is wrong


def spoiled(**changes) -> dict:
    return report() | changes


BAD = {
    "another kind": (spoiled(kind="x"), (), 1, "is not from `wiresum measure --json`"),
    "another version": (spoiled(version=9), (), 1, "has version 9"),
    "one rank": (report(workers=1), (), 1, "is of one rank only"),
    "a list": ([], (), 1, "is not from"),
    "no median": (spoiled(median=None), (), 1, "has no object 'median'"),
    "no sizes": (spoiled(collectives=[]), (), 1, "has no collective with a size"),
    "a negative time": (report(exposed_ms=-1.0), (), 1, "it must be 0 to"),
    "not a number": (report(computation_ms=float("nan")), (), 1, "total_time = nan: it must be"),
    "an absurd size": (report(sizes=((10**30, 1.0),)), (), 1, "it must be 0 to"),
    "an endless number": (report(sizes=((10**400, 1.0),)), (), 1, "it must be 0 to"),
    "a step of nearly no time": (
        report(computation_ms=1e-320, exposed_ms=0.0, comm_ms=0.0), (), 1, "total_time = ",
    ),
    "more exposed than communicated": (report(exposed_ms=900.0), (), 1, "more exposed"),
    "a dead link": (report(links=(50.0, 0.0)), (), 1, "has beta_gbit = 0.0: it must be 1e-09 to"),
    "a text for a number": (report(sizes=(("big", 1.0),)), (), 1, "has no number 'size'"),
    "a price in no currency": (report(), ("--switch-cost", "5"), 2, "give --currency"),
    "no such currency": (report(), ("--currency", "euros"), 2, "three letters"),
    "a negative price": (report(), ("--switch-cost=-5",), 2, "-5"),
    "a price that is no number": (report(), ("--switch-cost", "nan"), 2, "--switch-cost"),
    "hours and steps": (
        report(), ("--hours-per-run", "1", "--steps-per-run", "9"), 2, "give one of them",
    ),
    "days of no price": (report(), (*PRICES, "--engineering-days", "3"), 2, "--engineering-day"),
    "a wish without hours": (report(), ("--wanted-hours", "3"), 2, "--hours-per-run"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line(advise, fault):
    content, arguments, wanted, words = BAD[fault]
    status, out, err = advise(content, *arguments)
    assert (status, out, err.count("\n")) == (wanted, "", 1)
    assert words in err


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe"], ids=["empty", "nested", "not UTF-8"]
)
def test_files_that_are_no_reports_are_one_line(tmp_path, capsys, content):
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        command_line.main(ROOT, ["advise", str(path)])
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (1, "", 1)


def test_a_file_that_is_not_there_is_one_line(advise, tmp_path):
    status, out, err = advise(report(), "--trial", tmp_path / "none.json")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "cannot read" in err


def test_a_trial_without_the_plain_run_is_one_line(advise, tmp_path):
    path = reports.write(tmp_path / "trial.json", trial(fp16=(3.0, "meets", "")))
    status, _, err = advise(report(), "--trial", path)
    assert (status, err.count("\n")) == (1, 1)
    assert "no times of gloo" in err
