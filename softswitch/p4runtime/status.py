"""P4Runtime's errors: one exception inside the server, ``google.rpc.Status`` on the wire."""

from collections.abc import Sequence

import grpc
from finsy.proto import p4r, rpc_code, rpc_status
from google.protobuf import any_pb2

ERROR_SPACE = "wiresum"
"""The ``space`` of every ``p4.v1.Error`` that this server sends."""

MAX_MESSAGE = 600
"""Characters of an error's message, at most: clients refuse statuses of more than 8 KiB."""

_GRPC_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class P4RuntimeError(Exception):
    """A request, or one update of a batch, that is answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        """``code`` is a ``google.rpc.Code``; ``message`` one line for a developer.

        It may contain names from a controller or a program: characters that cannot be printed, and
        text that is too long for a gRPC status, are left out.
        """
        line = "".join(c if c.isprintable() else " " for c in message[:MAX_MESSAGE])
        message = line if len(message) <= MAX_MESSAGE else f"{line}…"
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """The same code as gRPC's enumeration."""
        return _GRPC_CODES[self.code]


def invalid(message: str) -> P4RuntimeError:
    """INVALID_ARGUMENT."""
    return P4RuntimeError(rpc_code.INVALID_ARGUMENT, message)


def not_found(message: str) -> P4RuntimeError:
    """NOT_FOUND."""
    return P4RuntimeError(rpc_code.NOT_FOUND, message)


def already_exists(message: str) -> P4RuntimeError:
    """ALREADY_EXISTS."""
    return P4RuntimeError(rpc_code.ALREADY_EXISTS, message)


def denied(message: str) -> P4RuntimeError:
    """PERMISSION_DENIED."""
    return P4RuntimeError(rpc_code.PERMISSION_DENIED, message)


def unimplemented(message: str) -> P4RuntimeError:
    """UNIMPLEMENTED."""
    return P4RuntimeError(rpc_code.UNIMPLEMENTED, message)


def out_of_range(message: str) -> P4RuntimeError:
    """OUT_OF_RANGE."""
    return P4RuntimeError(rpc_code.OUT_OF_RANGE, message)


def precondition(message: str) -> P4RuntimeError:
    """FAILED_PRECONDITION."""
    return P4RuntimeError(rpc_code.FAILED_PRECONDITION, message)


def exhausted(message: str) -> P4RuntimeError:
    """RESOURCE_EXHAUSTED."""
    return P4RuntimeError(rpc_code.RESOURCE_EXHAUSTED, message)


def internal(message: str) -> P4RuntimeError:
    """INTERNAL."""
    return P4RuntimeError(rpc_code.INTERNAL, message)


class BatchError(P4RuntimeError):
    """Some updates of a Write failed: UNKNOWN, with one ``p4.v1.Error`` for every update."""

    def __init__(self, results: Sequence[P4RuntimeError | None]) -> None:
        """``results`` has an entry for every update, None where it succeeded."""
        failed = [result for result in results if result is not None]
        super().__init__(
            rpc_code.UNKNOWN,
            f"{len(failed)} of {len(results)} updates failed; the first: {failed[0].message}",
        )
        self.results = results

    def details(self) -> bytes:
        """Return the ``grpc-status-details-bin`` trailer."""
        status = rpc_status.Status(code=self.code, message=self.message)
        for result in self.results:
            if result is None:
                error = p4r.Error(canonical_code=rpc_code.OK)
            else:
                error = p4r.Error(
                    canonical_code=result.code, message=result.message, space=ERROR_SPACE
                )
            packed = any_pb2.Any()
            packed.Pack(error)
            status.details.append(packed)
        return status.SerializeToString()
