"""Where a user's own files are. Some users have no home folder, or one that does not exist."""

import os
from pathlib import Path

from wiresum.common import lines
from wiresum.common.errors import WiresumError


class NoHome(WiresumError):
    """This user has no home folder (HOME is not set, and the user database does not know it)."""

    exit_code = 2


def home() -> Path | None:
    """This user's home folder, which may not exist; None if it is not known."""
    try:
        found = Path.home()
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def expand(path: Path | str) -> Path:
    """``path`` with the user's, or a named user's, home for a ``~`` at its beginning.

    Raises :class:`NoHome` if there is none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = Path(path).parts[0]
        raise NoHome(lines.NO_HOME_TO_PUT.of(path=path, name=name)) from None


def state_folder() -> Path | None:
    """The folder for the state of programs: ``$XDG_STATE_HOME``, or one in the home."""
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return Path(named)
    found = home()
    return found and found / ".local" / "state"


def is_file(path: Path) -> bool:
    """Whether there is such a file, and this user can see it."""
    try:
        return path.is_file()
    except OSError:  # another user's home, for one
        return False
