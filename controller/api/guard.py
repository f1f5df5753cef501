"""Limits of requests, before anything is done with them.

A request is read here and not by gRPC. Unknown fields (of a later version, or megabytes of junk)
are dropped at once, also in nested messages; the rest of the request has a size limit.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from wiresum.controller import lines
from wiresum.controller.api.calls import abort, request_size
from wiresum.controller.errors import ControllerError

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]  # at run time, grpc's classes have no parameters

MAX_MESSAGE = 4 << 20
"""Bytes that gRPC reads of a request at most; more are refused there (RESOURCE_EXHAUSTED)."""

MAX_REQUEST = 16 * 1024
"""Bytes of a request without its unknown fields: many times what any of them needs."""

MAX_SWITCH_REQUEST = 256 * 1024
"""Bytes of AddSwitch, which has a list of hosts."""

_LARGER = {"AddSwitch": MAX_SWITCH_REQUEST}


class Guard(grpc.aio.ServerInterceptor):
    """Reads requests within limits."""

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        limit = _LARGER.get(method, MAX_REQUEST)
        serve, read = handler.unary_unary, handler.request_deserializer

        async def guarded(data: bytes, context: Any) -> Any:
            request_size.set(len(data))
            try:
                request = read(data)
            except Exception:  # google.protobuf has one of its own for each of its implementations
                await abort(context, _unreadable(method))
            request.DiscardUnknownFields()
            if request.ByteSize() > limit:
                await abort(context, _too_large(method, request.ByteSize(), limit))
            return await serve(request, context)

        return grpc.unary_unary_rpc_method_handler(guarded, None, handler.response_serializer)


def _too_large(method: str, found: int, limit: int) -> ControllerError:
    return ControllerError(
        "INVALID_ARGUMENT",
        lines.REQUEST_TOO_LARGE.of(size=found, method=method, most=limit),
    )


def _unreadable(method: str) -> ControllerError:
    return ControllerError("INVALID_ARGUMENT", lines.REQUEST_UNREADABLE.of(method=method))
