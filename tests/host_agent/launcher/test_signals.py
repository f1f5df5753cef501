"""What a launcher does on every signal, walked along the table with real processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pids import wait_gone
from wiresum.common.children.guard import children
from wiresum.common.signals import TABLE, UNCATCHABLE, Kind, Rule, name_of

LIMIT_S = 60.0
WIRESUM = [sys.executable, "-P", "-m", "wiresum.cli.main"]

# Says which signals it gets; ends at SIGTERM with 42 and says how often it got each.
COUNTER = """
import collections, json, os, signal, sys, time
counts = collections.Counter()
def got(number, frame):
    counts[number] += 1
    os.write(1, b"got %d\\n" % number)
mine = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
for number in mine:
    if signal.getsignal(number) is not None:
        signal.signal(number, got)
# A handler that runs just before a call of pause() would not end it: the pipe forgets no signal.
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
print("ready", os.getpid(), flush=True)
while not counts[signal.SIGTERM]:
    os.read(woken, 1)
time.sleep(0.3)  # a second one would come late
print(json.dumps(counts), flush=True)
sys.exit(42)
"""


class Run:
    """A launcher whose command counts signals."""

    def __init__(self, controller: str, env: dict[str, str]) -> None:
        command = [*WIRESUM, "run", "--controller", controller, "--", sys.executable, "-c", COUNTER]
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        self._lines = self.process.stdout
        self.command = int(self._lines.readline().split()[1])

    def expect(self, number: int) -> None:
        line = self._lines.readline()
        while line == f"got {signal.SIGCONT:d}\n" and number != signal.SIGCONT:
            line = self._lines.readline()  # it may come twice, which tells a command nothing new
        assert line == f"got {number}\n"

    def counts(self) -> dict[str, int]:
        """End it; how often the command got each signal."""
        self.process.send_signal(signal.SIGTERM)
        return self.last_words()

    def last_words(self) -> dict[str, int]:
        """What it says once SIGTERM has come."""
        line = self._lines.readline()
        while line.startswith("got "):
            line = self._lines.readline()
        assert self.process.wait(LIMIT_S) == 42
        return {name: count for name, count in json.loads(line).items() if count}


@pytest.fixture
def run(controller: str, env: dict[str, str]) -> Iterator[Run]:
    made = Run(controller, env)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(LIMIT_S)
        wait_gone(made.command)


def test_every_signal_that_can_be_caught_is_in_the_table() -> None:
    assert set(TABLE) == {int(n) for n in signal.valid_signals()} - UNCATCHABLE
    for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "XCPU", "PROF", "VTALRM"):
        assert TABLE[getattr(signal, f"SIG{name}")].passed_on
        assert TABLE[getattr(signal, f"SIG{name}")].ends_launcher
    assert name_of(signal.SIGUSR1) == "SIGUSR1"
    assert name_of(signal.SIGRTMIN + 3) == "SIGRTMIN+3"


def passed_on() -> list[Rule]:
    return [rule for rule in TABLE.values() if rule.passed_on and rule.number != signal.SIGTERM]


def test_every_signal_to_the_launcher_reaches_the_command_once(run: Run) -> None:
    for rule in passed_on():
        run.process.send_signal(rule.number)
        run.expect(rule.number)
    for number in (signal.SIGCHLD,):  # its own business
        run.process.send_signal(number)
    counts = run.counts()
    assert counts == {str(rule.number): 1 for rule in TABLE.values() if rule.passed_on}


def test_every_signal_to_the_whole_group_reaches_the_command_once(run: Run) -> None:
    for rule in passed_on():
        os.killpg(run.process.pid, rule.number)
        run.expect(rule.number)
    time.sleep(0.5)  # a second one would come late
    os.killpg(run.process.pid, signal.SIGTERM)
    counts = run.last_words()
    # A stop takes back a SIGCONT that has not been looked at yet: then it may come twice.
    assert counts.pop(str(int(signal.SIGCONT))) in (1, 2)
    assert counts == {
        str(rule.number): 1
        for rule in TABLE.values()
        if rule.passed_on and rule.number != signal.SIGCONT
    }


def test_what_a_scheduler_sends_to_every_process_of_a_job_ends_none_but_the_command(
    run: Run,
) -> None:
    (guard,) = children(run.process.pid)
    everybody = [run.process.pid, guard, *children(guard)]
    assert run.command in everybody
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU):
        for pid in everybody:
            os.kill(pid, number)
        run.expect(number)
    time.sleep(0.5)
    counts = run.counts()
    assert set(counts) == {
        str(int(n))
        for n in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU, signal.SIGTERM)
    }


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGQUIT, signal.SIGALRM, signal.SIGRTMIN]
)
def test_a_command_that_does_not_handle_a_signal_ends_with_128_and_its_number(
    controller: str, env: dict[str, str], number: int
) -> None:
    command = [*WIRESUM, "run", "--controller", controller, "--", "sleep", "1000"]
    with subprocess.Popen(command, env=env, start_new_session=True) as launcher:
        deadline = time.monotonic() + LIMIT_S
        while not any(b"sleep" in cmdline(pid)[:6] for pid in below(launcher.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        launcher.send_signal(number)
        assert launcher.wait(LIMIT_S) == 128 + number


def below(pid: int) -> list[int]:
    found = children(pid)
    for each in found:
        found += children(each)
    return found


def cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


ENDING = [n for n, rule in TABLE.items() if rule.ends_launcher]


@pytest.mark.slow
def test_every_signal_that_wants_an_end_ends_a_launcher_that_waits_in_the_queue(
    controller: str, env: dict[str, str]
) -> None:
    full = [*WIRESUM, "run", "--controller", controller, "--slots", "4096", "--min-slots", "4096"]
    command = [*full, "--if-full", "wait", "--", "echo", "ran"]
    waiting: list[tuple[int, subprocess.Popen[str]]] = []
    # The real-time signals are alike; a few launchers at a time, for small machines.
    numbers = [n for n in ENDING if n <= signal.SIGRTMIN]
    for start in range(0, len(numbers), 4):
        for number in numbers[start : start + 4]:
            process = subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
            waiting.append((number, process))
        for number, process in waiting[start:]:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "waiting for room" in line, line
            process.send_signal(number)
            out, err = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 128 + number, err
            assert out == ""
            (line,) = [line for line in err.splitlines() if "waiting for room" not in line]
            assert line == f"wiresum: interrupted by {name_of(number)}"


def test_a_signal_while_the_switch_is_started_ends_the_run_and_leaves_nothing(
    env: dict[str, str], temporary: Path
) -> None:
    env = env | {"TMPDIR": str(temporary)}
    command = [*WIRESUM, "run", "--", "echo", "ran"]
    for number in (signal.SIGUSR1, signal.SIGTERM):
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as launcher:
            deadline = time.monotonic() + LIMIT_S
            while not children(launcher.pid):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            parts = children(launcher.pid)
            launcher.send_signal(number)
            out, err = launcher.communicate(timeout=LIMIT_S)
        assert (launcher.returncode, out) == (128 + number, "")
        assert err == f"wiresum: interrupted by {name_of(number)}\n"
        wait_gone(*parts)
        assert list(temporary.iterdir()) == []


MASKS = "import re; print(re.findall('Sig(?:Ign|Blk):.*', open('/proc/self/status').read()))"


def test_the_command_begins_with_the_signals_that_the_launcher_began_with(
    controller: str, env: dict[str, str]
) -> None:
    plain = ["sh", "-c", 'trap "" HUP USR1 INT QUIT ALRM; exec "$@"', "sh"]
    blocking = [
        sys.executable, "-c",
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM, 40})\n"
        "os.execvp(sys.argv[1], sys.argv[1:])",
    ]  # fmt: skip
    show = [sys.executable, "-c", MASKS]
    run = [*WIRESUM, "run", "--controller", controller, "--"]
    for before in ([], plain, blocking):
        said = [
            subprocess.run([*before, *command], env=env, stdout=subprocess.PIPE, check=True).stdout
            for command in (show, [*run, *show])
        ]
        assert said[0] == said[1]


def test_a_hangup_that_is_ignored_ends_neither_launcher_nor_command(
    controller: str, env: dict[str, str]
) -> None:
    script = "trap '' HUP; exec \"$@\""
    command = [*WIRESUM, "run", "--controller", controller, "--", "sh", "-c", "echo up; read x"]
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *command], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as launcher:  # fmt: skip
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "up\n"
        os.killpg(launcher.pid, signal.SIGHUP)
        launcher.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            launcher.wait(1.0)
        launcher.communicate("go on\n", timeout=LIMIT_S)
        assert launcher.returncode == 0


def test_stopping_and_going_on_reach_the_command_through_the_launcher(run: Run) -> None:
    # Of a kind that a launcher stops for, too, where somebody could continue it: see test_terminal.
    rules = [rule for rule in TABLE.values() if rule.kind is Kind.STOP]
    assert [rule.number for rule in rules] == [signal.SIGTSTP]
    run.process.send_signal(signal.SIGTSTP)
    run.expect(signal.SIGTSTP)
    run.process.send_signal(signal.SIGCONT)
    run.expect(signal.SIGCONT)
    assert run.counts()[str(int(signal.SIGCONT))] == 1
