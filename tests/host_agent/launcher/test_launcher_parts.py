"""The launcher's parts that need no switch: child processes, ready lines, commands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wiresum.host_agent.environment import AgentError, Environment, environment
from wiresum.host_agent.launcher import process
from wiresum.host_agent.launcher.embedded import EmbeddedError, Part
from wiresum.host_agent.launcher.run import LaunchError, resolve

LIMIT_S = 20.0


def gone(pid: int) -> bool:
    """Whether a process has ended (or is a zombie that its new parent has not collected)."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def wait_gone(*pids: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if not gone(pid)]
        time.sleep(0.05)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_the_exit_status_is_a_shells(script: str, status: int) -> None:
    child = process.start(["sh", "-c", script])
    assert process.exit_status(child.wait(LIMIT_S)) == status


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    # The parent starts a child the way the launcher does, and is then killed without warning.
    code = (
        "import sys, time\n"
        "from wiresum.host_agent.launcher import process\n"
        "print(process.start(['sleep', '1000']).pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # The guard has become the command once the command line says so.
        deadline = time.monotonic() + LIMIT_S
        while b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.kill()
    wait_gone(pid)


def test_end_kills_what_ignores_sigterm() -> None:
    child = process.start(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
        assert process.end(child, limit_s=0.3) == -signal.SIGKILL


def test_a_command_that_is_not_there() -> None:
    child = process.start(["/nowhere/at-all"], stderr=subprocess.PIPE)
    _, said = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 127
    assert said == b"wiresum: cannot run '/nowhere/at-all': No such file or directory\n"


def test_a_ready_line_is_read() -> None:
    part = Part("part", python("print('{\"a\": 1}', flush=True); input()"), LIMIT_S)
    assert part.ready == {"a": 1}
    part.end()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; print('port 5 is in use', file=sys.stderr); sys.exit(1)",
            "the embedded part did not start (status 1): port 5 is in use",
        ),
        ("import os; os.kill(os.getpid(), 9)", "the embedded part did not start (status 137)"),
        (
            "import time; print('hello', flush=True); time.sleep(1000)",
            "the embedded part said 'hello' instead of being ready",
        ),
        (
            "import time; time.sleep(1000)",
            "the embedded part did not start within 0.5 s",
        ),
    ],
)
def test_a_part_that_does_not_start_says_why_in_one_line(code: str, message: str) -> None:
    limit = 0.5 if "within" in message else LIMIT_S
    before = set(process._children())
    with pytest.raises(EmbeddedError) as caught:
        Part("part", python(code), limit)
    assert str(caught.value) == message
    assert set(process._children()) <= before


def test_torchrun_is_found_in_an_environment_that_is_not_activated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    module = [sys.executable, "-m", "torch.distributed.run"]
    assert resolve(["torchrun", "train.py"]) == [*module, "train.py"]
    with pytest.raises(LaunchError, match="command 'trainer' not found"):
        resolve(["trainer"])
    with pytest.raises(LaunchError, match="no command"):
        resolve([])


def test_the_environment_is_read_back_as_it_was_written() -> None:
    for made in (
        Environment("10.0.0.1:7500", "abc", "secret", 8, 12.5),
        Environment("10.0.0.1:7500", None, "", 32, None),
    ):
        assert environment(made.variables()) == made
    assert environment({}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIRESUM_FIELD", "7"),
        ("WIRESUM_FIELD", "x"),
        ("WIRESUM_TIMEOUT", "soon"),
        ("WIRESUM_TIMEOUT", "-1"),
        ("WIRESUM_TIMEOUT", "nan"),
    ],
)
def test_nonsense_in_the_environment_is_refused(name: str, value: str) -> None:
    with pytest.raises(AgentError, match=name):
        environment({"WIRESUM_CONTROLLER": "127.0.0.1:1", name: value})


def test_orphans_are_ended() -> None:
    process.adopt_orphans()
    child = process.start(["sh", "-c", "setsid sleep 1000 & echo $!"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        orphan = int(child.stdout.readline())
    assert child.wait(LIMIT_S) == 0
    others = [pid for pid in process._children() if pid not in (orphan, os.getpid())]
    assert process.end_orphans(keep=others) >= 1
    wait_gone(orphan)
