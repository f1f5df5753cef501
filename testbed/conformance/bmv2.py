"""BMv2's simple_switch_grpc as a switch under test, over Unix sockets: no root, no interfaces.

Frames travel through its gRPC dataplane service, whose two messages are declared here. It opens no
TCP port, unless it was built with Thrift: then it opens one for that.
"""

import contextlib
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
from finsy.proto import p4r, p4r_grpc, rpc_code, rpc_status
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from wiresum.testbed import lines
from wiresum.testbed.conformance.errors import ConformanceError, SwitchGone
from wiresum.testbed.conformance.p4info import Schema
from wiresum.testbed.conformance.target import (
    Count,
    EntryKey,
    Frame,
    Group,
    Leaving,
    Probe,
    Write,
    probe_number,
)
from wiresum.testbed.find_bmv2 import BINARY, DEVICE, Bmv2Process, command

EGRESS_THREADS = 4
"""It chooses one by the egress port, modulo this."""
QUEUE_FRAMES = 64
"""It silently drops frames that an egress port's queue cannot hold."""
LIMIT_S = 20.0
"""The limit of each of its answers; seconds."""

_RETRY_S = 0.2
_END_S = 1.0
_PAUSE_S = 0.02


class Compiled(Protocol):
    """A compiled program."""

    @property
    def json(self) -> Path:
        """BMv2's JSON."""

    @property
    def p4info(self) -> Path:
        """The P4Info, as text."""


def available() -> bool:
    """Whether BMv2 is on PATH."""
    return shutil.which(BINARY) is not None


def _dataplane_messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="wiresum_dataplane.proto", package="p4.bm", syntax="proto3"
    )
    number = descriptor_pb2.FieldDescriptorProto
    kinds = (number.TYPE_UINT64, number.TYPE_UINT64, number.TYPE_UINT32, number.TYPE_BYTES)
    names = ("id", "device_id", "port", "packet")
    for name in ("PacketStreamRequest", "PacketStreamResponse"):
        message = file.message_type.add(name=name)
        for index, (field, kind) in enumerate(zip(names, kinds, strict=True), start=1):
            message.field.add(name=field, number=index, type=kind, label=number.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p4.bm.{name}"))
        for name in ("PacketStreamRequest", "PacketStreamResponse")
    )
    return request, response


