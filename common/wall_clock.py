"""Whether this machine's wall clock can be believed.

A machine without a battery starts in 1970, one with a bad battery at any time. A stored value with
such a time stays wrong, so code that stores times asks this module first.
"""

import datetime
import time

EARLIEST = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
LATEST = datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC)


def plausible(seconds: float | None = None) -> bool:
    """Whether a time in seconds since 1970 (None: now) may be right: from 2025 to 2050."""
    moment = time.time() if seconds is None else seconds
    return EARLIEST.timestamp() <= moment < LATEST.timestamp()
