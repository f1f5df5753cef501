"""Where calls come in: handed to the office that is open, or refused while there is none."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc

from wiresum.controller.api.calls import Context, abort
from wiresum.controller.api.service import ControllerService
from wiresum.controller.errors import NotLeading
from wiresum.controller.office.office import Office
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    _Task = asyncio.Task[Any]

_METHODS = pb.DESCRIPTOR.services_by_name["Controller"].methods_by_name


class Reception:
    """All calls of the service, for an office that may open and close. Closed at first."""

    def __init__(self, refusal: Callable[[], NotLeading]) -> None:
        """``refusal`` tells callers why no office is open."""
        self.office: Office | None = None
        """The office that is open."""
        self._refusal = refusal
        self._service: ControllerService | None = None
        self._calls: set[_Task] = set()

    def register(self, server: grpc.aio.Server) -> None:
        """Serve the calls of a server, which must not have started yet."""
        servicer = SimpleNamespace(**{name: self._answering(name) for name in _METHODS})
        pb_grpc.add_ControllerServicer_to_server(
            cast("pb_grpc.ControllerServicer", servicer), server
        )

    def open(self, office: Office, fixed_admin: str = "") -> None:
        """Hand calls to ``office``; see :class:`ControllerService`."""
        self.office = office
        self._service = ControllerService(office, fixed_admin)

    def close(self) -> None:
        """Refuse calls, those in progress included."""
        self.office = self._service = None
        for call in self._calls:
            call.cancel()

    def _answering(self, name: str) -> Callable[[Any, Context], Any]:
        async def answer(request: Any, context: Context) -> Any:
            service = self._service
            if service is None:
                await abort(context, self._refusal())
            call = asyncio.current_task()
            assert call is not None
            self._calls.add(call)
            try:
                return await getattr(service, name)(request, context)
            except asyncio.CancelledError:
                if self._service is not service:
                    await abort(context, self._refusal())
                raise
            finally:
                self._calls.discard(call)

        return answer