class _Feed:
    """A request stream that stays open until it is fed None."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, item: Any) -> None:
        self._items.put(item)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.get, None)


class Bmv2Target:
    """One simple_switch_grpc process running a program; close it when done."""

    name = "BMv2"

    def __init__(self, program: Compiled, directory: Path) -> None:
        """``directory`` gets its sockets (whose paths must be short) and its log.

        Raises :class:`SwitchGone` where it does not start, :class:`ConformanceError` where it
        refuses the program.
        """
        if not available():
            raise ConformanceError(lines.BMV2_MISSING.of(binary=BINARY))
        self.schema = Schema(program.p4info)
        self._probes: Sequence[Probe] = ()
        self._number = 0
        self._groups: set[int] = set()
        self._baseline: dict[tuple[str, int], Count] = {}
        self._direct_baseline: dict[EntryKey, Count] = {}
        self._closing: list[Callable[[], object]] = []
        control, data = directory / "p4rt.sock", directory / "dp.sock"
        self._child = Bmv2Process(BINARY, command(control, data), directory / "bmv2.log")
        try:
            self._child.serves(control, LIMIT_S)
            self._child.serves(data, LIMIT_S)
            self._open_control(f"unix:{control}", program)
            self._open_data(f"unix:{data}")
        except BaseException:
            self.close()
            raise

    # --- starting and ending

    def _open_control(self, address: str, program: Compiled) -> None:
        channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", 64 << 20),
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._closing.append(channel.close)
        self._stub = p4r_grpc.P4RuntimeStub(channel)
        arbitration = _Feed()
        self._closing.append(lambda: arbitration.put(None))
        self._stream = self._stub.StreamChannel(iter(arbitration))
        hello = p4r.StreamMessageRequest()
        hello.arbitration.device_id = DEVICE
        hello.arbitration.election_id.low = 1
        arbitration.put(hello)
        request = p4r.SetForwardingPipelineConfigRequest(
            device_id=DEVICE, action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT
        )
        request.election_id.low = 1
        request.config.p4info.CopyFrom(self.schema.info)
        request.config.p4_device_config = program.json.read_bytes()
        # A stream has no deadline of its own that would spare it once it is answered.
        overdue = threading.Timer(LIMIT_S, self._stream.cancel)
        overdue.daemon = True
        overdue.start()
        try:
            next(self._stream)
            overdue.cancel()
            self._stub.SetForwardingPipelineConfig(request, timeout=LIMIT_S)
        except grpc.RpcError as error:
            raise ConformanceError(
                lines.BMV2_REFUSES.of(
                    binary=BINARY,
                    program=program.json,
                    why=error.details(),
                    said=self._child.said(),
                )
            ) from error

    def _open_data(self, address: str) -> None:
        self._request, response = _dataplane_messages()
        channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._closing.append(channel.close)
        self._open_stream = channel.stream_stream(
            "/p4.bm.DataplaneInterface/PacketStream",
            request_serializer=self._request.SerializeToString,
            response_deserializer=response.FromString,
        )
        self._frames = _Feed()
        self._closing.append(lambda: self._frames.put(None))
        self._out: queue.SimpleQueue[Frame | str] = queue.SimpleQueue()
        self._attach()
        # It may be listening before it is ready, and then ends the stream at once.
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self.receive(_RETRY_S)
            except queue.Empty:
                return
            except SwitchGone:
                if time.monotonic() > deadline or self._child.process.poll() is not None:
                    raise
                time.sleep(_PAUSE_S)
                self._attach()

    def _attach(self) -> None:
        """Open the stream of frames."""
        self._frames.put(None)
        self._frames = _Feed()
        call = self._open_stream(iter(self._frames))

        def receive() -> None:
            try:
                for message in call:
                    self._out.put((message.port, message.packet))
                self._out.put("the stream of frames has ended")
            except grpc.RpcError:
                self._out.put(f"the stream of frames has ended: {call.code()}: {call.details()}")

        threading.Thread(target=receive, name="bmv2 frames", daemon=True).start()

    def close(self) -> None:
        """End the process and the streams."""
        for close in reversed(self._closing):
            close()
        self._closing.clear()
        self._child.end()

    def capabilities(self) -> str:
        """The P4Runtime version that it reports."""
        answer = self._stub.Capabilities(p4r.CapabilitiesRequest(), timeout=LIMIT_S)
        return str(answer.p4runtime_api_version)

    # --- tables

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Do these in order; for each, whether it was accepted."""
        if not writes:
            return []
        request = p4r.WriteRequest(device_id=DEVICE)
        request.election_id.low = 1
        for write in writes:
            update = self.schema.update(write)
            if isinstance(write, Group):
                if write.number in self._groups:
                    update.type = p4r.Update.MODIFY
                self._groups.add(write.number)
            request.updates.append(update)
        try:
            self._stub.Write(request, timeout=LIMIT_S)
        except grpc.RpcError as error:
            return self._accepted(error, len(writes))
        return [True] * len(writes)

    def _accepted(self, error: Any, count: int) -> list[bool]:
        trailers = dict(error.trailing_metadata() or ())
        if error.code() is not grpc.StatusCode.UNKNOWN or not trailers:
            raise SwitchGone(lines.WRITE_FAILED.of(binary=BINARY, why=error.details())) from error
        status = rpc_status.Status.FromString(trailers["grpc-status-details-bin"])
        accepted = []
        for packed in status.details:
            each = p4r.Error()
            packed.Unpack(each)
            accepted.append(each.canonical_code == rpc_code.OK)
        if len(accepted) != count:
            raise SwitchGone(lines.WRITE_FAILED.of(binary=BINARY, why=status.message)) from error
        return accepted

    # --- frames

    def ready(self, probes: Sequence[Probe]) -> None:
        """Wait until frames get through; counters count from here on.

        BMv2 silently loses frames that come before it reads the stream.
        """
        self._probes = probes
        deadline = time.monotonic() + LIMIT_S
        while True:
            self._ask()
            try:
                self._answers(_RETRY_S)
                break
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise SwitchGone(lines.NO_PROBE.of(binary=BINARY)) from None
        self._baseline = self.counters()
        self._direct_baseline = self.direct_counters()

    def _ask(self) -> None:
        self._number += 1
        self.send([probe.frame(self._number) for probe in self._probes])

    def _answers(self, limit_s: float) -> Leaving:
        """What came out until every probe of the last question was back."""
        left: Leaving = {}
        waiting = len(self._probes)
        while waiting:
            port, data = self.receive(limit_s)
            number = probe_number(data)
            if number is None:
                left.setdefault(port, []).append(data)
            elif number == self._number:
                waiting -= 1
        return left

    def send(self, frames: Sequence[Frame]) -> None:
        """Feed frames; their copies must fit a queue of QUEUE_FRAMES per egress port."""
        for port, frame in frames:
            self._frames.put(self._request(id=1, device_id=DEVICE, port=port, packet=frame))

    def receive(self, limit_s: float) -> Frame:
        """The next frame that leaves. Raises queue.Empty where none does within the limit."""
        frame = self._out.get(timeout=limit_s)
        if isinstance(frame, str):
            raise self._gone(frame)
        return frame

    def _gone(self, why: str) -> SwitchGone:
        """Why it is gone. Where the process ends, its streams end a moment before."""
        if self._probes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.process.wait(_END_S)
        if self._child.process.poll() is not None:
            return SwitchGone(self._child.obituary())
        return SwitchGone(lines.BMV2_GONE.of(binary=BINARY, why=why, said=self._child.said()))

    def collect(self) -> Leaving:
        """What left because of the frames sent, once all of it has."""
        self._ask()
        try:
            return self._answers(LIMIT_S)
        except queue.Empty:
            raise self._gone(f"no probe comes back within {LIMIT_S:g} s") from None

    # --- counters

    def _read(self, entity: p4r.Entity) -> list[p4r.Entity]:
        request = p4r.ReadRequest(device_id=DEVICE, entities=[entity])
        try:
            answers = self._stub.Read(request, timeout=LIMIT_S)
            return [each for answer in answers for each in answer.entities]
        except grpc.RpcError as error:
            raise SwitchGone(lines.READ_FAILED.of(binary=BINARY, why=error.details())) from error

    def counters(self) -> dict[tuple[str, int], Count]:
        """Every cell of every indirect counter that is not zero."""
        found = {}
        for name, number in self.schema.counters.items():
            octets = self.schema.counts_bytes[name]
            entity = p4r.Entity()
            entity.counter_entry.counter_id = number
            for each in self._read(entity):
                data = each.counter_entry.data
                if data.packet_count:
                    index = each.counter_entry.index.index
                    now = Count(data.packet_count, data.byte_count if octets else 0)
                    since = _since(now, self._baseline.get((name, index)))
                    if since.packets:
                        found[name, index] = since
        return found

    def cell(self, name: str, index: int) -> Count:
        """One cell of an indirect counter, since the program was loaded."""
        entity = p4r.Entity()
        entity.counter_entry.counter_id = self.schema.counters[name]
        entity.counter_entry.index.index = index
        (found,) = self._read(entity)
        data = found.counter_entry.data
        return Count(data.packet_count, data.byte_count)

    def direct_counters(self) -> dict[EntryKey, Count]:
        """The direct counter of every entry of tables that have one."""
        found = {}
        for name in self.schema.direct_tables:
            octets = self.schema.counts_bytes[name]
            entity = p4r.Entity()
            entity.direct_counter_entry.table_entry.table_id = self.schema.table(name).preamble.id
            for each in self._read(entity):
                entry = each.direct_counter_entry
                key = self.schema.key(entry.table_entry)
                now = Count(entry.data.packet_count, entry.data.byte_count if octets else 0)
                found[key] = _since(now, self._direct_baseline.get(key))
        return found


def _since(now: Count, then: Count | None) -> Count:
    return now if then is None else Count(now.packets - then.packets, now.bytes - then.bytes)
