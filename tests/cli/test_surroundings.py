"""Commands in odd surroundings: no home, a home that is a file, modules of a project's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.torchruns import clean_environment

LIMIT_S = 170.0
pytestmark = pytest.mark.timeout(400)
PACKAGES = (
    "cli", "common", "controller", "host_agent", "measure", "p4", "softswitch", "testbed",
)  # fmt: skip
WIRESUM = [sys.executable, "-P", "-m", "wiresum.cli.main"]
NOBODY = [
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip
"""A container's user: unknown to the user database, but able to read this installation."""

COMMANDS = {
    "switch list": "cannot be reached",
    "tenant list": "cannot be reached",
    "top --once": "cannot be reached",
    "run --carrier switch --controller 127.0.0.1:1 -- true": "cannot be reached",
    "run --controller 127.0.0.1:1 --ca ~/ca.pem -- true": "",
    "run --controller 127.0.0.1:1 --token-file ~/token -- true": "",
    "controller serve --listen 127.0.0.1:0": "",
    "controller serve --listen 127.0.0.1:0 --store ~/store": "",
    "controller serve --listen 127.0.0.1:0 --store :memory: --tls-dir ~/tls": "",
    "controller certificate me": "",
    "controller certificate me --tls-dir ~/x": "",
}


def environment(**more: str) -> dict[str, str]:
    env = clean_environment() | more | {"WIRESUM_CONTROLLER": "127.0.0.1:1"}
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        if name not in more:
            env.pop(name, None)
    return env


def fails_in_one_line(command: list[str], env: dict[str, str], folder: Path | str) -> str:
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode not in (0, -9), done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("wiresum: "), line
    return line


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_without_a_home_gets_one_line(command: str) -> None:
    line = fails_in_one_line([*NOBODY, *WIRESUM, *command.split()], environment(), "/")
    assert COMMANDS[command] in line
    if "~" in command:
        assert "there is no home folder to put for ~" in line
    elif "serve" in command or "certificate" in command:
        assert "set HOME or XDG_STATE_HOME" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_home_that_is_a_file_gives_one_line(command: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    line = fails_in_one_line([*WIRESUM, *command.split()], environment(HOME=str(home)), tmp_path)
    assert COMMANDS[command] in line


@pytest.mark.parametrize("command", ["switch list", "controller serve --listen 127.0.0.1:0"])
def test_a_home_that_the_system_refuses_to_look_at_gives_one_line(command: str) -> None:
    fails_in_one_line([*WIRESUM, *command.split()], environment(HOME=f"/{'x' * 300}"), "/")


def test_a_working_directory_that_is_gone_gives_one_line(tmp_path: Path) -> None:
    script = f'mkdir {tmp_path}/x; cd {tmp_path}/x; rmdir {tmp_path}/x; exec "$@"'
    command = [*WIRESUM, "run", "--controller", "127.0.0.1:1", "--ca", "ca.pem", "--", "true"]
    env = environment(HOME=str(tmp_path))
    assert "system refuses" in fails_in_one_line(
        ["sh", "-c", script, "sh", *command], env, tmp_path
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_gives_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*WIRESUM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


SHADOWS = ("queue", "logging", "typing", "json", "wiresum", "signal", "secrets", "torch")


def test_a_projects_own_modules_do_not_affect_started_processes(tmp_path: Path) -> None:
    """The user's command still finds them, as without wiresum."""
    for name in SHADOWS[::2]:
        (tmp_path / f"{name}.py").write_text(
            f"raise SystemExit('the project has a {name} of its own')"
        )
    for name in SHADOWS[1::2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('its own {name}')")
    (tmp_path / "mine.py").write_text("")
    code = (
        "import os, sys, mine\n"
        "names = sorted(name for name in os.environ if name.startswith('PYTHON'))\n"
        "print('found', sys.path[0] == '', names, os.environ.get('PYTHONPATH'))"
    )
    env = environment(HOME=str(tmp_path), PYTHONPATH="/a/path:/another")
    del env["WIRESUM_CONTROLLER"]
    env = {
        name: value
        for name, value in env.items()
        if name == "PYTHONPATH" or not name.startswith("PYTHON")
    }
    done = subprocess.run(
        [*WIRESUM, "run", "--", sys.executable, "-c", code],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "found True ['PYTHONPATH'] /a/path:/another\n"


def test_every_module_that_is_started_is_started_safely() -> None:
    root = Path(__file__).parents[2]
    started = [
        f"{path.relative_to(root)}: {line.strip()}"
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if '"-m"' in line and "PYTHONSAFEPATH" not in line
    ]
    # process.module adds -P; rendezvous.py reads a user's command; the others are arguments of
    # torchrun, in whose environment PYTHONSAFEPATH is.
    assert sorted({line.partition(":")[0] for line in started}) == [
        "common/children/process.py", "host_agent/launcher/rendezvous.py", "measure/demo/main.py",
        "measure/demo/rack_train.py", "measure/soak/jobs.py",
    ]  # fmt: skip
