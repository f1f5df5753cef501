"""Child processes: they end with what started them; their status, ready line and last words."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from support.pids import LIMIT_S, wait_gone
from wiresum.common.children import guard, process
from wiresum.common.children.child import Child, ChildError
from wiresum.common.children.process import ProcessOptions


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
        "from wiresum.common.children import guard, process\n"
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
        ["sh", "-c", script],
        supervised=True,
        options=ProcessOptions(stdin=subprocess.PIPE, stdout=subprocess.PIPE),
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
        options=ProcessOptions(stdout=subprocess.PIPE, limit_s=0.3),
    )
    assert child.stdout is not None
    with child.stdout:
        pids = read_pids(child.stdout, 1)
        ended = process.end_supervised(child) if supervised else process.end(child, limit_s=0.3)
        assert process.exit_status(ended) == 128 + signal.SIGKILL
    wait_gone(*pids)


@pytest.mark.parametrize("supervised", [False, True])
def test_a_command_that_is_not_there(supervised: bool) -> None:
    child = process.start(
        ["/nowhere/at-all"], supervised=supervised, options=ProcessOptions(stderr=subprocess.PIPE)
    )
    _, said = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 127
    assert said == b"wiresum: cannot run '/nowhere/at-all': No such file or directory\n"


def test_a_ready_line_is_read(tmp_path: Path) -> None:
    code = "import time; print('{\"a\": 1}', flush=True); time.sleep(1000)"
    child = Child("the part", python(code), tmp_path / "log", announces=True)
    assert child.ready(LIMIT_S) == {"a": 1}
    child.check()
    child.end()
    with pytest.raises(ChildError, match=r"^the part has ended \(status"):
        child.check()


def test_a_socket_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    code = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); time.sleep(0.3); "
        f"s.bind({str(path)!r}); s.listen(); time.sleep(1000)"
    )
    child = Child("the part", python(code), tmp_path / "log")
    child.serves(path, LIMIT_S)
    child.end()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; print('port 5 is in use', file=sys.stderr); sys.exit(1)",
            "the part did not start (status 1): port 5 is in use",
        ),
        ("import os; os.kill(os.getpid(), 9)", "the part did not start (status 137)"),
        (
            "import time; print('hello', flush=True); time.sleep(1000)",
            "the part said 'hello' instead of being ready",
        ),
        (
            "import time; time.sleep(1000)",
            "the part did not start within 0.5 s",
        ),
    ],
)
def test_a_part_that_does_not_start_says_why_in_one_line(
    code: str, message: str, tmp_path: Path
) -> None:
    limit = 0.5 if "within" in message else LIMIT_S
    before = set(guard.children())
    child = Child("the part", python(code), tmp_path / "log", announces=True)
    try:
        with pytest.raises(ChildError) as caught:
            child.ready(limit)
    finally:
        child.end()
    assert str(caught.value) == message
    assert set(guard.children()) <= before
