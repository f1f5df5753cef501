"""What ``wiresum measure`` reports, beside what an interface counts and a training really saves."""

import json
import sys
from pathlib import Path

import pytest

from support.torchruns import clean_environment, finish
from support.training import spawned

pytest.importorskip("torch", reason="the extra `torch` is not installed")

SCRIPT = Path(__file__).with_name("half_free_training.py")
GBIT = 0.4
LIMITED = (
    "ip link set lo up && "
    f"tc qdisc add dev lo root tbf rate {1000 * GBIT:g}mbit burst 256kb latency 2s && "
    'exec "$@"'
)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("steps", [["44"], ["60", "many"]], ids=["long", "many operators"])
def test_bytes_links_and_exposed_share_are_what_they_really_are(tmp_path, steps):
    measure = [sys.executable, "-m", "wiresum.cli.main", "measure", "--json", str(tmp_path / "r")]
    measure += ["--keep", str(tmp_path / "kept")]
    job = [*spawned(2, "last"), str(SCRIPT), *steps]
    command = ["unshare", "--net", "sh", "-c", LIMITED, "sh", *measure, "--steps", "20", "--", *job]
    done = finish(command, clean_environment(), limit_s=200)
    assert done.status == 0, done.output
    truth = json.loads(next(line for line in done.output.splitlines() if line.startswith("{")))
    report = json.loads((tmp_path / "r").read_text())
    assert report["steps"] == 20
    traces = [json.loads(each.read_text()) for each in (tmp_path / "kept").glob("*.json")]
    carried = 2 * report["sent_bytes_per_step"]
    assert carried == pytest.approx(truth["carried_per_step"], rel=0.01)
    assert report["exposed_share"] == pytest.approx(truth["saved_share"], abs=0.03)
    assert report["exposed_share"] > 0.1
    assert report["overhead_share"] < 0.02
    assert ("many" in steps) == any("wiresum" in each for each in traces)
    for pair in report["links"]["pairs"]:
        assert pair["beta_gbit"] == pytest.approx(GBIT, rel=0.1)
