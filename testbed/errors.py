"""What can go wrong in a testbed."""

from wiresum.common.errors import WiresumError


class RackError(WiresumError):
    """A rack cannot be built, used or removed; the message is one line."""


class RackUsageError(RackError):
    """An option's value makes no sense."""

    exit_code = 2
