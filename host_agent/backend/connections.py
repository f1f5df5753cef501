"""The fallback's TCP connections: how a collective that waits in gloo is ended before its limit.

gloo's own ``abort()`` does not end a collective that waits. But gloo's threads notice a closed
connection, and then end the collectives that wait for it, on this rank and on the others.
"""

import os
import socket
from contextlib import suppress
from typing import Self


class Connections:
    """The TCP connections that this process opens within a ``with`` block."""

    def __init__(self) -> None:
        self._before: dict[int, str] = {}
        self._opened: dict[int, str] = {}

    def __enter__(self) -> Self:
        self._before = _connected()
        return self

    def __exit__(self, *_: object) -> None:
        now = _connected()
        self._opened = {fd: name for fd, name in now.items() if self._before.get(fd) != name}

    def sever(self, expected: int) -> bool:
        """Shut them down if there are exactly ``expected`` of them; returns whether.

        Another number means that another thread has opened some meanwhile: they are not ours.
        """
        now = _connected()
        ours = [fd for fd, name in self._opened.items() if now.get(fd) == name]
        if len(ours) != expected:
            return False
        for fd in ours:
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)
        return True


def _connected() -> dict[int, str]:
    """The descriptors of this process's TCP connections, with the names of their sockets."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are all it takes)
        with suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
            if name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry))) as sock:
                    if sock.family in (socket.AF_INET, socket.AF_INET6):
                        sock.getpeername()
                        if sock.type == socket.SOCK_STREAM:
                            found[int(entry)] = name
    return found
