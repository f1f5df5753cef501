"""Where epochs begin.

Epochs of a new store start at the seconds since 2025, so that they are also new to a switch that
another store, since lost, had programmed before; and a store that comes back from a backup skips
those that were handed out after it was made. That takes a clock that is right. One that is
certainly wrong has no say: epochs never go back, so what it says would be written down for good.
"""

import secrets

from wiresum.common import wall_clock

_ORIGIN = int(wall_clock.EARLIEST.timestamp())
_PLAUSIBLE = int(wall_clock.LATEST.timestamp()) - _ORIGIN
_RANDOM = 1 << 28

HIGHEST_START = _PLAUSIBLE + _RANDOM
"""No store starts above this, whatever the clock says: a quarter of all epochs."""


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
    """Where a new store starts whose clock is no help.

    Above all that a clock has ever led to, and anywhere there: two such stores, one after the
    other, would otherwise hand out the same epochs.
    """
    return _PLAUSIBLE + secrets.randbelow(_RANDOM)
