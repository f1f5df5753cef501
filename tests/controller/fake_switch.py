"""A P4Runtime server that stores what it is told and forwards nothing.

It is as strict as the specification where that matters to a controller (arbitration, unknown
ids, duplicate and missing entries, no pipeline) and it watches two invariants of its own at
every single write: no two jobs may ever share a slot, and an entry of ``membership`` may only
be there while its multicast group and its ``deliver`` entry are.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc
from finsy import P4Schema
from finsy.proto import U128, p4r, p4r_grpc, rpc_code, rpc_status

_OPTIONS = [
    ("grpc.so_reuseport", 0),
    # The passes of most tests are too rare for a server that counts pings as gRPC does by default.
    ("grpc.http2.max_ping_strikes", 0),
]
_Stream = asyncio.Queue[p4r.StreamMessageResponse | None]


@dataclass
class Memory:
    """What a switch loses when it restarts."""

    schema: P4Schema | None = None
    config: p4r.ForwardingPipelineConfig | None = None
    entries: dict[bytes, p4r.TableEntry] = field(default_factory=dict)
    groups: dict[int, p4r.MulticastGroupEntry] = field(default_factory=dict)
    counters: dict[tuple[int, int], int] = field(default_factory=dict)


class FakeSwitch(p4r_grpc.P4RuntimeServicer):
    """One switch; ``start``, ``kill`` and ``start`` again at the same ``address``."""

    def __init__(self, address: str, device_id: int = 0) -> None:
        self.address = address
        self.device_id = device_id
        self.memory = Memory()
        self.pushes = 0
        self.log: list[str] = []
        """Every update, in order, such as ``"INSERT membership"``."""
        self.obeyed: list[int] = []
        """The election id of every write that was carried out."""
        self.broken: list[str] = []
        """The invariants that were violated."""
        self.refuse_writes = False
        self.patience = 1 << 30
        """How many more requests are answered; then it freezes."""
        self.freeze = asyncio.Event()
        self.freeze.set()
        self._streams: dict[int, _Stream] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)
        p4r_grpc.add_P4RuntimeServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(self.address)
        await self._server.start()

    async def kill(self, *, keep_memory: bool = False) -> None:
        assert self._server is not None
        await self._server.stop(None)
        self._server = None
        self._streams.clear()
        if not keep_memory:
            self.memory = Memory()

    # ---- for tests

    @property
    def running(self) -> bool:
        return self._server is not None

    def table(self, name: str) -> list[dict[str, int]]:
        """Entries of a table: match fields and parameters by name."""
        schema = self.memory.schema
        assert schema is not None
        table = schema.tables[name]
        rows = []
        for entry in self.memory.entries.values():
            if entry.table_id == table.id:
                action = schema.actions[entry.action.action.action_id]
                row = {
                    table.match_fields[match.field_id].alias: _int(match.exact.value)
                    for match in entry.match
                }
                row |= {
                    action.params[param.param_id].name: _int(param.value)
                    for param in entry.action.action.params
                }
                rows.append(row)
        return rows

    def count(self, counter: str, index: int, value: int) -> None:
        """Set one cell of an indirect counter."""
        assert self.memory.schema is not None
        self.memory.counters[self.memory.schema.counters[counter].id, index] = value

    def hang_up(self) -> None:
        """End the streams; requests that are being answered stay so."""
        for queue in self._streams.values():
            queue.put_nowait(None)

    # ---- P4Runtime

    async def Capabilities(self, request: Any, context: Any) -> p4r.CapabilitiesResponse:
        return p4r.CapabilitiesResponse(p4runtime_api_version="1.3.0")

    async def StreamChannel(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        queue: _Stream = asyncio.Queue()
        mine: list[int] = []

        async def listen() -> None:
            async for request in requests:
                update = request.arbitration
                election = U128.decode(update.election_id)
                if election in self._streams:
                    await context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT, "Election id already exists"
                    )
                for old in mine:
                    self._streams.pop(old, None)
                mine[:] = [election]
                self._streams[election] = queue
                self._announce()

        listener = asyncio.create_task(listen())
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            listener.cancel()
            for election in mine:
                self._streams.pop(election, None)
            self._announce()

    def _announce(self) -> None:
        primary = max(self._streams, default=0)
        for election, queue in self._streams.items():
            code = rpc_code.OK if election == primary else rpc_code.ALREADY_EXISTS
            queue.put_nowait(
                p4r.StreamMessageResponse(
                    arbitration=p4r.MasterArbitrationUpdate(
                        device_id=self.device_id,
                        election_id=U128.encode(primary),
                        status=rpc_status.Status(code=code),
                    )
                )
            )

    async def SetForwardingPipelineConfig(
        self, request: p4r.SetForwardingPipelineConfigRequest, context: Any
    ) -> p4r.SetForwardingPipelineConfigResponse:
        await self._check(request, context, write=True)
        schema = P4Schema(request.config.p4info, bytes(request.config.p4_device_config))
        self.memory = Memory(schema=schema, config=request.config)
        self.pushes += 1
        return p4r.SetForwardingPipelineConfigResponse()

    async def GetForwardingPipelineConfig(
        self, request: Any, context: Any
    ) -> p4r.GetForwardingPipelineConfigResponse:
        await self._check(request, context)
        config = self.memory.config
        if config is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "No forwarding pipeline config set for this device",
            )
        assert config is not None
        reply = p4r.ForwardingPipelineConfig(p4info=config.p4info, cookie=config.cookie)
        return p4r.GetForwardingPipelineConfigResponse(config=reply)

    async def Write(self, request: p4r.WriteRequest, context: Any) -> p4r.WriteResponse:
        await self._check(request, context, write=True)
        if self.refuse_writes:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of\nTCAM")
        self.obeyed.append(U128.decode(request.election_id))
        errors = [self._update(update) for update in request.updates]
        self._watch()
        if any(errors):
            status = rpc_status.Status(code=rpc_code.UNKNOWN, message="write failed")
            for code in errors:
                status.details.add().Pack(p4r.Error(canonical_code=code, message=str(code)))
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
            await context.abort(grpc.StatusCode.UNKNOWN, "write failed")
        return p4r.WriteResponse()

    async def Read(self, request: p4r.ReadRequest, context: Any) -> AsyncIterator[Any]:
        await self._check(request, context)
        reply = p4r.ReadResponse()
        for entity in request.entities:
            kind = entity.WhichOneof("entity")
            if kind == "table_entry":
                for entry in self.memory.entries.values():
                    if entry.table_id == entity.table_entry.table_id:
                        reply.entities.add(table_entry=entry)
            elif kind == "packet_replication_engine_entry":
                for group in self.memory.groups.values():
                    reply.entities.add(
                        packet_replication_engine_entry=p4r.PacketReplicationEngineEntry(
                            multicast_group_entry=group
                        )
                    )
            elif kind == "counter_entry":
                asked = entity.counter_entry
                cell = (asked.counter_id, asked.index.index)
                added = reply.entities.add(counter_entry=asked)
                added.counter_entry.data.packet_count = self.memory.counters.get(cell, 0)
        yield reply

    # ----

    async def _check(self, request: Any, context: Any, *, write: bool = False) -> None:
        self.patience -= 1
        if self.patience < 0:
            self.freeze.clear()
        await self.freeze.wait()
        if request.device_id != self.device_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no device {request.device_id}")
        if write and U128.decode(request.election_id) != max(self._streams, default=0):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not primary")

    def _update(self, update: p4r.Update) -> int:
        kind = p4r.Update.Type.Name(update.type)
        entity = update.entity
        match entity.WhichOneof("entity"):
            case "table_entry":
                entry = entity.table_entry
                assert self.memory.schema is not None
                self.log.append(f"{kind} {self.memory.schema.tables[entry.table_id].alias}")
                key = p4r.TableEntry(
                    table_id=entry.table_id, match=sorted(entry.match, key=lambda m: m.field_id)
                ).SerializeToString(deterministic=True)
                return _store(self.memory.entries, kind, key, entry)
            case "packet_replication_engine_entry":
                group = entity.packet_replication_engine_entry.multicast_group_entry
                self.log.append(f"{kind} group")
                return _store(self.memory.groups, kind, group.multicast_group_id, group)
            case "counter_entry":
                self.log.append(f"{kind} counter")
                cell = (entity.counter_entry.counter_id, entity.counter_entry.index.index)
                self.memory.counters[cell] = entity.counter_entry.data.packet_count
                return rpc_code.OK
            case other:
                raise AssertionError(f"unexpected {other}")

    def _watch(self) -> None:
        members = self.table("membership")
        deliver = {(row["job"], row["worker"]): row for row in self.table("deliver")}
        for row in members:
            group = self.memory.groups.get(row["group"])
            instances = {replica.instance for replica in group.replicas} if group else set()
            if row["worker"] + 1 not in instances:
                self.broken.append(f"member without its group: {row}")
            to = deliver.get((row["job"], row["worker"]))
            if to is None or (to["ip"], to["udp_port"]) != (row["ip"], row["udp_port"]):
                self.broken.append(f"member whose replies go elsewhere: {row}")
        leases = sorted({(row["slot_base"], row["slot_count"], row["job"]) for row in members})
        for (base, count, job), (next_base, _, other) in pairwise(leases):
            if next_base < base + count:
                self.broken.append(f"jobs {job} and {other} share slots")
        if len({(row["job"], row["epoch"]) for row in members}) > len(leases):
            self.broken.append(f"two epochs of a job at once: {members}")


def _store(entries: dict[Any, Any], kind: str, key: Any, value: Any) -> int:
    if kind == "INSERT" and key in entries:
        return rpc_code.ALREADY_EXISTS
    if kind != "INSERT" and key not in entries:
        return rpc_code.NOT_FOUND
    if kind == "DELETE":
        del entries[key]
    else:
        copy = type(value)()
        copy.CopyFrom(value)
        entries[key] = copy
    return rpc_code.OK


def _int(value: bytes) -> int:
    return int.from_bytes(value, "big")
