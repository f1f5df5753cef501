"""Runs a command that must not outlive the launcher.

``guard.py CONTROL GROUP MASK LIMIT COMMAND…`` is a script of its own, run with ``python -I -S``. It
starts the command, passes signals on to it, and adopts whatever it leaves behind. When the command
has ended, or the launcher (however it ended), it ends everything below it: SIGTERM, and after LIMIT
seconds SIGKILL. Its exit status is the command's, 128 + signal if a signal ended it.

CONTROL is the descriptor of a socket. A byte n from the launcher says "signal n came to me"; the
socket's end says "end the command". The guard itself blocks all signals: schedulers may send any
signal to every process of a job. MASK is the signals that the command shall have blocked at its
start, as numbers with commas between.

GROUP 0 puts the command in a process group of its own. Else it becomes a member of that group, the
launcher's: then a terminal treats both as one job, so that the command may read from it, and Ctrl-C
and Ctrl-Z reach both. What a terminal, a shell or a scheduler sends to the whole group must not
reach the command twice: see :class:`Witness`.

``guard.py --exec PARENT COMMAND…`` becomes the command, which then gets SIGTERM if the launcher
dies: for commands that start no processes of their own.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.05
_SETTLE_S = 0.05  # a scheduler that signals one process after the other takes a while
_LATE_S = 5.0  # how long the launcher may take to say what has reached the whole group
_ANSWER_S = 1.0
_AT_ONCE = frozenset({signal.SIGTSTP, signal.SIGCONT})  # in the order in which they came
_STEP_S = 1.0  # what counts of a turn that takes longer: this process stood still
_ALL = signal.valid_signals()


def main(arguments: list[str]) -> int:
    """Run the command; the exit status."""
    if arguments[0] == "--exec":
        parent, *command = arguments[1:]
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before the call above
            return 128 + signal.SIGTERM
        _undo_python()
        return _exec(command)
    control, group, mask, limit, *command = arguments
    os.set_inheritable(int(control), False)
    blocked = {int(number) for number in mask.split(",") if number}
    return Guard(int(control), int(group), command).run(blocked, float(limit))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def _undo_python() -> None:
    """Undo what Python changes about signals at its start, except what ``exec`` undoes."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that comes now must not be lost


def _exec(command: list[str]) -> int:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"wiresum: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _fork_into(group: int) -> int:
    """Fork; the child is in process group ``group``, or in one of its own (0, or it is gone)."""
    child = os.fork()  # this process has one thread
    # Both do it: whoever comes first.
    try:
        os.setpgid(child, group or child)
    except OSError:
        if child == 0:
            os.setpgid(0, 0)
    return child


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 (no scandir left open)


