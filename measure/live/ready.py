"""Tells when the ranks of this host have written all that they will, while the job goes on."""

import socket
import time
from pathlib import Path

from wiresum.measure.live.observed import SUFFIX, read_all

_GRACE_S = 5.0
"""How long ranks of other hosts, that write into the same folder, are waited for."""


class Ready:
    """Asked again and again, says once that it is time for the report."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = 0
        self._since: float | None = None
        self._said = False

    def now(self) -> bool:
        """Whether it has just become time."""
        if self._said:
            return False
        files = sum(1 for _ in self._folder.glob(f"*{SUFFIX}"))
        if files != self._files:
            self._files = files
            self._since = self._complete()
        self._said = self._since is not None and time.monotonic() >= self._since
        return self._said

    def _complete(self) -> float | None:
        """From when on it is time, by ``time.monotonic()``; None while ranks of this host miss."""
        ranks = [each for each in read_all(self._folder) if each.rank is not None]
        here = [each for each in ranks if each.host == socket.gethostname()]
        if not here or any(each.failed for each in ranks) or len(here) < here[0].local_size:
            return None
        grace = 0.0 if len(ranks) >= ranks[0].world_size else _GRACE_S
        return time.monotonic() + grace
