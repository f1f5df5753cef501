"""``wiresum plan``: its table, its JSON, its sources of jobs, its error lines."""

import json

import pytest

from support import reports
from wiresum.cli.main import ROOT
from wiresum.common import command_line

JOBS = """
[[jobs]]
name = "vision"
workers = 48
compute_ms = 100
gradient_mb = 100
buckets = 4
remedy = "switch-16"
count = 2

[[jobs]]
name = "text"
workers = 40
compute_ms = 200
gradient_mb = 400
buckets = 16
hidden_ms = 80
remedy = "ranks-16"
"""


@pytest.fixture
def plan(capsys, tmp_path):
    """Run the command on a file of jobs, in this process: its status, stdout and stderr."""

    def run(content: str, *arguments: object, name: str = "jobs.toml") -> tuple[int, str, str]:
        (tmp_path / name).write_text(content)
        with pytest.raises(SystemExit) as end:
            command_line.main(ROOT, ["plan", "--jobs", str(tmp_path / name), *map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def made(plan):
    """The plan as JSON."""

    def run(content: str, *arguments: object, **more) -> dict:
        status, out, err = plan(content, "--json", *arguments, **more)
        assert (status, err) == (0, "")
        return json.loads(out)

    return run


def one(**job) -> str:
    values = {"workers": 8, "compute_ms": 100, "gradient_mb": 50} | job
    return json.dumps({"jobs": [values]})


def test_the_table_and_the_json_say_the_same(plan, made):
    status, out, err = plan(JOBS, "--uplink", "10gbit")
    assert (status, err) == (0, "")
    found = made(JOBS, "--uplink", "10gbit")
    assert found["fabric"]["oversubscription"] == 32
    assert [each["name"] for each in found["jobs"]] == ["vision-0", "vision-1", "text"]
    assert "oversubscribed 32 : 1" in out
    assert "communication phases collide" in out
    assert f"{found['jobs'][2]['step_ms']['alone']:.3g}" in out
    for words in ("3 of 3 jobs are admitted", "vision-0", "switch-8", "begin later by"):
        assert words in out


def test_the_same_jobs_are_read_from_json_toml_and_yaml(made):
    content = one(name="a", remedy="switch-16")
    as_json = made(content, name="jobs.json")
    assert made(content, name="jobs.yaml") == as_json
    toml = '[[jobs]]\nname = "a"\nworkers = 8\ncompute_ms = 100\ngradient_mb = 50\n'
    assert made(toml + 'remedy = "switch-16"\n') == as_json


def test_switch_sums_are_a_column_of_every_job(made):
    found = made(one(remedy="gloo", buckets=2), name="jobs.json")["jobs"][0]
    steps = found["what_if_ms"]
    assert steps["gloo"] == pytest.approx(found["step_ms"]["closed_form"])
    assert steps["switch-8"] < steps["switch-16"] < steps["switch-32"] < steps["gloo"]
    many = made(one(remedy="gloo", workers=200), name="jobs.json")["jobs"][0]["what_if_ms"]
    assert set(steps) - set(many) == {"ranks-8", "switch-8"}, "8 bits hold no sum of 200"


def test_ten_thousand_workers_are_planned_and_simulated(made):
    jobs = [
        {"name": f"j{at}", "workers": 1250, "compute_ms": 100 + at, "gradient_mb": 200,
         "buckets": 8, "hidden_ms": 30, "remedy": "switch-16"}
        for at in range(8)
    ]  # fmt: skip
    found = made(
        json.dumps({"jobs": jobs}), "--hosts-per-rack", 40, "--link", "100gbit", "--uplink",
        "100gbit", "--jitter", 0.01, "--stragglers", 0.0001, "--loss", 1e-6, "--slots", 65536,
        name="jobs.json",
    )  # fmt: skip
    assert found["fabric"]["racks"] == 250
    assert not found["waiting"]
    assert sum(rack["hosts"] for rack in found["racks"]) == 10_000
    for each in found["jobs"]:
        assert each["step_ms"]["shifted"] > 100


def test_a_report_of_measure_is_a_job(made, tmp_path):
    reports.write(tmp_path / "report.json", reports.report(sizes=((25 * reports.MIB, 2.0),)))
    content = json.dumps({"jobs": [{"report": "report.json", "remedy": "gloo", "count": 2}]})
    found = made(content, name="jobs.json")["jobs"]
    assert [each["workers"] for each in found] == [4, 4]


def test_jobs_go_out_as_chakra_traces_and_come_back(made, tmp_path):
    first = made(one(name="a", buckets=4, hidden_ms=30), "--chakra", tmp_path, name="a.json")
    content = json.dumps({"jobs": [{"name": "a", "chakra": "a"}]})
    assert made(content, name="b.json")["jobs"] == first["jobs"]


def test_jobs_that_do_not_fit_wait_and_are_told_why(plan, made):
    found = made(JOBS, "--racks", 2, "--hosts-per-rack", 48)
    assert [each["name"] for each in found["waiting"]] == ["text"]
    assert "0 hosts are free" in found["waiting"][0]["why"]
    assert "waits: text" in plan(JOBS, "--racks", 2, "--hosts-per-rack", 48)[1]


def test_a_seed_gives_the_same_plan_again(made):
    options = ("--uplink", "10gbit", "--jitter", 0.1, "--seed", 3)
    assert made(JOBS, *options) == made(JOBS, *options)


BAD = {
    "no jobs": ("{}", (), 1, "has no list `jobs`"),
    "no JSON": ("{", (), 1, "cannot be parsed"),
    "no table": ('{"jobs": [3]}', (), 1, "job 0 (from 0): it is no table"),
    "no workers": ('{"jobs": [{"compute_ms": 1, "gradient_mb": 1}]}', (), 1, "it has no workers"),
    "an unknown key": (one(gpus=3), (), 1, "'gpus', which no job has"),
    "an unknown remedy": (one(remedy="magic"), (), 1, "its remedy 'magic' is none of"),
    "a list for a remedy": (one(remedy=["gloo"]), (), 1, "its remedy ['gloo'] is none of"),
    "a name of another folder": (one(name="../a"), (), 1, "its name is '../a': it must be"),
    "a name that is no text": (one(name=[[[3]]]), (), 1, "its name is [[...]]: it must be"),
    "an endless number": (one(gradient_mb=10**400), (), 1, "it must be a number from 0"),
    "an endless trace": (one(chakra="/dev/zero"), (), 1, "it is larger than 256 MiB"),
    "an endless report": (one(report="/dev/zero"), (), 1, "it is larger than 64 MiB"),
    "traces without end": (one(workers=10_000, buckets=2000), ("--chakra", "never"), 1, "MiB, the"),
    "a half worker": (one(workers=1.5), (), 1, "it must be a whole number"),
    "negative bytes": (one(gradient_mb=-1), (), 1, "it must be a number from 0"),
    "not a number": (one(compute_ms=float("nan")), (), 1, "it must be a number from 0"),
    "too many workers": (one(workers=10_001), (), 1, "from 1 to 10000"),
    "too many jobs": (json.dumps({"jobs": json.loads(one(count=900))["jobs"] * 2}), (), 1,
                      "more than 1000 jobs"),
    "a name twice": (json.dumps({"jobs": json.loads(one(name="a"))["jobs"] * 2}), (), 1,
                     "two jobs called a"),
    "two sources": (one(report="a", chakra="b"), (), 1, "one path of a report or of a trace"),
    "no such report": (one(report="none.json"), (), 1, "cannot read"),
    "no such trace": (one(chakra="none.et"), (), 1, "cannot read"),
    "no rate": (one(), ("--link", "fast"), 2, "it must be a rate"),
    "a rate of nothing": (one(), ("--uplink", "0"), 2, "it must be a rate"),
    "a simulation of hours": (
        one(workers=3, count=400, remedy="gloo"), ("--hosts-per-rack", "2", "--steps", "10000"), 1,
        "10000 steps of 400 jobs",
    ),
    "too many racks": (
        json.dumps({"jobs": json.loads(one(workers=10_000, count=3))["jobs"]}),
        ("--hosts-per-rack", "1"), 1, "need 30000 racks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line(plan, fault):
    content, arguments, wanted, words = BAD[fault]
    status, out, err = plan(content, *arguments, name="jobs.json")
    assert (status, out, err.count("\n")) == (wanted, "", 1)
    assert words in err


def test_yaml_without_its_library_is_one_line(plan, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    status, _, err = plan("jobs:\n- workers: 3\n", name="jobs.yaml")
    assert (status, err.count("\n")) == (1, 1)
    assert "pip install pyyaml" in err
