"""Files that their owner alone may read: keys, tokens, stores. None depends on the umask."""

import contextlib
import logging
import os
import stat
import tempfile
from pathlib import Path

from wiresum.common import lines
from wiresum.common.errors import WiresumError

log = logging.getLogger(__name__)

MODE = 0o600
_OTHERS = 0o077


class PrivateFileError(WiresumError):
    """A secret that other users may read, and whose mode this user cannot change."""


def write(path: Path, data: bytes, mode: int = MODE) -> None:
    """Write a file at once: a reader sees the old file or the new one.

    It has ``mode`` from the beginning. Raises ``OSError``.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def touch(path: Path, what: str) -> None:
    """Make an empty file if there is none, and let its owner alone read it.

    Raises ``OSError`` or :class:`PrivateFileError`.
    """
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        os.fchmod(descriptor, MODE)
        os.close(descriptor)
    tighten(path, what)


def tighten(path: Path, what: str) -> None:
    """Let its owner alone read and write a file; nothing happens if there is none.

    The log says so in one line: others may know what was in it. ``what`` names the file in
    messages. Raises :class:`PrivateFileError` if it belongs to another user.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if not mode & _OTHERS:
        return
    try:
        path.chmod(mode & ~_OTHERS | MODE)
    except OSError as error:
        raise PrivateFileError(
            lines.CANNOT_BE_PRIVATE.of(
                what=what, path=path, mode=mode, why=(error.strerror or str(error)).lower()
            )
        ) from error
    log.warning(
        "%s %s could be read by others (mode %04o): it is closed to them now", what, path, mode
    )


def folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone; raises ``OSError``.

    A folder that is there stays as it is.
    """
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
            each.chmod(0o700)
