"""``wiresum testbed soak`` from the command line."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from support.processes import Commands
from wiresum.measure.soak import leaks


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "1"), "at least 2"),
        (("--switch", "tofino"), "bmv2 or soft"),
        (("--minutes", "0"), "0.1 to 10000"),
        (("--minutes", "nan"), "0.1 to 10000"),
        (("--minutes", "long"), "--minutes"),
        (("--seed", "-1"), "--seed"),
        (("--jobs", "0"), "--jobs"),
        (("--name", "No Name"), "--name"),
    ],
)
def test_unusable_options_are_refused(options: tuple[str, str], words: str, cli: Commands) -> None:
    done = cli.run("testbed", "soak", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_process_that_a_soak_leaves_is_found_by_its_mark() -> None:
    name = uuid.uuid4().hex
    assert leaks.after("no-such-rack", name) == []
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command,
        env=os.environ | {leaks.MARK: name},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = leaks.after("no-such-rack", name)
        assert found.startswith(f"process {process.pid} (")
        process.communicate("\n")
    assert leaks.after("no-such-rack", name) == []


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(900)
def test_a_short_soak_is_clean(kind: str, name: str, cli: Commands, tmp_path: Path) -> None:
    done = cli.run(
        "testbed", "soak", "--name", name, "--switch", kind, "--workers", "3", "--jobs", "2",
        "--minutes", "0.6", "--seed", "1", "--limit", "300", "--json", "soak.json", limit_s=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["clean"]
    assert sum(found["faults"].values()) >= 1
    assert found["totals"]["by_carrier"]["switch"] > 0
    assert found["totals"]["steps"] >= 2 * 2 * 60


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(400)
def test_an_interrupted_soak_leaves_nothing(name: str, cli: Commands) -> None:
    process = cli.start("testbed", "soak", "--name", name, "--workers", "2", "--jobs", "1")
    assert process.stdout is not None
    while "#1" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    time.sleep(1.0)  # within the first fault, or after it
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "NOT clean" in out
    assert err.splitlines()[-1] == "wiresum: ended by SIGINT"
    assert not cli.left_behind()
