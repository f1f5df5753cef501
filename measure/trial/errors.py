"""Errors of `wiresum trial`."""

from wiresum.common.errors import WiresumError


class TrialError(WiresumError):
    """The trial cannot be made: its one line says why."""


class TrialUsageError(WiresumError):
    """An option's value makes no sense, or the folder holds another trial."""

    exit_code = 2
