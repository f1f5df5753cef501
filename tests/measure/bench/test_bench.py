"""``wiresum bench switch``: it measures, checks every sum, and leaves nothing behind."""

import json

import pytest


@pytest.mark.root
@pytest.mark.parametrize(
    "kind",
    ["soft", pytest.param("bmv2", marks=pytest.mark.bmv2)],
    indirect=True,
)
@pytest.mark.slow
def test_the_switch_against_another(cli, name, kind, tmp_path):
    file = tmp_path / "bench.json"
    done = cli.run(
        "bench", "switch", "--against", kind, "--lanes", "64", "--workers", "2", "--repeat", "2",
        "--seconds", "0.1",
        "--json", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    alone = content["alone"]
    assert all(rate > 0 for rate in alone["memory"])
    assert all(each["rate"] > 0 for each in alone["sockets"]["switch"])
    assert len(alone["sockets"]["kernel"]) == 2
    said = content["racks"]
    first, second = said["switches"].values()
    for measured in (first, second):
        assert measured["chunks"] >= 2000
        assert all(rate > 0 for rate in measured["rounds"])
    want = [a / b for a, b in zip(first["rounds"], second["rounds"], strict=True)]
    assert said["ratios"] == pytest.approx(want, rel=1e-4)
    assert "ratio to" in done.stdout
