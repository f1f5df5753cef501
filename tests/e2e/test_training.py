"""A model trained through the switch program, from the command line to the weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import commands
from support.training import SCRIPT, rack, spawned, torchrun


def same_weights(reports, workers):
    assert len(reports) == workers
    assert len({report["digest"] for report in reports}) == 1
    assert all(report["ones"] == [workers] for report in reports)
    return reports[0]["digest"]


def through_the_switch(reports):
    for report in reports:
        assert report["stats"]["switch"]["all_reduce"] > 0
        assert report["stats"]["engine"]["contributions"] > 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> list[dict]:
    """The training of two workers over an embedded switch; others are compared with it."""
    folder = tmp_path_factory.mktemp("plain")
    with commands(folder) as cli:
        done = cli.run("run", "--", *spawned(2), str(SCRIPT), "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.glob("report.*.json"))]


@pytest.fixture(scope="module")
def gloo(tmp_path_factory) -> list[dict]:
    """The same training over gloo, without wiresum."""
    out = tmp_path_factory.mktemp("gloo")
    done = subprocess.run(
        [*spawned(2), str(SCRIPT), "--out", str(out), "--backend", "gloo"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in sorted(out.glob("report.*.json"))]


def test_training_through_the_switch_ends_where_gloo_ends(plain, gloo):
    same_weights(plain, 2)
    through_the_switch(plain)
    assert plain[0]["loss"] == pytest.approx(gloo[0]["loss"], rel=1e-3)


@pytest.mark.parametrize("field", [pytest.param("16", marks=pytest.mark.slow), "8"])
def test_narrow_fields_train_too(train, gloo, field):
    done, reports = train("--field", field)
    assert done.returncode == 0, done.stderr
    same_weights(reports, 2)
    through_the_switch(reports)
    assert reports[0]["loss"] == pytest.approx(gloo[0]["loss"], rel=0.2)


def test_a_script_that_says_gloo_gets_the_switch_with_as_default(train):
    done, reports = train("--as-default", script=("--backend", "gloo"))
    assert done.returncode == 0, done.stderr
    same_weights(reports, 2)
    through_the_switch(reports)


def test_loss_changes_nothing_but_the_time(train, cli):
    digests = set()
    for loss, seed in ((0.0, 1), (0.1, 3)):
        done, reports = train("--controller", rack(cli, loss, seed), workers=3)
        assert done.returncode == 0, done.stderr
        digests.add(same_weights(reports, 3))
        if loss:
            assert sum(r["stats"]["engine"]["retransmissions"] for r in reports) > 0
    assert len(digests) == 1


@pytest.mark.slow
def test_64_lanes_give_the_same_sums_as_256(train, cli, plain):
    done, reports = train("--controller", rack(cli, lanes=64))
    assert done.returncode == 0, done.stderr
    assert same_weights(reports, 2) == same_weights(plain, 2)


@pytest.mark.slow
def test_two_jobs_share_a_switch(cli, tmp_path, plain):
    alone = same_weights(plain, 2)
    controller = rack(cli)
    processes = []
    for index in range(2):
        out = tmp_path / f"job{index}"
        out.mkdir()
        process = cli.start(
            "run", "--controller", controller, "--", *spawned(2), str(SCRIPT), "--out", str(out),
        )  # fmt: skip
        processes.append((process, out))
    for process, out in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        reports = [json.loads(path.read_text()) for path in sorted(Path(out).glob("report.*.json"))]
        through_the_switch(reports)
        assert same_weights(reports, 2) == alone
    listed = cli.run("job", "list", "--json", "--controller", controller)
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)) == 2


@pytest.mark.slow
def test_plain_torchrun_falls_back_with_one_warning(cli, tmp_path):
    out = tmp_path / "plain"
    out.mkdir()
    done = subprocess.run(
        [*torchrun(2), str(SCRIPT), "--out", str(out)],
        env=cli.env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reports = [json.loads(path.read_text()) for path in sorted(out.glob("report.*.json"))]
    same_weights(reports, 2)
    assert all(report["stats"]["switch"] == {} for report in reports)
    assert done.stderr.count("wiresum run") == 1, done.stderr


def test_the_exit_status_of_the_command_is_passed_on(cli):
    done = cli.run("run", "--", sys.executable, "-c", "import sys; sys.exit(7)")
    assert done.returncode == 7
