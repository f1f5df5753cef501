"""What can go wrong when talking to, or inside, the controller."""

from wiresum.common.errors import WiresumError


class ControllerError(WiresumError):
    """A request that the controller refused, or could not be asked.

    ``code`` is the name of the gRPC status (``"NOT_FOUND"``, ``"DEADLINE_EXCEEDED"``, …);
    ``"UNAVAILABLE"`` means that there is no controller at that address.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StoreError(WiresumError):
    """The controller's store cannot be used: locked, of a later version, not a store."""


class ServeError(WiresumError):
    """The controller cannot start: the port is taken, a switch's description is wrong."""
