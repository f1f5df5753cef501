"""``wiresum measure -- COMMAND``: jobs that know nothing of it are run and reported on."""

import json
import re
import sys
from pathlib import Path

import pytest

from support.torchruns import Ended, clean_environment, finish
from support.training import spawned
from wiresum.cli.main import ROOT
from wiresum.common import command_line

pytest.importorskip("torch", reason="the extra `torch` is not installed")

SCRIPT = Path(__file__).with_name("small_training.py")
GRADIENTS = 4 * (50 * 200 + 200 + 200 * 50 + 50)


def command(*arguments: object, workers: int = 2) -> list[str]:
    return [*spawned(workers, "last"), str(SCRIPT), *map(str, arguments)]


def measure_apart(*arguments: object) -> Ended:
    started = [sys.executable, "-m", "wiresum.cli.main", "measure", *map(str, arguments)]
    return finish(started, clean_environment())


@pytest.fixture
def measure(capfd):
    """Run the command in this process: how it ended, with the output of its job."""

    def run(*arguments: object, job: list[str]) -> Ended:
        with pytest.raises(SystemExit) as end:
            command_line.main(ROOT, ["measure", *map(str, arguments), "--", *job])
        return Ended(end.value.code, "".join(capfd.readouterr()))

    return run


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    files = ("--json", folder / "report.json", "--html", folder / "report.html")
    # The training goes on until the report is there, and fails if it is not.
    job = command("--steps", 20, "--until", folder / "report.html")
    done = measure_apart("--steps", 2, "--keep", folder / "kept", *files, "--", *job)
    assert done.status == 0, done.output
    return folder, done.output, json.loads((folder / "report.json").read_text())


def digests(output: str) -> list[str]:
    return sorted(re.findall(r"rank \d: \w{64}", output))


def test_an_unchanged_ddp_script_is_reported_with_its_bytes_and_times(ddp):
    _, output, report = ddp
    assert report["notes"] == [] or "the profiler makes a step" in report["notes"][0]
    assert report["bytes_per_step"] == GRADIENTS
    assert report["steps"] == 2
    [row] = report["collectives"]
    assert (row["kind"], row["carrier"], row["dtype"]) == ("all_reduce", "gloo", "float32")
    assert (row["size"], row["per_step"], row["ranks"]) == (GRADIENTS, 1, 2)
    assert 0 < report["exposed_share"] < report["comm_share"] + 1e-9 < 1
    assert report["verdict"] in output.replace("\n", " ").replace("  ", " ")


def test_the_report_comes_once_while_the_training_goes_on(ddp):
    # The job has ended well, so it has seen the report's page.
    assert ddp[1].count("of a step is exposed communication\n") == 1


def test_the_report_says_which_job_it_is_of_and_what_measuring_cost(ddp):
    _, output, report = ddp
    job = report["job"]
    assert (job["world_size"], job["device"], job["backend"]) == (2, "cpu", "gloo")
    assert len(job["hosts"]) == 1
    assert str(SCRIPT) in job["command"]
    assert -1 < report["overhead_share"] < 100
    assert "2 ranks on 1 host, gloo, cpu; the profiler adds" in output


def test_the_links_between_the_ranks_are_measured_in_both_directions(ddp):
    _, output, report = ddp
    pairs = report["links"]["pairs"]
    assert [(pair["from"], pair["to"]) for pair in pairs] == [(0, 1), (1, 0)]
    assert all(pair["alpha_us"] > 0 and pair["beta_gbit"] > 0 for pair in pairs)
    assert report["links"]["slowest"] in ([0, 1], [1, 0])
    assert report["links"]["note"] == ""
    assert "The slowest of 2: from rank" in output


def test_measuring_leaves_the_weights_as_they_are(ddp):
    alone = finish(command("--steps", 20), clean_environment())
    assert len(digests(alone.output)) == 2
    assert digests(ddp[1]) == digests(alone.output)


