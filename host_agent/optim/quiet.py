"""The time between two synchronizations, in which others may have the slots of a group's job."""

import time
from collections.abc import Callable

import torch.distributed as dist

from wiresum.host_agent.agent import parking


class Quiet:
    """Parks the job of a group when nothing is summed for long, and wants it back before the next.

    How long that will be is taken from the round before; so nothing is parked in the first round,
    nor where rounds are shorter than ``parking.WORTHWHILE_S``. The group's first rank tells the
    controller, in the background. No result depends on it.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None,
        park: Callable[[str, bool], None] = parking.park,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._park = park
        self._clock = clock
        self._began: float | None = None
        self._last_s = 0.0  # how long the last quiet time was
        self._parked = False

    def begins(self) -> None:
        """A synchronization is over."""
        self._began = self._clock()
        if self._last_s >= parking.WORTHWHILE_S:
            self._tell(True)

    def step(self, left: int) -> None:
        """A step is done; so many are left before the next synchronization."""
        if self._began is None:
            return
        passed = self._clock() - self._began
        if self._parked and (left <= 1 or passed >= self._last_s - parking.AHEAD_S):
            self._tell(False)
        if left <= 0:
            self._last_s, self._began = passed, None

    def ends(self) -> None:
        """No synchronization follows."""
        if self._parked:
            self._tell(False)
        self._began = None

    def _tell(self, parked: bool) -> None:
        self._parked = parked
        group = self._group if self._group is not None else dist.group.WORLD
        if group is not None:
            self._park(group.group_name, parked)
