"""The base of every error that wiresum raises on purpose."""


class WiresumError(Exception):
    """An error whose message is one complete line: what was wrong, where, and what to do.

    The command line prints that line on stderr and exits with ``exit_code``; no traceback.
    """

    exit_code: int = 1
