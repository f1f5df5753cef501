"""BMv2's simple_switch_grpc as a switch under test, over Unix sockets: no root, no interfaces.

Frames travel through its gRPC dataplane service, whose two messages are declared here.
"""

import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from finsy.proto import p4i, p4r, p4r_grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from support.frames import SWITCH_IP, SWITCH_MAC, ethernet, ipv4
from wiresum.p4 import Program

BINARY = "simple_switch_grpc"
DEVICE = 3
PROBE_PORTS = (1, 2, 3, 4)  # one for each of its egress threads, which are chosen by port
PROBE_SOURCE = b"\x0a\xff\0\1"
LIMIT_S = 20.0


def available() -> bool:
    """Whether BMv2 is on PATH."""
    return shutil.which(BINARY) is not None


def _dataplane_messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="wiresum_test_dataplane.proto", package="p4.bm", syntax="proto3"
    )
    number = descriptor_pb2.FieldDescriptorProto
    for name in ("PacketStreamRequest", "PacketStreamResponse"):
        message = file.message_type.add(name=name)
        kinds = (number.TYPE_UINT64, number.TYPE_UINT64, number.TYPE_UINT32, number.TYPE_BYTES)
        for index, (field, kind) in enumerate(
            zip(("id", "device_id", "port", "packet"), kinds, strict=True), start=1
        ):
            message.field.add(name=field, number=index, type=kind, label=number.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return tuple(  # type: ignore[return-value]
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p4.bm.{name}"))
        for name in ("PacketStreamRequest", "PacketStreamResponse")
    )


class _Feed:
    """A request stream that stays open until closed."""

    def __init__(self) -> None:
        self._items: queue.Queue[Any] = queue.Queue()

    def put(self, item: Any) -> None:
        self._items.put(item)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.get, None)


