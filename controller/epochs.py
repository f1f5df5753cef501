"""Where epochs begin."""

from wiresum.controller.clock import Clock

# Epochs of a new store start at the seconds since 2025-01-01, so that they are also new to
# a switch that another store, since lost, had programmed before.
_ORIGIN = 1_735_689_600


def epoch_floor(clock: Clock) -> int:
    """No epoch that is handed out now is less than this."""
    return max(1, int(clock.now()) - _ORIGIN)
