"""Named network namespaces (``ip netns``): entering them, and ending what runs in them."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from wiresum.testbed import lines
from wiresum.testbed.errors import RackError
from wiresum.testbed.processes import Mark, end, mark

FOLDER = Path("/run/netns")
_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x00020000
_MS_REC, _MS_SLAVE, _MNT_DETACH = 1 << 14, 1 << 19, 2
_LIMIT_S = 20.0

T = TypeVar("T")


def run(*command: str) -> str:
    """Run a command to its end; its output. Raises :class:`RackError` if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RackError(lines.COMMAND_FAILED.of(command=" ".join(command), why=error)) from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise RackError(lines.COMMAND_FAILED.of(command=" ".join(command), why=said))
    return done.stdout


def inode_of(pid: int) -> int:
    """The inode of the network namespace that process ``pid`` is in."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def attach(name: str, pid: int) -> None:
    """Give the namespace of process ``pid`` a name."""
    run("ip", "netns", "attach", name, str(pid))


def inode(name: str) -> int | None:
    """The inode of the namespace of that name, its true identity; None if there is none."""
    try:
        return (FOLDER / name).stat().st_ino
    except OSError:
        return None


def enter(name: str) -> tuple[str, ...]:
    """The prefix that runs a command in a namespace (with a /sys that shows its interfaces)."""
    return ("ip", "netns", "exec", name)


def inhabitants(name: str) -> list[Mark]:
    """The processes in a namespace."""
    if inode(name) is None:
        return []
    found = (mark(int(pid)) for pid in run("ip", "netns", "pids", name).split())
    return [each for each in found if each is not None and each.pid != os.getpid()]


def evict(names: Sequence[str], keep: Sequence[int] = (), rounds: int = 5) -> int:
    """End all processes in these namespaces but those in ``keep``; returns how many there were."""
    ended = 0
    for _ in range(rounds):  # a process that ends may start another one
        found = [m for name in names for m in inhabitants(name) if m.pid not in keep]
        if not found:
            break
        ended += end(found)
    return ended


def remove(name: str) -> None:
    """Take the name away; the namespace ends with its last process, and its interfaces with it."""
    if inode(name) is not None:
        run("ip", "netns", "del", name)


def within(name: str, work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, when it is called in a namespace.

    A thread enters the namespace; the thread cannot be used for anything else then. Raises
    ``OSError`` where the namespace cannot be entered.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def call() -> None:
        try:
            descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            finally:
                os.close(descriptor)
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def go_into(name: str) -> None:
    """Take this process into a namespace for good, with a /sys that shows its interfaces.

    As ``ip netns exec`` does; for a process with one thread. Raises ``OSError``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(FOLDER / name, os.O_RDONLY)
    done = (
        libc.setns(descriptor, _CLONE_NEWNET),
        libc.unshare(_CLONE_NEWNS),
        libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None),
        libc.umount2(b"/sys", _MNT_DETACH),
        libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None),
    )
    os.close(descriptor)
    if any(done):
        raise OSError(ctypes.get_errno(), f"cannot enter {name}")


def socket_in(name: str, address: tuple[str, int]) -> socket.socket:
    """A TCP socket that listens at ``address`` in a namespace; usable by any thread.

    Raises :class:`RackError`.
    """
    try:
        return within(name, lambda: socket.create_server(address))
    except OSError as error:
        raise RackError(
            lines.CANNOT_LISTEN.of(host=address[0], port=address[1], namespace=name, why=error)
        ) from None
