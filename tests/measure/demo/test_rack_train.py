"""The demo's training across a rack, from the command line to the switch's counters."""

import json
from pathlib import Path

import pytest

from support.processes import Commands

pytestmark = pytest.mark.root


def test_training_across_a_lossy_rack(kind: str, name: str, cli: Commands, tmp_path: Path) -> None:
    done = cli.run(
        "testbed", "train", "--name", name, "--switch", kind, "--workers", "2", "--steps", "5",
        "--field", "8", "--rate", "100mbit", "--loss", "1%", "--json", "t.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "account for every chunk" in " ".join(done.stdout.split())
    found = json.loads((tmp_path / "t.json").read_text())
    training, events = found["training"], found["training"]["events"]
    assert training["same_weights"]
    chunks = training["chunks"]
    assert chunks > 5_000
    assert events["completed"] == events["claimed"] == events["added"] == chunks
    # What was lost was sent again, and not summed again.
    assert found["lost_frames"] is None or found["lost_frames"] > 50
    assert training["retransmissions"] > 50
    assert events["resent"] + events["waited"] > 0
    for worker in ("w0", "w1"):
        assert (tmp_path / "out" / f"testbed-{worker}.log").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "1"), "at least 2"),
        (("--field", "5"), "32, 16 or 8"),
        (("--switch", "tofino"), "bmv2 or soft"),
        (("--rate", "quick"), "--rate"),
        (("--loss", "200%"), "--loss"),
        (("--lanes", "63"), "64 or 256"),
    ],
)
def test_unusable_options_are_refused(options: tuple[str, str], words: str, cli: Commands) -> None:
    done = cli.run("testbed", "train", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
