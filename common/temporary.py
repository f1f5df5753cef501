"""Private temporary folders that are removed when their process ends, also after a crash.

A process holds a lock (``flock``) on each of its folders for as long as it lives; the kernel gives
it up however the process ends. The next process that makes a folder removes those of this user and
this host whose lock is free. Pids cannot tell: containers may share temporary folders, but not
pids.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from wiresum.common import lines
from wiresum.common.errors import WiresumError

_LONGEST_NAME = 32
"""Bytes of the longest name of a socket in a folder ``for_sockets``."""
_LONGEST_SOCKET = 107  # sockaddr_un
_PLAIN = re.compile(rb"[A-Za-z0-9/._+-]+")
_OURS = "wiresum-[a-z]+-{host}-[0-9a-f]{{16}}"
_TRIES = 16


class TemporaryError(WiresumError):
    """There is no place for temporary files."""


class PrivateFolder:
    """A folder of mode 0700, removed by :meth:`close`. Use as a context manager.

    ``path`` is where it is. When this process dies without :meth:`close`, the next one that makes
    such a folder removes it.
    """

    def __init__(self, what: str, *, for_sockets: bool = False) -> None:
        """Make ``wiresum-WHAT-…`` in the first folder for temporary files that takes it.

        ``what`` is of small letters. ``for_sockets``: the path is short and plain enough for the
        addresses of Unix sockets in it, by names of up to 32 bytes. Raises :class:`TemporaryError`.
        """
        self._lock: int | None = None
        problem = "none is named by TMPDIR, and there is no /tmp"
        for base in _bases():
            path = base / f"wiresum-{what}-{_host()}-{secrets.token_hex(8)}"
            if for_sockets and not _takes_sockets(path):
                problem = f"{base} is too long for the addresses of sockets"
                continue
            sweep(base)
            try:
                self.path, self._lock = _make(path, what)
            except OSError as error:
                problem = f"{base}: {error.strerror}"
            else:
                return
        raise TemporaryError(lines.NO_TEMPORARY_FOLDER.of(why=problem))

    def close(self) -> None:
        """Remove it with all that is in it."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(base: Path) -> None:
    """Remove this user's folders in ``base`` that dead processes of this host have left."""
    ours = re.compile(_OURS.format(host=_host()))
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for path in [Path(entry.path) for entry in entries if ours.fullmatch(entry.name)]:
            with contextlib.suppress(OSError), _held(path):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock of a folder that is this user's alone. Raises OSError if somebody else does."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{path} is not this user's alone")
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(folder)


def _make(path: Path, what: str) -> tuple[Path, int]:
    """The folder, and a descriptor that holds its lock. Raises OSError."""
    for _ in range(_TRIES):
        path.mkdir(mode=0o700)
        folder = _locked(path)
        if folder is None:
            path = path.with_name(f"{path.name[:-16]}{secrets.token_hex(8)}")
            continue
        try:
            # For people; also, a full disk fails here, where another folder can be tried.
            (path / "owner").write_text(f"wiresum {what}, pid {os.getpid()}\n")
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            os.close(folder)
            raise
        return path, folder
    raise OSError(errno.EBUSY, "somebody removes new folders at once")


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of a new folder; None if a sweep was faster."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(folder), path.stat(follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        mine = False
    except OSError:
        mine = True  # a file system without locks: no process sweeps there either
    if mine:
        return folder
    os.close(folder)
    return None


def _host() -> str:
    """This host's part of the names: locks may not reach others that share the temporary files."""
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def _bases() -> list[Path]:
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    named += ["/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    return [Path(each) for each in dict.fromkeys(named) if each.startswith("/")]


def _takes_sockets(path: Path) -> bool:
    name = os.fsencode(path)
    fits = len(name) + 1 + _LONGEST_NAME <= _LONGEST_SOCKET
    return fits and _PLAIN.fullmatch(name) is not None
