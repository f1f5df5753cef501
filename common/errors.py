"""The base of every error that wiresum raises on purpose."""


class _Base(RuntimeError):
    """Stands where torch's ``DistBackendError`` stands in a process that uses torch."""


class WiresumError(_Base):
    """An error whose message is one complete line: what was wrong, where, and what to do.

    The command line prints that line on stderr and exits with ``exit_code``; no traceback.
    """

    exit_code: int = 1


def derive_errors_from(base: type[RuntimeError]) -> None:
    """Let ``except base`` catch all errors of wiresum: scripts expect torch's own classes.

    Only processes that use torch do that; the command line has no reason to import it.
    """
    if not issubclass(WiresumError, base):
        WiresumError.__bases__ = (base,)
