"""Runs whose ranks choose the field while they train."""

import json
from pathlib import Path

import pytest

from support.training import spawned

SCRIPT = Path(__file__).with_name("tuned.py")


def tuned(cli, *options: str) -> tuple[dict, str]:
    """What both ranks say, which must be the same, and what the run logs."""
    wish = ("--as-default", "--tune", "within=1%,steps=3,carrier=fixed")
    done = cli.run("run", *wish, *options, "--", *spawned(2), str(SCRIPT), "run")
    assert done.returncode == 0, done.stderr
    one, other = map(json.loads, done.stdout.splitlines())
    assert one == other
    return one, done.stderr


def test_a_run_loosens_and_goes_back_alike_on_all_ranks_over_switch_and_ranks(cli):
    one, logged = tuned(cli)
    assert "96 collectives (28.8 MB) over the switch, 0 over the ranks" in logged
    # Windows end after steps 4, 7, 10, 13, 16: the first step has no beginning.
    fields = [each["field"] for each in one["choices"]]
    assert fields[:4] == [32, 16, 8, 16]
    assert one["choices"][3]["reason"] == "the loss has risen"
    assert "wiresum: fields of 16 bits, 32 before, from collective " in logged
    assert "wiresum: fields of 32 bits, 16 from collective " in logged
    assert tuned(cli, "--carrier", "ranks")[0] == one


def test_a_script_can_ask_for_it_under_any_launcher(cli):
    process = cli.popen([*spawned(2), str(SCRIPT), "script"])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    one, other = map(json.loads, out.splitlines())
    assert one == other
    assert [each["field"] for each in one["choices"]][:3] == [32, 16, 8]
    process = cli.popen([*spawned(2), str(SCRIPT), "late"])
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "wiresum.tune must be called before init_process_group" in err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--tune", "fast"), "it must be like within=1%"),
        (("--tune", "carrier=gloo"), "it must be like within=1%"),
        (("--tune", "within=1%", "--field", "8"), "give no other field"),
    ],
)
def test_limits_that_make_no_sense_end_in_one_line(cli, options, line):
    done = cli.run("run", *options, "--", "true")
    assert done.returncode != 0
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
