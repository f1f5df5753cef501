"""A P4Runtime controller of a few lines over raw gRPC stubs."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from finsy.proto import p4i, p4r, p4r_grpc, rpc_status
from google.protobuf import text_format

DEADLINE_S = 20

INSERT, MODIFY, DELETE = p4r.Update.INSERT, p4r.Update.MODIFY, p4r.Update.DELETE
SetConfig = p4r.SetForwardingPipelineConfigRequest


def load_config(
    json: Path, p4info: Path, cookie: int | None = None
) -> p4r.ForwardingPipelineConfig:
    config = p4r.ForwardingPipelineConfig(p4_device_config=json.read_bytes())
    text_format.Parse(p4info.read_text(), config.p4info)
    if cookie is not None:
        config.cookie.cookie = cookie
    return config


def uint128(value: int) -> p4r.Uint128:
    return p4r.Uint128(high=value >> 64, low=value & (1 << 64) - 1)


def update_errors(error: grpc.RpcError) -> list[p4r.Error]:
    """The p4.v1.Error of every update of a failed batch."""
    trailers = dict(error.trailing_metadata())
    status = rpc_status.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    errors = []
    for packed in status.details:
        errors.append(p4r.Error())
        assert packed.Unpack(errors[-1])
    return errors


class Names:
    """P4Info's ids by name."""

    def __init__(self, p4info: p4i.P4Info) -> None:
        self.tables = {t.preamble.name: t.preamble.id for t in p4info.tables}
        self.actions = {a.preamble.name: a.preamble.id for a in p4info.actions}
        self.counters = {c.preamble.name: c.preamble.id for c in p4info.counters}
        self.registers = {r.preamble.name: r.preamble.id for r in p4info.registers}

    def entry(
        self, table: str, action: str | None = None, *args: int, match: Any = (), priority: int = 0
    ) -> p4r.TableEntry:
        """``match``: FieldMatch messages in any order."""
        entry = p4r.TableEntry(table_id=self.tables[table], match=match, priority=priority)
        if action is not None:
            entry.action.CopyFrom(self.action(action, *args))
        return entry

    def action(self, name: str, *args: int) -> p4r.TableAction:
        action = p4r.TableAction()
        action.action.action_id = self.actions[name]
        for number, value in enumerate(args, 1):
            data = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
            action.action.params.add(param_id=number, value=data)
        return action


def exact(field: int, value: bytes) -> p4r.FieldMatch:
    return p4r.FieldMatch(field_id=field, exact=p4r.FieldMatch.Exact(value=value))


def lpm(field: int, value: bytes, length: int) -> p4r.FieldMatch:
    return p4r.FieldMatch(field_id=field, lpm=p4r.FieldMatch.LPM(value=value, prefix_len=length))


def ternary(field: int, value: bytes, mask: bytes) -> p4r.FieldMatch:
    return p4r.FieldMatch(field_id=field, ternary=p4r.FieldMatch.Ternary(value=value, mask=mask))


def range_(field: int, low: bytes, high: bytes) -> p4r.FieldMatch:
    return p4r.FieldMatch(field_id=field, range=p4r.FieldMatch.Range(low=low, high=high))


def optional(field: int, value: bytes) -> p4r.FieldMatch:
    return p4r.FieldMatch(field_id=field, optional=p4r.FieldMatch.Optional(value=value))


class Client:
    """One controller; ``election_id`` None: it opens no stream."""

    def __init__(self, address: str, election_id: int | None = None, device_id: int = 0) -> None:
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_metadata_size", 1 << 20),
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self.stub = p4r_grpc.P4RuntimeStub(self.channel)
        self.device_id = device_id
        self.election_id = election_id
        self._requests: queue.Queue[p4r.StreamMessageRequest | None] = queue.Queue()
        self._stream: Any = None
        if election_id is not None:
            self.arbitrate(election_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._requests.put(None)
        self.channel.close()

    # -- the stream

    def _outgoing(self) -> Iterator[p4r.StreamMessageRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def send(self, request: p4r.StreamMessageRequest) -> None:
        self._requests.put(request)
        if self._stream is None:
            self._stream = self.stub.StreamChannel(self._outgoing(), timeout=DEADLINE_S)

    def receive(self) -> p4r.StreamMessageResponse:
        """The next message; the stream's deadline ends the wait."""
        return next(self._stream)

    def arbitrate(self, election_id: int | None, **fields: Any) -> None:
        self.election_id = election_id
        update = p4r.MasterArbitrationUpdate(device_id=self.device_id, **fields)
        if election_id is not None:
            update.election_id.CopyFrom(uint128(election_id))
        self.send(p4r.StreamMessageRequest(arbitration=update))

    def standing(self) -> tuple[int, int]:
        """The next arbitration notice: (status code, the primary's election id)."""
        notice = self.receive().arbitration
        return notice.status.code, notice.election_id.high << 64 | notice.election_id.low

    def end(self) -> grpc.RpcError:
        """The error that the stream ends with."""
        try:
            while True:
                self.receive()
        except grpc.RpcError as error:
            return error

    # -- unary

    def _claim(self, request: Any) -> Any:
        request.device_id = self.device_id
        if self.election_id is not None:
            request.election_id.CopyFrom(uint128(self.election_id))
        return request

    def set_config(
        self,
        config: p4r.ForwardingPipelineConfig | None,
        action: Any = SetConfig.VERIFY_AND_COMMIT,
    ) -> None:
        request = self._claim(SetConfig(action=action))
        if config is not None:
            request.config.CopyFrom(config)
        self.stub.SetForwardingPipelineConfig(request, timeout=DEADLINE_S * 4)

    def get_config(self, what: Any = 0) -> p4r.ForwardingPipelineConfig:
        request = p4r.GetForwardingPipelineConfigRequest(
            device_id=self.device_id, response_type=what
        )
        return self.stub.GetForwardingPipelineConfig(request, timeout=DEADLINE_S).config

    def write_all(self, *updates: p4r.Update, **fields: Any) -> None:
        request = self._claim(p4r.WriteRequest(updates=updates, **fields))
        self.stub.Write(request, timeout=DEADLINE_S)

    def write(self, kind: Any, **entity: Any) -> None:
        self.write_all(p4r.Update(type=kind, entity=p4r.Entity(**entity)))

    def write_error(self, kind: Any, **entity: Any) -> p4r.Error:
        """The error of a write of one update that must fail."""
        with pytest.raises(grpc.RpcError) as failed:
            self.write(kind, **entity)
        assert failed.value.code() is grpc.StatusCode.UNKNOWN
        (only,) = update_errors(failed.value)
        return only

    def read(self, *entities: p4r.Entity) -> list[p4r.Entity]:
        request = p4r.ReadRequest(device_id=self.device_id, entities=entities)
        answers = self.stub.Read(request, timeout=DEADLINE_S)
        return [entity for answer in answers for entity in answer.entities]

    def read_tables(self, **fields: Any) -> list[p4r.TableEntry]:
        entity = p4r.Entity(table_entry=p4r.TableEntry(**fields))
        return [found.table_entry for found in self.read(entity)]
