"""``wiresum demo`` as a user runs it, with few steps."""

import json
import sys
from pathlib import Path

from support.torchruns import clean_environment, finish

DEMO = [sys.executable, "-m", "wiresum.cli.main", "demo"]


def test_the_demo(tmp_path: Path) -> None:
    command = [*DEMO, "--workers", "2", "--steps", "6", "--out", str(tmp_path)]
    report = tmp_path / "numbers.json"
    ended = finish([*command, "--json", str(report)], clean_environment(), limit_s=150)
    assert ended.status == 0, ended.output
    assert "The switch's counters account for every chunk" in ended.output
    assert "chunks summed by the switch" in ended.output
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(report.read_text())
    gloo, wiresum = numbers["gloo"], numbers["wiresum"]
    assert wiresum["events"]["completed"] == wiresum["chunks"] > 0
    assert wiresum["events"]["claimed"] + wiresum["events"]["added"] == 2 * wiresum["chunks"]
    assert abs(gloo["validation_loss"] - wiresum["validation_loss"]) < 1e-3
    assert len(wiresum["losses"]) == 6
    assert wiresum["losses"][-1] < wiresum["losses"][0]
    # Two workers: a ring sends as much as the switch, headers aside. Both send the whole gradient.
    gradient = 4 * wiresum["parameters"]
    assert 2 * gradient < wiresum["switch_bytes"] < 2 * gradient * 1.2
    assert 2 * gradient < gloo["tcp_bytes"] < 2 * gradient * 1.2
    assert gloo["switch_bytes"] == 0


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = finish([*DEMO, "--out", str(tmp_path / "file" / "out")], clean_environment())
    assert ended.status == 1
    assert ended.output.count("\n") == 1
    assert "cannot make the folder" in ended.output


def test_a_training_that_fails_is_one_line_and_leaves_its_log(tmp_path: Path) -> None:
    env = clean_environment() | {"PYTHONPATH": str(tmp_path)}
    (tmp_path / "pydoc_data.py").write_text("raise RuntimeError('no text here')\n")
    ended = finish([*DEMO, "--workers", "2", "--steps", "5", "--out", str(tmp_path)], env)
    assert ended.status == 1, ended.output
    (line,) = [line for line in ended.output.splitlines() if line.startswith("wiresum:")]
    assert "the training over gloo ended with status 1" in line
    assert "no text here" in line
    assert "no text here" in (tmp_path / "demo-gloo.log").read_text()
