"""The fallback's TCP connections: how a collective that waits in gloo is ended before its limit.

gloo's own ``abort()`` does not end a collective that waits. But gloo's threads notice a closed
connection, and then end the collectives that wait for it, on this rank and on the others.

Several groups may be made at a time, on several threads. A group's connections are those at the
ports at which its ranks listen (:meth:`Connections.ports`).
"""

import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import NamedTuple, Self, TypeVar

T = TypeVar("T")

_here = threading.local()
_making = threading.Lock()
_TRIES = 5


class _Connection(NamedTuple):
    name: str
    """Of the socket, as the kernel knows it."""
    here: int
    there: int
    """Ports."""


class Connections:
    """The TCP connections that this process opens within a ``with`` block."""

    def __init__(self) -> None:
        self._before: dict[int, _Connection] = {}
        self._opened: dict[int, str] = {}
        self._mine: set[int] = set()
        self._theirs: set[int] = set()

    def __enter__(self) -> Self:
        self._before = _connected()
        self._around = getattr(_here, "now", None)
        _here.now = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.now = self._around
        now = _connected()
        self._opened = {
            fd: each.name
            for fd, each in now.items()
            if self._before.get(fd) != each and self._belongs(each)
        }

    def _belongs(self, connection: _Connection) -> bool:
        known = bool(self._mine and self._theirs)
        return not known or connection.here in self._mine or connection.there in self._theirs

    def ports(self, mine: Collection[int], theirs: Collection[int]) -> None:
        """Where this rank listens, and where the others do; empty: not known."""
        self._mine, self._theirs = set(mine), set(theirs)

    def sever(self, expected: int) -> bool:
        """Shut them down if there are exactly ``expected`` of them; returns whether.

        Another number means that another thread has opened some meanwhile: they are not ours.
        """
        now = _connected()
        ours = [fd for fd, name in self._opened.items() if fd in now and now[fd].name == name]
        if len(ours) != expected:
            return False
        for fd in ours:
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        return True


def opening() -> Connections | None:
    """The innermost ``with`` block that this thread is in."""
    return getattr(_here, "now", None)


def listening(make: Callable[[], T]) -> tuple[T, list[int]]:
    """What ``make`` returns, which listens at one port, and that port; none if it is not clear."""
    with _making:
        for _ in range(_TRIES):
            before = _listeners()
            made = make()
            new = [port for fd, port in _listeners().items() if before.get(fd) != port]
            if len(new) == 1:
                return made, new
        return made, []  # other threads open listeners all the time


def _connected() -> dict[int, _Connection]:
    """The descriptors of this process's TCP connections."""
    found = {}
    for fd, name, sock in _sockets():
        with suppress(OSError):
            there = sock.getpeername()
            found[fd] = _Connection(name, sock.getsockname()[1], there[1])
    return found


def _listeners() -> dict[int, int]:
    """The descriptors of this process's TCP sockets that listen, and their ports."""
    found = {}
    for fd, _, sock in _sockets():
        with suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found[fd] = sock.getsockname()[1]
    return found


def _sockets() -> Iterator[tuple[int, str, socket.socket]]:
    """This process's TCP sockets: descriptor, the kernel's name, and the socket for the moment."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are all it takes)
        with suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
            if name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry))) as sock:
                    if sock.family in (socket.AF_INET, socket.AF_INET6) and (
                        sock.type == socket.SOCK_STREAM
                    ):
                        yield int(entry), name, sock
