"""What can go wrong while two switches are compared."""

from wiresum.common.errors import WiresumError


class ConformanceError(WiresumError):
    """The comparison cannot be made; the message is one line."""


class ConformanceUsageError(ConformanceError):
    """An option's value makes no sense."""

    exit_code = 2


class SwitchGone(ConformanceError):
    """A switch under test ended or stopped answering: it did not survive its input."""


class SwitchesDiffer(ConformanceError):
    """The two switches did not do the same; the command has printed the difference."""
