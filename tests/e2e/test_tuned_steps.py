"""Runs whose ranks choose H of local steps while they train."""

import json
from pathlib import Path

from support.training import spawned

SCRIPT = Path(__file__).with_name("tuned_steps.py")


def tuned(cli, ways: tuple[str, ...], *options: str) -> tuple[dict, str]:
    """What both ranks say, which must be the same, and what the run logs."""
    done = cli.run("run", *options, "--", *spawned(2), str(SCRIPT), *ways, limit_s=300)
    assert done.returncode == 0, done.stderr
    one, other = map(json.loads, done.stdout.splitlines())
    assert one == other
    return one, done.stderr


def test_h_begins_at_1_grows_up_to_the_scripts_own_and_goes_back_with_the_same_bits(cli):
    ways = ("local", "diloco", "late")
    wish = ("--tune", "steps=8,h=auto,error=0,drift=50%,carrier=fixed")
    one, logged = tuned(cli, ways, *wish)
    hs = one["local"]["hs"]
    assert hs[:4] == [1, 2, 4, 2]
    assert max(hs) == 4
    assert hs[-1] > 2  # after its rest
    reasons = [each["reason"] for each in one["choices"]]
    assert reasons[:2] == ["communication is exposed, drift and loss allow it"] * 2
    assert reasons[2] == "the loss has risen"
    assert one["diloco"]["hs"][:3] == [1, 2, 4]
    # A sum that is given a step's time needs two steps.
    assert set(one["late"]["hs"]) == {2, 4}
    assert "wiresum: H is 2, 1 before, from step " in logged
    assert "; H as it began, …, " in logged
    assert tuned(cli, ways, *wish, "--carrier", "ranks")[0] == one


def test_ranks_that_drift_keep_h_at_1(cli):
    options = ("--tune", "steps=8,error=0,drift=0.0001%,h=auto", "--carrier", "ranks")
    one, _ = tuned(cli, ("local",), *options)
    assert one["local"] == {**one["local"], "hs": [1], "rounds": 161}
