"""``wiresum testbed doctor``, and what a broken BMv2 says for itself wherever it is used."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = "error while loading shared libraries: libabc.so.1: cannot open shared object file"
PORT = "Thrift returned an exception when trying to bind to port 9090"
BROKEN = f'echo "simple_switch_grpc: {LIBRARY}" >&2\nexit 127'
TAKEN = f"""case "$*" in *--version*) echo 1.15.5; exit 0 ;; esac
echo "{PORT}" >&2
echo "The exception is: Could not bind: Transport endpoint is already connected" >&2
echo "You may have another process already using this port, maybe another instance of bmv2." >&2
exit 1"""


def put(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def wiresum(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wiresum.cli.main", *arguments],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_the_doctor_tells_what_is_missing_why_and_what_it_costs(tmp_path: Path) -> None:
    put(tmp_path, "simple_switch_grpc", BROKEN)
    put(tmp_path, "p4c-bm2-ss", "echo p4c-bm2-ss; echo Version 1.2.5.16")
    done = wiresum(tmp_path, "testbed", "doctor", "--json")
    assert done.returncode == 1
    found = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert not found["BMv2"]["there"]
    assert LIBRARY in found["BMv2"]["said"]
    assert "127" in found["BMv2"]["said"]
    assert "--switch bmv2" in found["BMv2"]["cost"]
    assert found["p4c"]["said"].startswith("Version 1.2.5.16, ")
    assert found["root"]["there"] == (os.geteuid() == 0)
    missing = [name for name, each in found.items() if not each["there"]]
    assert done.stderr.startswith(f"wiresum: missing here: {', '.join(missing)};")
    assert done.stderr.count("\n") == 1

    put(tmp_path, "simple_switch_grpc", TAKEN)
    done = wiresum(tmp_path, "testbed", "doctor")
    assert done.returncode == 1
    assert f"{PORT}: another program has it" in done.stdout
    assert "without it: no --switch bmv2" in done.stdout


def test_a_broken_bmv2_speaks_for_itself(tmp_path: Path) -> None:
    put(tmp_path, "simple_switch_grpc", BROKEN)
    commands = [("testbed", "conformance", "--fuzz")]
    if os.geteuid() == 0:
        # Before anything is measured: nothing is printed.
        commands.append(("bench", "switch", "--against", "bmv2"))
    for command in commands:
        done = wiresum(tmp_path, *command)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr.count("\n") == 1
        assert "Mininet" in done.stderr or (LIBRARY in done.stderr and "127" in done.stderr)

    put(tmp_path, "simple_switch_grpc", TAKEN)
    done = wiresum(tmp_path, "testbed", "conformance", "--fuzz", "--sequences", "1")
    assert done.returncode == 1
    assert f"{PORT}: another program has it" in done.stderr


@pytest.mark.bmv2
def test_the_doctor_starts_a_working_bmv2(tmp_path: Path) -> None:
    from wiresum.testbed import find_bmv2
    from wiresum.testbed.doctor import bmv2

    if find_bmv2.why_not() is not None:
        pytest.skip(f"{find_bmv2.BINARY} is not on PATH")
    there, said = bmv2()
    assert there, said
    assert "serves P4Runtime" in said
