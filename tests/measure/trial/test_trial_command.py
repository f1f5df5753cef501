"""`wiresum trial` from outside: remedies on a script that stays as it is, and its error lines."""

import json
import re
from pathlib import Path

import pytest

from support.processes import Commands
from support.training import spawned

SCRIPT = Path(__file__).with_name("train.py")
STEPS = 20
EXPONENTS = 4600  # bytes: of a small tensor's exponents, 1,024 words are sent in any case
CANDIDATES = "fp16,powersgd,ranks-8,top-k,local-steps,sparse-loco"
PARAMETERS = 64 * 128 + 128 + 128 * 8 + 8


def trial(cli: Commands, way: str, *options: str, workers: int = 2):
    command = [*spawned(workers), str(SCRIPT), way]
    return cli.run("trial", "--steps", str(STEPS), *options, "--", *command)


def test_a_trial_compares_the_remedies_and_goes_on_where_it_was(cli, tmp_path):
    options = ("--candidates", CANDIDATES, "--within", "5%", "--out", "kept")
    done = trial(cli, "reports", *options, "--json", "report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in report["remedies"]}
    assert list(rows) == [
        *("gloo", "powersgd", "sparse-loco", "top-k", "local-steps", "ranks-8", "fp16")
    ]
    assert (report["kind"], report["version"], report["world_size"]) == ("wiresum trial", 1, 2)

    # Each of two ranks sends the gradients once, in the bits of the remedy.
    for name, share in (("gloo", 1.0), ("ranks-8", 0.25), ("fp16", 0.5)):
        row = rows[name]
        if row["outcome"] != "stopped":
            gradients = 4 * PARAMETERS * share
            assert gradients <= row["bytes_per_step"] < 1.1 * gradients + EXPONENTS, name
            assert row["steps"] == STEPS
            assert row["step_ms"]["low"] <= row["step_ms"]["median"] <= row["step_ms"]["high"]
    # 4 of one weight's 32 blocks, 1 of the other's 4, the biases, and a word for each block.
    chosen = 256 * (4 + 1) + 4 * 136 + 4 * 38
    syncs = 2 * STEPS / 8 / STEPS
    for name, least, most in (
        ("top-k", chosen, 2 * chosen),
        ("local-steps", PARAMETERS * 4 / 16, PARAMETERS * 4 * syncs),
        ("sparse-loco", chosen / 16, chosen * syncs),
    ):
        if rows[name]["outcome"] != "stopped":
            assert least <= rows[name]["bytes_per_step"] <= most, name
    assert rows["gloo"]["outcome"] == "meets"
    # PowerSGD may be ended early for its loss; several buckets must not make it fail.
    assert rows["powersgd"]["outcome"] != "failed", rows["powersgd"]["why"]
    assert report["least"] not in (None, "gloo", "fp16")
    if report["least"] == "ranks-8":
        assert "--carrier ranks --field 8" in done.stdout
    page = (tmp_path / "kept" / "report.html").read_text()
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page)
    assert found is not None
    assert json.loads(found[1]) == report
    assert not re.search(r"https?://|<link|src=", page)
    output = (tmp_path / "kept" / "ranks-8-seed0" / "output.txt").read_text()
    assert "has gone on" not in output
    assert "Traceback" not in output

    (tmp_path / "kept" / "fp16-seed0" / "outcome.json").unlink()  # as if interrupted there
    again = trial(cli, "reports", *options)
    assert again.returncode == 0, again.stderr
    before = re.findall(r"^([\w-]+), seed 0: \w+ \(before\)", again.stderr, re.M)
    assert set(before) >= {"gloo", "ranks-8"}
    assert "fp16" not in before
    other = trial(cli, "reports", *options, "--steps", "30")
    assert other.returncode == 2
    assert "kept holds another trial (changed: steps)" in other.stderr


def test_losses_come_from_the_output_too_and_each_seed_is_another_training(cli, tmp_path):
    options = ("--candidates", "switch-32", "--embedded", "--seeds", "2", "--json", "r.json")
    done = trial(cli, "prints", *options)
    assert done.returncode == 0, done.stderr
    gloo, switch = json.loads((tmp_path / "r.json").read_text())["remedies"]
    assert gloo["seeds"] == 2
    assert gloo["loss"]["low"] < gloo["loss"]["high"]
    if switch["outcome"] != "stopped":  # it is, where it is slower than gloo on this machine
        assert switch["loss"]["median"] == pytest.approx(gloo["loss"]["median"], rel=1e-4)


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("silent", r"the script reports no loss: call wiresum\.report"),
        ("short", r"the script ends after 12 steps, before the 20 of the trial: --steps 12"),
        ("alone", r"the script does no collective \(2 ranks\)"),
        ("fails", r"the plain run .* has failed: status 1: .*RuntimeError: no such tensor"),
    ],
)
def test_a_script_that_cannot_be_tried_ends_in_one_line(cli, way, line):
    done = trial(cli, way)
    assert done.returncode == 1
    assert re.fullmatch(rf"wiresum: {line}.*\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--", "no-such-command"), "no-such-command"),
        ((), "try what"),
        (("--candidates", "best", "--", "true"), "--candidates best: it must be of gloo, fp16"),
        (("--candidates", "switch-8", "--", "true"), "needs a switch"),
        (("--within", "120%", "--", "true"), "'120%' is no share"),
        (("--within", "1%", "--target-loss", "2", "--", "true"), "not both"),
        (("--loss-pattern", "loss", "--", "true"), "it has 0 groups"),
        (("--", "true"), "no step of an optimizer was seen"),
    ],
)
def test_bad_input_ends_in_one_line(cli, arguments, line):
    done = cli.run("trial", *arguments)
    assert done.returncode != 0
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
