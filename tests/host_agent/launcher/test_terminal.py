"""``wiresum run`` at a terminal: its command may use it as if it had been started by the shell."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pids import wait_gone
from support.terminal import CTRL_C, CTRL_Z, PROMPT, Terminal
from wiresum.common.children.guard import children

LIMIT_S = 60.0

ASK = """
import os, sys
print("pid", os.getpid(), os.getppid(), flush=True)
while True:
    line = input("name? ")
    if line == "end":
        sys.exit(5)
    print("hello", line, flush=True)
"""

COUNT = """
import os, signal, sys
count = 0
def interrupted(*_):
    global count
    count += 1
    print("interrupt", count, flush=True)
signal.signal(signal.SIGINT, interrupted)
print("pid", os.getpid(), flush=True)
for line in sys.stdin:
    print("count", count, flush=True)
    if "end" in line:
        break
"""


@pytest.fixture
def terminal(env: dict[str, str], controller: str) -> Iterator[Terminal]:
    with Terminal(env | {"WIRESUM_CONTROLLER": controller}) as made:
        yield made


@pytest.fixture
def ask(tmp_path: Path) -> str:
    return wiresum_run(tmp_path, ASK)


@pytest.fixture
def count(tmp_path: Path) -> str:
    return wiresum_run(tmp_path, COUNT)


def wiresum_run(folder: Path, script: str) -> str:
    (folder / "script.py").write_text(script)
    run = [sys.executable, "-P", "-m", "wiresum.cli.main", "run", "--"]
    return shlex.join([*run, sys.executable, str(folder / "script.py")])


def started(terminal: Terminal) -> tuple[int, int]:
    """The pids of the command and of its launcher."""
    terminal.wait_for("pid ")
    command = int(terminal.wait_for("\n").split()[0])
    (launcher,) = children(terminal.shell)
    return command, launcher


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_state(pid: int, wanted: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while state(pid) not in wanted:
        assert time.monotonic() < deadline, (pid, state(pid))
        time.sleep(0.05)


def test_a_command_reads_from_the_terminal_and_the_shell_gets_it_back(
    terminal: Terminal, ask: str
) -> None:
    terminal.line(ask)
    command, _ = started(terminal)
    terminal.wait_for("name? ")
    assert terminal.foreground == os.getpgid(command)
    terminal.line("ada")
    terminal.wait_for("hello ada")
    terminal.line("end")
    terminal.wait_for(PROMPT)
    assert terminal.foreground == terminal.shell
    terminal.line("echo status $?")
    terminal.wait_for("status 5")


def test_ctrl_c_reaches_the_command_once(terminal: Terminal, count: str) -> None:
    terminal.line(count)
    started(terminal)
    for number in (1, 2):
        terminal.keys(CTRL_C)
        terminal.wait_for(f"interrupt {number}")
        time.sleep(0.5)  # a second one would come late
        terminal.line("how many")
        terminal.wait_for(f"count {number}")
    terminal.line("end")
    terminal.wait_for(PROMPT)


def test_ctrl_c_ends_a_command_that_does_not_handle_it(terminal: Terminal, ask: str) -> None:
    terminal.line(ask)
    started(terminal)
    terminal.wait_for("name? ")
    terminal.interrupt("KeyboardInterrupt")
    terminal.wait_for(PROMPT)
    terminal.line("echo status $?")
    terminal.wait_for("status 130")


def test_ctrl_z_stops_launcher_and_command_and_fg_continues_both(
    terminal: Terminal, ask: str
) -> None:
    terminal.line(ask)
    command, launcher = started(terminal)
    terminal.wait_for("name? ")
    for _ in range(2):
        terminal.keys(CTRL_Z)
        terminal.wait_for(PROMPT)
        wait_state(launcher, "T")
        wait_state(command, "T")
        assert terminal.foreground == terminal.shell
        terminal.line("fg")
        wait_state(launcher, "SR")
        wait_state(command, "SR")
        terminal.line("ada")
        terminal.wait_for("hello ada")
    terminal.line("end")
    terminal.wait_for(PROMPT)


def test_a_launcher_that_is_stopped_and_continued_by_its_pid_takes_the_command_along(
    terminal: Terminal, tmp_path: Path
) -> None:
    script = "import os, time; print('pid', os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
    terminal.line(wiresum_run(tmp_path, script))
    command, launcher = started(terminal)
    for _ in range(2):
        os.kill(launcher, signal.SIGTSTP)
        wait_state(launcher, "T")
        wait_state(command, "T")
        os.kill(launcher, signal.SIGCONT)
        wait_state(launcher, "SR")
        wait_state(command, "SR")


def test_a_run_in_the_background_stops_when_it_wants_to_read_and_fg_lets_it(
    terminal: Terminal, ask: str
) -> None:
    terminal.line(f"{ask} &")
    command, launcher = started(terminal)
    wait_state(command, "T")
    wait_state(launcher, "T")
    # The shell hears of the stop a moment after it.
    terminal.line("echo still; until jobs -s | grep -q .; do sleep 0.1; done; jobs")
    terminal.wait_for("still")
    terminal.wait_for("Stopped")
    terminal.line("fg")
    wait_state(launcher, "SR")
    terminal.line("ada")
    terminal.wait_for("hello ada")
    terminal.line("end")
    terminal.wait_for(PROMPT)


def test_a_run_in_a_pipeline_reads_and_its_neighbours_may(terminal: Terminal, ask: str) -> None:
    reader = shlex.join([sys.executable, "-c", "print('neighbour', open('/dev/tty').readline())"])
    terminal.line(f"{ask} | tee /dev/null")
    started_in_a_pipeline = terminal.wait_for("pid ")
    assert "Traceback" not in started_in_a_pipeline
    terminal.line("ada")
    terminal.wait_for("hello ada")
    terminal.line("end")
    terminal.wait_for(PROMPT)
    terminal.line(f"{ask} </dev/null | {reader}")
    time.sleep(0.5)
    terminal.line("keys")
    terminal.wait_for("neighbour keys")
    terminal.wait_for(PROMPT)


def test_a_launcher_that_is_killed_leaves_the_terminal_to_the_shell(
    terminal: Terminal, ask: str
) -> None:
    terminal.line(ask)
    command, launcher = started(terminal)
    terminal.wait_for("name? ")
    os.kill(launcher, signal.SIGKILL)
    terminal.wait_for(PROMPT)
    assert terminal.foreground == terminal.shell
    wait_gone(command)
    terminal.line("echo still $((40 + 2))")
    terminal.wait_for("still 42")


def test_a_launcher_that_is_killed_while_stopped_leaves_nothing(
    terminal: Terminal, ask: str
) -> None:
    terminal.line(ask)
    command, launcher = started(terminal)
    terminal.wait_for("name? ")
    terminal.keys(CTRL_Z)
    terminal.wait_for(PROMPT)
    wait_state(command, "T")
    os.kill(launcher, signal.SIGKILL)
    wait_gone(command, launcher)


def test_a_window_that_is_closed_ends_the_run(terminal: Terminal, ask: str) -> None:
    terminal.line(ask)
    command, launcher = started(terminal)
    terminal.wait_for("name? ")
    terminal.hang_up()
    wait_gone(command, launcher)


def test_without_a_shell_the_first_process_of_a_terminal_can_read(
    terminal: Terminal, ask: str
) -> None:
    terminal.line(f"exec {ask}")
    terminal.wait_for("name? ")
    terminal.line("ada")
    terminal.wait_for("hello ada")
    terminal.keys(CTRL_Z)  # nobody could continue it: the kernel does not stop it
    terminal.line("bob")
    terminal.wait_for("hello bob")
    terminal.interrupt("KeyboardInterrupt")
