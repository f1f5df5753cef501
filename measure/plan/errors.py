"""What can go wrong with plans."""

from wiresum.common.errors import WiresumError


class PlanError(WiresumError):
    """Jobs or a trace cannot be read; the message is one line."""


class PlanUsageError(PlanError):
    """The command line says something that makes no sense."""

    exit_code = 2
