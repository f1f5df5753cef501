"""``wiresum bench flood``: what it sends arrives, every sum is checked, the ratios are its own."""

import json
import statistics

import pytest

from wiresum.measure.attack.frames import KINDS, flood, target_of
from wiresum.p4 import packet

FACTS = {
    "switch": ["02:00:0a:00:00:fe", "10.0.0.254", packet.UDP_PORT],
    "workers": [["02:00:0a:00:00:01", "10.0.0.1", 40001], ["02:00:0a:00:00:02", "10.0.0.2", 40002]],
    "attacker": ["02:00:0a:00:00:03", "10.0.0.3", packet.UDP_PORT],
    "job": 3, "epoch": 9, "lanes": 64,
}  # fmt: skip


@pytest.mark.root
# The rack's links see to the priority, whichever switch it is; see measure/attack/priority.py.
@pytest.mark.parametrize(
    ("kind", "priority"),
    [
        pytest.param("soft", [], id="soft-plain"),
        pytest.param("soft", ["--priority"], id="soft-priority", marks=pytest.mark.slow),
        pytest.param("bmv2", [], id="bmv2-plain", marks=pytest.mark.bmv2),
        pytest.param(
            "bmv2", ["--priority"], id="bmv2-priority", marks=[pytest.mark.bmv2, pytest.mark.slow]
        ),
    ],
    indirect=["kind"],
)
def test_a_flood_is_measured(cli, name, kind, priority, tmp_path):
    file = tmp_path / "flood.json"
    done = cli.run(
        "bench", "flood", "--switch", kind, "--workers", "2", "--rate", "50mbit", "--repeat", "2",
        "--seconds", "0.1", "--kinds", "none,elsewhere,wrong-key,broadcast", "--name", name,
        "--json", str(file), *priority,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(file.read_text())
    floods = {each["kind"]: each for each in said["floods"]}
    assert list(floods) == ["none", "elsewhere", "wrong-key", "broadcast"]
    for each in floods.values():
        pairs = zip(each["rounds"], each["quiet"], strict=True)
        want = [flooded["seconds"] / quiet["seconds"] for flooded, quiet in pairs]
        assert each["ratios"] == pytest.approx(want)
        assert f"{statistics.median(want):.2f} ×" in done.stdout
    assert {each["mbit"] for each in floods["none"]["rounds"]} == {0}
    for label in ("elsewhere", "wrong-key", "broadcast"):
        assert all(1 < each["mbit"] < 60 for each in floods[label]["rounds"])
    assert said["drops"]["stranger"] > 100
    assert "wrong_version" not in said["drops"]  # what goes elsewhere does not come here


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--kinds", "water"], "--kinds water"),
        (["--kinds", ""], "--kinds is empty"),
        (["--rate", ""], "--rate '': links need a limit"),
        (["--switch", "tofino"], "--switch tofino"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, options, complaint):
    done = cli.run("bench", "flood", *options)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_floods_are_full_frames_with_right_headers(kind):
    frames = flood(kind, target_of(FACTS))
    assert len(set(frames)) == len(frames)
    for frame in frames:
        length = int.from_bytes(frame[16:18])
        assert len(frame) == 14 + length <= 1514
        total = sum(int.from_bytes(frame[at : at + 2]) for at in range(14, 34, 2))
        assert total % 0xFFFF == 0, "IPv4 checksum"
        if frame[23] == 17:
            assert int.from_bytes(frame[38:40]) == length - 20
