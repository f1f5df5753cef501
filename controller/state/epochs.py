"""Where epochs begin.

Epochs of a new store start at the seconds since 2025, so that they are also new to a switch that
another store, since lost, had programmed before; and a store that comes back from a backup skips
those that were handed out after it was made. This needs a right clock. The time of a clock that is
certainly wrong is ignored: epochs never go back, so a wrong time would stay in them for good.
"""

import secrets

from wiresum.common import wall_clock

_ORIGIN = int(wall_clock.EARLIEST.timestamp())
_PLAUSIBLE = int(wall_clock.LATEST.timestamp()) - _ORIGIN
_RANDOM = 1 << 28

HIGHEST_START = _PLAUSIBLE + _RANDOM
"""No clock makes a store start above this: a quarter of all epochs."""


def epoch_floor(now: float) -> int:
    """No epoch that is handed out at the time ``now`` is less than this; 0: the time is wrong."""
    return max(1, int(now) - _ORIGIN) if wall_clock.plausible(now) else 0


def next_epoch(last: int, at_least: int) -> int:
    """The epoch after ``last``: at least ``at_least``, never 0.

    If both are 0, a new store whose clock is wrong starts anywhere above what a clock can lead to.
    Raises OverflowError when all 2**32 are used up.
    """
    epoch = max(last + 1, at_least)
    if last == 0 and at_least == 0:
        epoch = _blind_start()
    if epoch > 0xFFFFFFFF:
        raise OverflowError("all 2**32 epochs have been used")
    return epoch


def _blind_start() -> int:
    """The first epoch of a new store whose clock is wrong.

    A random one above all epochs that a clock can give: otherwise two such stores, one after the
    other, would hand out the same epochs.
    """
    return _PLAUSIBLE + secrets.randbelow(_RANDOM)