class Witness:
    """A process in the launcher's group that only receives the signals that the whole group gets.

    It blocks them, so that they stay pending until the guard asks, however busy the machine is. A
    signal that came to the launcher and to the witness came to the command, too.
    """

    def __init__(self, group: int) -> None:
        asked, self._ask = os.pipe()
        self._answer, said = os.pipe()
        self.pid = _fork_into(group)
        if self.pid == 0:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for descriptor in _descriptors() - {asked, said}:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            self._serve(asked, said)
        os.close(asked)
        os.close(said)

    @staticmethod
    def _serve(asked: int, said: int) -> None:
        with contextlib.suppress(OSError):
            while os.read(asked, 1):
                seen = set()
                while (found := signal.sigtimedwait(_ALL, 0)) is not None:
                    seen.add(found.si_signo)
                os.write(said, bytes([*seen, 0]))
        os._exit(0)

    def seen(self) -> bytes:
        """The signals that it has got since it was asked last; empty if it does not answer."""
        try:
            os.write(self._ask, b"?")
            found = b""
            while not found.endswith(b"\0"):
                if not select.select([self._answer], [], [], _ANSWER_S)[0]:
                    break
                data = os.read(self._answer, 256)
                if not data:
                    break
                found += data
        except OSError:
            return b""
        return found.rstrip(b"\0")

    def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Guard:
    """One command and what it takes to run it."""

    def __init__(self, control: int, group: int, command: list[str]) -> None:
        self._control = control
        self._group = group
        self._command = command
        self._child = 0
        self._witness: Witness | None = None
        self._told: dict[int, float] = {}  # when to settle what the launcher has said
        self._seen: dict[int, float] = {}  # by the witness, and not yet by the launcher
        self._settled: dict[int, float] = {}  # what both saw, and when that was settled

    def run(self, mask: set[int], limit_s: float) -> int:
        """Run it to its end; it starts with the signals in ``mask`` blocked."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)  # as they are already, since the start
        if self._group:
            self._witness = Witness(self._group)
        self._child = _fork_into(self._group)
        if self._child == 0:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            _undo_python()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os._exit(_exec(self._command))
        if self._group:
            # Out of reach of what the group gets; and a parent in the same session would make the
            # kernel believe that somebody is there who continues a group that Ctrl-Z stops.
            os.setsid()
        status = self._wait()
        if self._witness is not None:
            self._witness.end()
        ended = end_children(limit_s)
        return ended.get(self._child, 128 + signal.SIGTERM) if status is None else status

    def _wait(self) -> int | None:
        """Until the command has ended: its status; or until the launcher has: None."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            status = reap().get(self._child)
            if status is not None:
                return status
            wait_s = min((due - time.monotonic() for due in self._told.values()), default=None)
            found = poll.poll(None if wait_s is None else max(0.0, wait_s) * 1e3)
            ready = {descriptor for descriptor, _ in found}
            if woken in ready:
                os.read(woken, 256)
            if self._control in ready:
                orders = self._orders()
                if not orders:
                    return None
                now = time.monotonic()
                for number in orders:
                    self._told.setdefault(number, now + (number not in _AT_ONCE) * _SETTLE_S)
            self._settle()

    def _orders(self) -> bytes:
        try:
            return os.read(self._control, 256)
        except OSError:
            return b""

    def _settle(self) -> None:
        """Pass on what came to the launcher alone, once it has waited long enough."""
        now = time.monotonic()
        due = [number for number, when in self._told.items() if when <= now]
        if not due:
            return
        if self._witness is not None:
            self._seen |= dict.fromkeys(self._witness.seen(), now)
        for number in due:
            del self._told[number]
            if now - self._seen.pop(number, -_LATE_S) < _LATE_S:
                self._settled[number] = now
            elif now - self._settled.get(number, -_SETTLE_S) >= _SETTLE_S:
                self._pass_on(number)
        if signal.SIGTSTP in due:  # before the launcher stops, too
            with contextlib.suppress(OSError):
                os.write(self._control, bytes([signal.SIGTSTP]))

    def _pass_on(self, number: int) -> None:
        if not self._group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, number)
            return
        groups = {self._group, _group_of(self._child)}
        below = [pid for pid in descendants() if _group_of(pid) in groups]
        for pid in dict.fromkeys([self._child, *below]):
            if self._witness is None or pid != self._witness.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def _as_shell(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def reap() -> dict[int, int]:
    """Collect the children of this process that have ended: pid to exit status."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended[found[0]] = _as_shell(found[1])
    return ended


def end_children(limit_s: float) -> dict[int, int]:
    """End all children of this process, and those it adopts meanwhile: pid to exit status."""
    left, last = limit_s, time.monotonic()
    told: set[int] = set()
    ended: dict[int, int] = {}
    while True:
        ended |= reap()
        living = children()
        if not living:
            return ended
        now = time.monotonic()
        left -= min(now - last, _STEP_S)  # the children may have stood still, too
        last = now
        kill = left < 0
        for pid in living:
            if kill or pid not in told:
                told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
                    os.kill(pid, signal.SIGCONT)  # a stopped child would not get the signal
        time.sleep(_LOOK_S)


def children(pid: int | str = "self") -> list[int]:
    """The pids of a process's children, of this one's by default."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def descendants() -> list[int]:
    """The pids of all processes below this one."""
    found = children()
    for pid in found:  # grows meanwhile
        found += children(pid)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