def test_the_page_has_the_figures_of_the_json(ddp):
    folder, _, report = ddp
    page = (folder / "report.html").read_text()
    [data] = re.findall(r'id="report">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == report


def test_kept_traces_give_the_same_report_again(ddp):
    folder, _, report = ddp
    done = measure_apart("--trace", folder / "kept", "--json", folder / "again.json")
    assert done.status == 0, done.output
    read = json.loads((folder / "again.json").read_text())
    assert read["job"].pop("command") is None
    assert read["job"] == {
        name: value for name, value in report["job"].items() if name != "command"
    }
    assert read | {"job": 0} == report | {"job": 0}


def test_a_folder_with_files_that_would_be_read_with_the_runs_is_refused(measure, tmp_path):
    for name in ("rank0.json", "settings.json", "old.json.gz", "process7.observed"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("")
        done = measure("--keep", folder, job=["true"])
        assert done.status == 2
        assert f"has {name}, which is not of this run" in done.output


def test_a_report_that_cannot_be_written_is_told_before_the_job_runs(measure, tmp_path):
    (tmp_path / "file").write_text("")
    job = ["touch", str(tmp_path / "it ran")]
    done = measure("--json", tmp_path / "file" / "report.json", job=job)
    assert (done.status, done.output.count("\n")) == (1, 1)
    assert "cannot write" in done.output
    assert not (tmp_path / "it ran").exists()


def test_an_fsdp_script_is_reported_by_collective(measure, tmp_path):
    job = command("--kind", "fsdp")
    done = measure("--steps", 2, "--json", tmp_path / "report.json", job=job)
    assert done.status == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    # gloo makes an all-reduce of a reduce-scatter, and its events say so.
    sizes = {(row["kind"], row["size"]): row["per_step"] for row in report["collectives"]}
    assert sizes == {("all_gather", GRADIENTS): 1, ("all_reduce", GRADIENTS): 1}


def test_what_wiresum_sums_is_reported_like_the_rest(measure, tmp_path, monkeypatch):
    monkeypatch.setenv("WIRESUM_CARRIER", "ranks")
    job = command("--backend", "wiresum")
    done = measure("--steps", 2, "--json", tmp_path / "report.json", job=job)
    assert done.status == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    [row] = report["collectives"]
    assert (row["carrier"], row["kind"], row["dtype"]) == ("wiresum", "all_reduce", "float32")
    assert (row["size"], row["per_step"]) == (GRADIENTS, 1)
    assert row["group"] == "default_pg of 2 ranks"
    assert report["verdict"].startswith(("Worth a closer look: ", "Not worth it: "))


def test_a_script_that_ends_early_is_reported_as_far_as_it_came(measure, tmp_path):
    done = measure("--steps", 4, "--json", tmp_path / "r.json", job=command("--steps", 9))
    assert done.status == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["steps"] == 2
    assert "the script ended after 2 of 4 steps to record" in report["notes"][0]


def test_a_rank_without_a_trace_is_named(measure, tmp_path):
    job = command("--steps", 9, "--vanishes", 1)
    done = measure("--steps", 1, "--json", tmp_path / "r.json", job=job)
    assert done.status == 0, done.output
    notes = "\n".join(json.loads((tmp_path / "r.json").read_text())["notes"])
    assert "1 ranks have written nothing" in notes
    assert "1 of 2 ranks have a trace; missing: 1" in notes


BAD = {
    "no such command": (["no-such-command"], 127, "command 'no-such-command' not found"),
    "no training": (["true"], 1, "no process of the command took a step of an optimizer"),
    "a command that fails": (["sh", "-c", "exit 7"], 7, "the command ended with status 7: no proc"),
    "one process": (("--kind", "alone"), 1, "the script has no process group"),
    "no collective": (("--kind", "silent"), 1, "no collective of nccl, gloo or wiresum"),
    "too few steps": (("--steps", 5), 1, "the script took 5 steps, too few to record any: 1 recor"),
    "a training that fails": (("--status", 9), 1, "status 1: the report is of the steps before"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_measured_ends_in_one_clear_line(measure, fault):
    job, status, words = BAD[fault]
    workers = 2 if "--status" in job else 1
    ended = measure(
        "--steps", 1, job=job if isinstance(job, list) else command(*job, workers=workers)
    )
    lines = [line for line in ended.output.splitlines() if line.startswith("wiresum: ")]
    assert ended.status == status, ended.output
    assert len(lines) == 1, ended.output
    assert words in lines[0]
    assert "Traceback" not in ended.output
