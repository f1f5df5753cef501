"""The errors of the controller and of its clients."""

from wiresum.common.errors import WiresumError


class ControllerError(WiresumError):
    """A request that the controller refused, or could not be asked.

    ``code`` is the name of the gRPC status (``"NOT_FOUND"``, ``"DEADLINE_EXCEEDED"``, …);
    ``"UNAVAILABLE"`` without ``retry_after_s`` means that there is no controller at that address.

    ``retry_after_s``: the controller is there and has heard the caller, but cannot do it now;
    nothing has happened, and the same request may be made again after so many seconds. None: the
    controller does not say so.
    """

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class StoreFailed(ControllerError):
    """The store cannot be read or written now: disk full, locked, broken. Nothing has happened."""


class NotLeading(StoreFailed):
    """Of the controllers of one store, another leads, or none yet: ask the others.

    A plan whose commit was interrupted may have happened; the next leader knows.
    """


class StoreError(WiresumError):
    """The controller's store cannot be used: locked, of a later version, not a store."""


class ServeError(WiresumError):
    """The controller cannot start: the port is taken, a switch's description is wrong."""


class OptionError(WiresumError):
    """An option that cannot be used."""

    exit_code = 2


class SpecError(ServeError):
    """A switch's description that cannot be understood."""

    exit_code = 2
