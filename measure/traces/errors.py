"""What can go wrong with traces."""

from wiresum.common.errors import WiresumError


class TraceError(WiresumError):
    """Traces cannot be read, or a report of them cannot be written; the message is one line."""


class TraceUsageError(TraceError):
    """The command line does not say what to measure."""

    exit_code = 2