class Bmv2:
    """One simple_switch_grpc process running ``program``; close it when done."""

    def __init__(self, program: Program, directory: Path) -> None:
        self.lanes = program.lanes
        self._info = text_format.Parse(program.p4info.read_text(), p4i.P4Info())
        control, data = directory / "p4rt.sock", directory / "dp.sock"
        self._log = (directory / "bmv2.log").open("wb")
        self._process = subprocess.Popen(
            [
                BINARY, "--no-p4", "--device-id", str(DEVICE), "--",
                "--grpc-server-addr", f"unix:{control}", "--dp-grpc-server-addr", f"unix:{data}",
            ],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + LIMIT_S
            while not (control.exists() and data.exists()):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{BINARY} did not start; see {directory}/bmv2.log")
                time.sleep(0.01)
            self._start(f"unix:{control}", f"unix:{data}", program)
        except BaseException:
            self.close()
            raise

    def _start(self, control: str, data: str, program: Program) -> None:
        options = [("grpc.max_send_message_length", 64 << 20)]
        self._control = grpc.insecure_channel(control, options=options)
        self._stub = p4r_grpc.P4RuntimeStub(self._control)
        self._arbitration = _Feed()
        stream = self._stub.StreamChannel(iter(self._arbitration))
        request = p4r.StreamMessageRequest()
        request.arbitration.device_id = DEVICE
        request.arbitration.election_id.low = 1
        self._arbitration.put(request)
        next(stream)
        self._stream = stream
        pipeline = p4r.SetForwardingPipelineConfigRequest(
            device_id=DEVICE, action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT
        )
        pipeline.election_id.low = 1
        pipeline.config.p4info.CopyFrom(self._info)
        pipeline.config.p4_device_config = program.json.read_bytes()
        self._stub.SetForwardingPipelineConfig(pipeline, timeout=LIMIT_S)

        self._request, response = _dataplane_messages()
        self._data = grpc.insecure_channel(data)
        self._frames = _Feed()
        call = self._data.stream_stream(
            "/p4.bm.DataplaneInterface/PacketStream",
            request_serializer=self._request.SerializeToString,
            response_deserializer=response.FromString,
        )(iter(self._frames))
        self._call = call
        self._out: queue.Queue[tuple[int, bytes]] = queue.Queue()
        threading.Thread(target=self._receive, daemon=True).start()
        self._probe_number = 0
        self._attached = False

    def _receive(self) -> None:
        try:
            for message in self._call:
                self._out.put((message.port, message.packet))
        except grpc.RpcError:
            pass  # closed

    def close(self) -> None:
        """End the process and the streams."""
        if hasattr(self, "_frames"):
            self._frames.put(None)
        if hasattr(self, "_arbitration"):
            self._arbitration.put(None)
        self._process.terminate()
        try:
            self._process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for name in ("_control", "_data"):
            if hasattr(self, name):
                getattr(self, name).close()
        self._log.close()

    def _write(self, kind: int, fill: Any) -> None:
        request = p4r.WriteRequest(device_id=DEVICE)
        request.election_id.low = 1
        update = request.updates.add(type=kind)
        fill(update.entity)
        self._stub.Write(request, timeout=LIMIT_S)

    def _entry(self, entity: Any, table: str, match: dict[str, int]) -> Any:
        info = next(t for t in self._info.tables if t.preamble.name == table)
        entry = entity.table_entry
        entry.table_id = info.preamble.id
        for field in info.match_fields:
            value = match[field.name]
            item = entry.match.add(field_id=field.id)
            item.exact.value = value.to_bytes(max(1, (value.bit_length() + 7) // 8))
        return entry

    def insert(
        self, table: str, match: dict[str, int], action: str, params: dict[str, int]
    ) -> None:
        """Add an exact-match entry."""

        def fill(entity: Any) -> None:
            entry = self._entry(entity, table, match)
            info = next(a for a in self._info.actions if a.preamble.name == action)
            entry.action.action.action_id = info.preamble.id
            for param in info.params:
                value = params[param.name]
                entry.action.action.params.add(
                    param_id=param.id, value=value.to_bytes(max(1, (value.bit_length() + 7) // 8))
                )

        self._write(p4r.Update.INSERT, fill)

    def remove(self, table: str, match: dict[str, int]) -> None:
        """Remove an entry."""
        self._write(p4r.Update.DELETE, lambda entity: self._entry(entity, table, match))

    def group(self, number: int, replicas: list[tuple[int, int]]) -> None:
        """Set a multicast group."""

        def fill(entity: Any) -> None:
            group = entity.packet_replication_engine_entry.multicast_group_entry
            group.multicast_group_id = number
            for port, instance in replicas:
                group.replicas.add(egress_port=port, instance=instance)

        try:
            self._write(p4r.Update.INSERT, fill)
        except grpc.RpcError:
            self._write(p4r.Update.MODIFY, fill)

    def inject(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Feed one frame, then ping the switch through every egress thread.

        Ingress is one thread in order and so is each egress thread: when every ping is answered,
        whatever the frame caused has left before. Needs the switch's address in its tables.
        """
        if not self._attached:
            self._attach()
        self._send(port, frame)
        return self._ping(LIMIT_S)

    def _attach(self) -> None:
        # Frames that come before BMv2 has taken up the stream are lost without a word.
        deadline = time.monotonic() + LIMIT_S
        while not self._attached:
            try:
                self._ping(0.2)
                self._attached = True
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise

    def _send(self, port: int, frame: bytes) -> None:
        self._frames.put(self._request(id=1, device_id=DEVICE, port=port, packet=frame))

    def _ping(self, limit_s: float) -> list[tuple[int, bytes]]:
        """Ping through every egress thread; what else came out until all were answered."""
        self._probe_number += 1
        tag = self._probe_number.to_bytes(8)
        probe = ethernet(
            SWITCH_MAC, b"\x02\xff\0\0\0\1", 0x0800,
            ipv4(PROBE_SOURCE, SWITCH_IP, 1, bytes([8, 0, 0, 0]) + tag),
        )  # fmt: skip
        for port in PROBE_PORTS:
            self._send(port, probe)
        waiting = set(PROBE_PORTS)
        found: list[tuple[int, bytes]] = []
        while waiting:
            port, data = self._out.get(timeout=limit_s)
            if data[30:34] != PROBE_SOURCE:
                found.append((port, data))
            elif data.endswith(tag):
                waiting.remove(port)
        return found

    def counter(self, name: str, index: int) -> int:
        """Packets counted."""
        info = next(c for c in self._info.counters if c.preamble.name == name)
        request = p4r.ReadRequest(device_id=DEVICE)
        entry = request.entities.add().counter_entry
        entry.counter_id = info.preamble.id
        entry.index.index = index
        for response in self._stub.Read(request, timeout=LIMIT_S):
            for entity in response.entities:
                return int(entity.counter_entry.data.packet_count)
        raise AssertionError(f"no counter {name}[{index}]")
