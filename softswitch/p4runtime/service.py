"""The five P4Runtime calls."""

import asyncio
from collections.abc import AsyncIterator

import grpc
from finsy.proto import p4r, p4r_grpc

from wiresum.common.errors import WiresumError
from wiresum.softswitch.p4runtime.arbitration import Arbiter, Controller
from wiresum.softswitch.p4runtime.device import Device
from wiresum.softswitch.p4runtime.packetio import build_packet_out, parse_packet_in
from wiresum.softswitch.p4runtime.status import (
    ERROR_SPACE,
    BatchError,
    P4RuntimeError,
    denied,
    invalid,
    not_found,
    precondition,
    unimplemented,
)

API_VERSION = "1.4.1"
"""The P4Runtime version whose messages this server understands."""

ENTITIES_PER_MESSAGE = 1024
"""How many entities one ReadResponse carries at most: far below gRPC's 4 MiB."""

_Set = p4r.SetForwardingPipelineConfigRequest


class P4RuntimeService(p4r_grpc.P4RuntimeServicer):
    """P4Runtime for one device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._arbiter = Arbiter(device.device_id)
        self._config_lock = asyncio.Lock()

    def controllers(self) -> tuple[int, bool]:
        """How many controllers are connected, and whether one of them is in charge."""
        return self._arbiter.standing

    # -- checks --------------------------------------------------------------------------------

    def _check_device(self, device_id: int) -> None:
        if device_id != self._device.device_id:
            raise not_found(f"no device {device_id} here; this is device {self._device.device_id}")

    def _check_primary(
        self, request: p4r.WriteRequest | p4r.SetForwardingPipelineConfigRequest
    ) -> None:
        self._check_device(request.device_id)
        if request.role:
            raise not_found(f"no role {request.role!r} here: there is the default role only")
        if not self._arbiter.is_primary(request):
            raise denied("Not primary")

    # -- unary calls ---------------------------------------------------------------------------

    async def Write(
        self,
        request: p4r.WriteRequest,
        context: grpc.aio.ServicerContext[p4r.WriteRequest, p4r.WriteResponse],
    ) -> p4r.WriteResponse:
        """Apply a batch of updates."""
        try:
            self._check_primary(request)
            self._device.pipeline.write(request)
        except BatchError as error:
            trailer = (("grpc-status-details-bin", error.details()),)
            await context.abort(error.grpc_code, error.message, trailer)
        except P4RuntimeError as error:
            await context.abort(error.grpc_code, error.message)
        return p4r.WriteResponse()

    async def Read(
        self,
        request: p4r.ReadRequest,
        context: grpc.aio.ServicerContext[p4r.ReadRequest, p4r.ReadResponse],
    ) -> AsyncIterator[p4r.ReadResponse]:
        """Stream the selected entities."""
        try:
            self._check_device(request.device_id)
            # Collected before the first await, so that no Write comes in between.
            entities: list[p4r.Entity] = []
            error = None
            try:
                entities.extend(self._device.pipeline.read(request))
            except P4RuntimeError as failed:
                error = failed
            for first in range(0, len(entities), ENTITIES_PER_MESSAGE):
                yield p4r.ReadResponse(entities=entities[first : first + ENTITIES_PER_MESSAGE])
            if error is not None:
                raise error
            if not entities:
                yield p4r.ReadResponse()
        except P4RuntimeError as error:
            await context.abort(error.grpc_code, error.message)

    async def SetForwardingPipelineConfig(
        self,
        request: p4r.SetForwardingPipelineConfigRequest,
        context: grpc.aio.ServicerContext[
            p4r.SetForwardingPipelineConfigRequest, p4r.SetForwardingPipelineConfigResponse
        ],
    ) -> p4r.SetForwardingPipelineConfigResponse:
        """Verify, save or run a program."""
        try:
            self._check_primary(request)
            async with self._config_lock:
                await self._set_config(request)
        except P4RuntimeError as error:
            await context.abort(error.grpc_code, error.message)
        return p4r.SetForwardingPipelineConfigResponse()

    async def _set_config(self, request: p4r.SetForwardingPipelineConfigRequest) -> None:
        device = self._device
        if request.action == _Set.COMMIT:
            if request.HasField("config"):
                raise invalid("COMMIT takes no config")
            device.commit_saved()
            return
        if request.action not in (
            _Set.VERIFY,
            _Set.VERIFY_AND_SAVE,
            _Set.VERIFY_AND_COMMIT,
            _Set.RECONCILE_AND_COMMIT,
        ):
            raise invalid("the action of SetForwardingPipelineConfig is not set")
        prepared = await device.prepare(request.config)
        # Compiling took a while: another controller may have taken over.
        self._check_primary(request)
        if request.action == _Set.VERIFY_AND_SAVE:
            device.save(prepared)
        elif request.action == _Set.VERIFY_AND_COMMIT:
            device.commit(prepared)
        elif request.action == _Set.RECONCILE_AND_COMMIT:
            device.reconcile(prepared)

    async def GetForwardingPipelineConfig(
        self,
        request: p4r.GetForwardingPipelineConfigRequest,
        context: grpc.aio.ServicerContext[
            p4r.GetForwardingPipelineConfigRequest, p4r.GetForwardingPipelineConfigResponse
        ],
    ) -> p4r.GetForwardingPipelineConfigResponse:
        """Return the running program's config."""
        answer = p4r.GetForwardingPipelineConfigResponse()
        try:
            self._check_device(request.device_id)
            answer.config.CopyFrom(self._device.config(request.response_type))
        except P4RuntimeError as error:
            await context.abort(error.grpc_code, error.message)
        return answer

    async def Capabilities(
        self,
        request: p4r.CapabilitiesRequest,
        context: grpc.aio.ServicerContext[p4r.CapabilitiesRequest, p4r.CapabilitiesResponse],
    ) -> p4r.CapabilitiesResponse:
        """Return the API version."""
        return p4r.CapabilitiesResponse(p4runtime_api_version=API_VERSION)

    # -- the stream ----------------------------------------------------------------------------

    async def StreamChannel(
        self,
        request_iterator: AsyncIterator[p4r.StreamMessageRequest],
        context: grpc.aio.ServicerContext[p4r.StreamMessageRequest, p4r.StreamMessageResponse],
    ) -> AsyncIterator[p4r.StreamMessageResponse]:
        """Arbitration, packet-out and packet-in for one controller."""
        controller = Controller()
        receiver = asyncio.create_task(self._receive(controller, request_iterator))
        try:
            while (message := await controller.outgoing.get()) is not None:
                yield message
            await receiver
        except P4RuntimeError as error:
            await context.abort(error.grpc_code, error.message)
        finally:
            self._arbiter.remove(controller)
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    async def _receive(
        self, controller: Controller, requests: AsyncIterator[p4r.StreamMessageRequest]
    ) -> None:
        """Handle what a controller sends until it closes the stream or makes an error."""
        try:
            async for request in requests:
                self._handle(controller, request)
        finally:
            controller.close()

    def _handle(self, controller: Controller, request: p4r.StreamMessageRequest) -> None:
        kind = request.WhichOneof("update")
        if kind == "arbitration":
            if request.arbitration.device_id != self._device.device_id and controller.live:
                raise precondition("Invalid device id")
            self._check_device(request.arbitration.device_id)
            self._arbiter.update(controller, request.arbitration)
            return
        message = p4r.StreamMessageResponse()
        try:
            if kind == "packet":
                message.error.packet_out.packet_out.CopyFrom(request.packet)
                self._packet_out(controller, request.packet)
            elif kind == "digest_ack":
                message.error.digest_list_ack.digest_list_ack.CopyFrom(request.digest_ack)
                raise unimplemented("digests are not supported")
            else:
                message.error.other.SetInParent()
                raise invalid("the stream message is empty or of an unknown kind")
        except P4RuntimeError as error:
            message.error.canonical_code = error.code
            message.error.message = error.message
            message.error.space = ERROR_SPACE
            controller.send(message, droppable=True)

    def _packet_out(self, controller: Controller, packet: p4r.PacketOut) -> None:
        if self._arbiter.primary is not controller:
            raise denied("Not primary")
        pipeline = self._device.pipeline
        frame = build_packet_out(pipeline.schema.packet_out, packet)
        try:
            self._device.target.packet_out(frame)
        except WiresumError as error:
            raise precondition(str(error)) from error

    def packet_in(self, frame: bytes) -> None:
        """Send a frame that left through the CPU port to the primary, if there is one."""
        primary = self._arbiter.primary
        schema = self._device.schema
        if primary is None or schema is None:
            return
        packet = parse_packet_in(schema.packet_in, frame)
        if packet is not None:
            primary.send(p4r.StreamMessageResponse(packet=packet), droppable=True)
