"""What every long-running command does on every signal, in one table.

Two kinds of process use it. A *launcher* (``wiresum run``, ``demo``) has a command running below it
and passes signals on to it; while it has none, signals that ask for an end are its own. A *server*
(``controller serve``, ``switch serve``, ``testbed up``, the benchmarks) has itself only.

A signal that was ignored when the process began (``nohup``, ``&`` in a script) stays ignored, as
without wiresum.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The meaning of a signal."""

    END = "end"
    """The process is asked to end. Launcher: to the command; without one, end with 128 + n. Server:
    end in order."""
    NOTICE = "notice"
    """Something that the receiver may have agreed with its sender, such as a scheduler that says
    that time is nearly up. Launcher: as END. Server: nothing."""
    LIMIT = "limit"
    """A timer or a limit of the kernel's, which ends a process that does not handle it. Launcher
    and server: as END."""
    STOP = "stop"
    """Launcher: to the command, and then it stops itself. Server: the kernel's way."""
    NEWS = "news"
    """It ends no process. Launcher: to the command; without one, nothing. Server: nothing."""
    OWN = "own"
    """It tells a process of its own children, sockets, files, or faults: the kernel's (and
    Python's) way, in launcher and server."""


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    number: int
    kind: Kind

    @property
    def passed_on(self) -> bool:
        """Whether a launcher passes it on to its command."""
        return self.kind is not Kind.OWN

    @property
    def ends_launcher(self) -> bool:
        """Whether it ends a launcher that has no command (any more, or yet)."""
        return self.kind in (Kind.END, Kind.NOTICE, Kind.LIMIT)

    @property
    def ends_server(self) -> bool:
        """Whether it ends a server in order."""
        return self.kind in (Kind.END, Kind.LIMIT)


_KINDS = {
    Kind.END: "SIGHUP SIGINT SIGQUIT SIGTERM SIGPWR",
    Kind.NOTICE: "SIGUSR1 SIGUSR2 SIGIO SIGSTKFLT",  # and the real-time signals
    Kind.LIMIT: "SIGALRM SIGVTALRM SIGPROF SIGXCPU",
    Kind.STOP: "SIGTSTP",
    Kind.NEWS: "SIGCONT SIGWINCH SIGURG",
    Kind.OWN: "SIGABRT SIGBUS SIGCHLD SIGFPE SIGILL SIGPIPE SIGSEGV SIGSYS SIGTRAP SIGTTIN SIGTTOU "
    "SIGXFSZ",
}

UNCATCHABLE = frozenset({signal.SIGKILL, signal.SIGSTOP})


def _table() -> dict[int, Rule]:
    named = {
        int(getattr(signal, name)): kind
        for kind, names in _KINDS.items()
        for name in names.split()
        if hasattr(signal, name)
    }
    catchable = {int(number) for number in signal.valid_signals()} - UNCATCHABLE
    return {n: Rule(n, named.get(n, Kind.NOTICE)) for n in sorted(catchable)}


TABLE: dict[int, Rule] = _table()
"""Every signal that can be caught, by number."""


def name_of(number: int) -> str:
    """Such as SIGTERM, or SIGRTMIN+3."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def not_ignored(numbers: Iterable[int]) -> list[int]:
    """Those that this process does not ignore now, and whose handlers are Python's to set."""
    return [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def launcher_takes() -> list[int]:
    """The signals that a launcher must handle."""
    return not_ignored(n for n, rule in TABLE.items() if rule.passed_on)


def server_takes() -> list[int]:
    """The signals that a server must handle: they ask for its end, or would end it needlessly."""
    return not_ignored(
        n for n, rule in TABLE.items() if rule.ends_server or rule.kind is Kind.NOTICE
    )


def serve_until(loop: asyncio.AbstractEventLoop, end: Callable[[], object]) -> None:
    """Handle a server's signals in its event loop: ``end`` is called for those that end it."""
    for number in server_takes():
        loop.add_signal_handler(number, end if TABLE[number].ends_server else _nothing)


def _nothing() -> None:
    """A handler that does nothing."""
