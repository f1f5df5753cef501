"""The folder of compiled programs: its owner, its rights, and which files in it are complete.

The switch loads these files into its process: write access to them is the right to run code as
its user. So no other user may have it.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wiresum.common import places
from wiresum.softswitch import lines

from .errors import CompileFailed

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_dir() -> Path:
    """Where compiled programs are kept: ``$XDG_CACHE_HOME/wiresum/programs``.

    Raises :class:`CompileFailed` where there is neither that variable nor a home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    if base.startswith("/"):
        return Path(base) / "wiresum" / "programs"
    home = places.home()
    if home is None:
        raise CompileFailed(lines.NO_CACHE_FOLDER.of())
    return home / ".cache" / "wiresum" / "programs"


class ProgramCache:
    """The folder, made and checked. Raises :class:`CompileFailed` and OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Missing folders are made for this user alone, under every umask.
        for part in (*reversed(folder.parents), folder):
            if not part.is_dir():
                part.mkdir(mode=0o700, exist_ok=True)
        _check_folders(folder)

    def library(self, key: str) -> Path:
        """Where the library of that key belongs."""
        return self.folder / f"{key}.so"

    def has(self, key: str) -> bool:
        """Whether the library of that key is there, is this user's, and is complete.

        A power failure or a full disk may have left a part of one.
        """
        library = self.library(key)
        try:
            if not _is_ours(library) or not _is_ours(_sum_of(library)):
                return False
            return _sum_of(library).read_text() == _digest(library)
        except OSError:
            return False

    def put(self, key: str, made: Path) -> None:
        """Keeps the library ``made``, a file in the folder, under that key."""
        library = self.library(key)
        made.chmod(0o700)  # a linker makes its output as the umask says
        _flush(made)
        digest = _digest(made)
        made.replace(library)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".tmp", delete=False) as new:
            new.write(digest)
            new.flush()
            os.fsync(new.fileno())
        Path(new.name).replace(_sum_of(library))

    @contextlib.contextmanager
    def only_one(self, key: str) -> Iterator[None]:
        """Holds a lock among all processes that use the cache."""
        with (self.folder / f"{key}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _check_folders(folder: Path) -> None:
    """Refuses a folder in which other users can create files, or which they can replace."""
    for part in (folder, folder.parent):
        found = part.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise CompileFailed(lines.CACHE_OF_ANOTHER.of(folder=folder, part=part))
        if found.st_mode & _OTHERS:
            raise CompileFailed(lines.CACHE_WRITABLE.of(folder=folder, part=part))
    for part in folder.parent.resolve().parents:
        found = part.stat()
        # In a folder with the sticky bit, as /tmp has it, a user can move its own files only. A
        # user's own group, as many systems have them, admits no other user.
        moves = _OTHERS if found.st_gid != os.getegid() else stat.S_IWOTH
        sticky = found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & moves and not sticky):
            raise CompileFailed(lines.CACHE_REPLACEABLE.of(folder=folder, part=part))


def _is_ours(file: Path) -> bool:
    found = file.lstat()
    mine = found.st_uid in (0, os.geteuid())
    return stat.S_ISREG(found.st_mode) and mine and not found.st_mode & _OTHERS


def _sum_of(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
