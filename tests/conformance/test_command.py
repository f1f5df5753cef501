"""``wiresum testbed conformance``: its output and its exit status."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from test_differential import OURS, Broken

from wiresum.testbed import find_bmv2
from wiresum.testbed.conformance import bmv2, cli
from wiresum.testbed.conformance.errors import SwitchesDiffer
from wiresum.testbed.conformance.scenario import Scenario
from wiresum.testbed.conformance.soft import SoftTarget


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wiresum.cli.main", "testbed", "conformance", *arguments],
        capture_output=True, text=True, timeout=100, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "say what to compare: wiresum testbed conformance --fuzz"),
        (["--fuzz", "--lanes", "96"], 2, "no switch program has 96 lanes: choose 64 or 256"),
        (["--fuzz"], 1, "simple_switch_grpc is not on PATH: install BMv2"),
    ],
)
def test_an_impossible_comparison_is_one_line(arguments: list[str], status: int, said: str) -> None:
    done = command(*arguments, PATH="/nowhere")
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.bmv2
@pytest.mark.skipif(not bmv2.available(), reason=f"{bmv2.BINARY} is not on PATH")
def test_a_run_against_bmv2() -> None:
    done = command("--fuzz", "--sequences", "40", "--seed", "6")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 lanes, 40 sequences, seed 6" in done.stdout
    assert re.search(r"^40 sequences in \d+ s: \d+ frames in", done.stdout, re.M)
    assert re.search(r"^  drops: .*TRUNCATED \d+", done.stdout, re.M)
    assert done.stdout.endswith("no difference\n")


def run(**options: Any) -> None:
    cli.conformance(fuzz=True, seed=9, first=options.pop("first", 0), lanes=64, **options)


def test_a_difference_is_reported_and_can_be_repeated(
    start_soft: Callable[[Scenario], SoftTarget],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bmv2, "available", lambda: True)
    monkeypatch.setattr(bmv2, "Bmv2Target", lambda *_: Broken(start_soft(OURS), "bit"))
    monkeypatch.setattr(find_bmv2, "version", lambda: "of no version")
    with pytest.raises(SwitchesDiffer) as told:
        run(sequences=200)
    repeat = re.search(r"--seed 9 --first (\d+) --sequences 1$", str(told.value))
    assert repeat is not None
    first = capsys.readouterr().out
    assert "on fresh switches these steps show it:" in first
    assert re.search(r"^ +\d+ port \d [0-9a-f]+", first, re.M)
    with pytest.raises(SwitchesDiffer):
        run(sequences=1, first=int(repeat[1]))
    second = capsys.readouterr().out
    assert first[first.index("on fresh") :] == second[second.index("on fresh") :]
