"""Tells the controller when a group of this process has nothing to sum for a while.

Others may then have the slots of its job: see ParkJob in the controller's interface. The job
keeps its place, and what it sums meanwhile is summed, to the same bits; so this may happen at any
time, on one rank, and late: no result depends on it.
"""

import threading
import weakref
from collections.abc import Callable
from functools import partial

WORTHWHILE_S = 1.0
"""A group that has nothing to sum for less than this keeps its slots: two changes of a lease, and
those of the jobs that have the slots meanwhile, take some tenths of it."""

AHEAD_S = 0.5
"""How long before its next sum a group wants its slots back: others have to make way."""

_RETRY_S = 1.0

_parks: "weakref.WeakValueDictionary[str, Parking]" = weakref.WeakValueDictionary()


class Parking:
    """What one job of this process wants: its slots, or that others have them."""

    def __init__(self, tell: Callable[[bool], bool]) -> None:
        """``tell(parked)`` tells the controller; false if it must be told again later."""
        self._tell = tell
        self._lock = threading.Condition()
        self._wanted = self._told = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def want(self, parked: bool) -> None:
        """Let others have the job's slots, or have them back. Returns at once."""
        with self._lock:
            self._wanted = parked
            # Back means back also where the last word was not heard.
            self._told = not parked
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="wiresum-parking", daemon=True
                )
                self._thread.start()
            self._lock.notify_all()

    def close(self) -> None:
        """Tell nothing any more."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closed or self._told != self._wanted)
                if self._closed:
                    return
                wanted = self._wanted
            heard = self._tell(wanted)
            with self._lock:
                if heard and wanted == self._wanted:
                    self._told = wanted
                elif not heard:
                    self._lock.wait_for(partial(self._wants_other_than, wanted), _RETRY_S)

    def _wants_other_than(self, parked: bool) -> bool:
        return self._closed or self._wanted != parked


def register(group: str, parking: Parking) -> None:
    """From now on ``parking`` is that of torch's group of this name."""
    _parks[group] = parking


def park(group: str, parked: bool) -> None:
    """Let others have the slots of the group's job, or have them back; one rank's word counts.

    Does nothing for a group that has no job of its own, or where another rank speaks for it.
    """
    parking = _parks.get(group)
    if parking is not None:
        parking.want(parked)
