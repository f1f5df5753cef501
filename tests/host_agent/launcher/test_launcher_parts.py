"""The launcher's parts that need no switch: child processes, ready lines, commands."""

import dataclasses
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import IO

import pytest
import torch.distributed as dist

from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.environment import LONGEST_S, AgentError, Environment, environment
from wiresum.host_agent.launcher import guard, process
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


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_the_exit_status_is_a_shells(script: str, status: int, supervised: bool) -> None:
    child = process.start(["sh", "-c", script], supervised=supervised)
    assert process.exit_status(child.wait(LIMIT_S)) == status


TREE = "sleep 1000 & echo $!; setsid sh -c 'echo $$; sleep 1000' & wait"


def read_pids(stream: IO[bytes] | IO[str] | None, count: int) -> list[int]:
    assert stream is not None
    return [int(stream.readline()) for _ in range(count)]


def test_everything_dies_with_the_launcher() -> None:
    # The parent starts a tree of processes the way the launcher does, and is killed.
    code = (
        "import sys, time\n"
        "from wiresum.host_agent.launcher import guard, process\n"
        "guard = process.start(['sh', '-c', sys.argv[1]], supervised=True)\n"
        "part = process.start(['sh', '-c', 'echo $$; exec sleep 1000'], supervised=False)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([*python(code), TREE], stdout=subprocess.PIPE, text=True) as parent:
        pids = read_pids(parent.stdout, 3)
        parent.kill()
    wait_gone(*pids)


@pytest.mark.parametrize("how", ["ends", "is told to end", "is killed by a signal"])
def test_what_a_command_leaves_behind_is_ended(how: str) -> None:
    script = TREE.replace("wait", "read line; exit 3") if how == "ends" else TREE
    child = process.start(
        ["sh", "-c", script], supervised=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdout, child.stdin:
        pids = read_pids(child.stdout, 2)
        if how == "is told to end":
            assert process.end_supervised(child) == 128 + signal.SIGTERM
        elif how == "is killed by a signal":
            process.pass_on(child, signal.SIGINT)
            assert child.wait(LIMIT_S) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        else:
            child.stdin.close()
            assert child.wait(LIMIT_S) == 3
    wait_gone(*pids)


@pytest.mark.parametrize("supervised", [False, True])
def test_what_ignores_sigterm_is_killed(supervised: bool) -> None:
    child = process.start(
        ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done"],
        supervised=supervised,
        stdout=subprocess.PIPE,
        limit_s=0.3,
    )
    assert child.stdout is not None
    with child.stdout:
        pids = read_pids(child.stdout, 1)
        ended = process.end_supervised(child) if supervised else process.end(child, limit_s=0.3)
        assert process.exit_status(ended) == 128 + signal.SIGKILL
    wait_gone(*pids)


@pytest.mark.parametrize("supervised", [False, True])
def test_a_command_that_is_not_there(supervised: bool) -> None:
    child = process.start(["/nowhere/at-all"], supervised=supervised, stderr=subprocess.PIPE)
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
    before = set(guard.children())
    with pytest.raises(EmbeddedError) as caught:
        Part("part", python(code), limit)
    assert str(caught.value) == message
    assert set(guard.children()) <= before


def test_torchrun_is_found_in_an_environment_that_is_not_activated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    module = [sys.executable, "-P", "-m", "torch.distributed.run"]
    assert resolve(["torchrun", "train.py"]) == [*module, "train.py"]
    with pytest.raises(LaunchError, match="command 'trainer' not found"):
        resolve(["trainer"])
    with pytest.raises(LaunchError, match="no command"):
        resolve([])


def test_the_environment_is_read_back_as_it_was_written() -> None:
    for made in (
        Environment("10.0.0.1:7500", "abc", "secret", 8, 12.5),
        Environment("10.0.0.1:7500", None, "", 32, None),
        Environment("http://10.0.0.1:7500", "a", "b", 32, None, ca="c.pem", cert="d", key="e"),
    ):
        assert environment(made.variables()) == made
    made = Environment("h:1", "a", "b", 32, None, tenant_token="secret")
    assert "secret" not in [*made.variables().values(), repr(made)]
    assert environment({}) is None


@pytest.mark.parametrize("value", ["1000001", "1e7", "1e18", "1e300", "inf"])
def test_time_limits_of_any_length_are_taken(value: str) -> None:
    """As torch and gloo take them: up to timedelta.max, and what means "never"."""
    made = environment(
        {
            "WIRESUM_CONTROLLER": "127.0.0.1:1",
            "WIRESUM_TIMEOUT": value,
            "WIRESUM_QUEUE_TIMEOUT": value,
        }
    )
    assert made is not None
    wanted = min(float(value), LONGEST_S)
    assert made.timeout_s == made.request.queue_timeout_s == wanted
    again = environment(made.variables())
    assert again is not None
    assert again.timeout_s == pytest.approx(wanted, rel=1e-5)
    for limit in (timedelta.max, timedelta(seconds=60)):
        worker = Worker(made, dist.HashStore(), 0, 1, limit, "0")
        unset = Worker(
            dataclasses.replace(made, timeout_s=None), dist.HashStore(), 0, 1, limit, "0"
        )
        for seconds in (worker.join_s, worker.collective_s, unset.join_s, unset.collective_s):
            assert 0 < seconds <= LONGEST_S
            timedelta(seconds=seconds)
        assert worker.collective_s == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIRESUM_FIELD", "7"),
        ("WIRESUM_FIELD", "x"),
        ("WIRESUM_TIMEOUT", "soon"),
        ("WIRESUM_TIMEOUT", "-1"),
        ("WIRESUM_TIMEOUT", "nan"),
        ("WIRESUM_SLOTS", "many"),
        ("WIRESUM_MIN_SLOTS", "-1"),
        ("WIRESUM_IF_FULL", "cry"),
        ("WIRESUM_QUEUE_TIMEOUT", "0"),
    ],
)
def test_nonsense_in_the_environment_is_refused(name: str, value: str) -> None:
    with pytest.raises(AgentError, match=name):
        environment({"WIRESUM_CONTROLLER": "127.0.0.1:1", name: value})
