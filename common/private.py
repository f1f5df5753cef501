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
    """A secret that others may read, and that this user cannot close to them."""


def write(path: Path, data: bytes, mode: int = MODE) -> None:
    """Write a file at once: who reads it meanwhile sees the one before or the new one.

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
    """Make a file that is empty unless it is there, and close it to others.

    Raises ``OSError`` or :class:`PrivateFileError`.
    """
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        os.fchmod(descriptor, MODE)
        os.close(descriptor)
    tighten(path, what)


def tighten(path: Path, what: str) -> None:
    """Take a file that others may read or write away from them; nothing happens if there is none.

    The log says so in one line: what was in it may be known. ``what`` it is comes first in
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
