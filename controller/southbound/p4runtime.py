"""One connected switch, spoken to over P4Runtime through finsy.

The only module that knows P4Runtime. It has no state of its own and decides nothing: what to
write is the reconcile loop's business.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import finsy
import finsy.p4client
from finsy import P4Client, P4ClientError, P4Schema
from finsy.grpcutil import GRPCOptions
from finsy.p4entity import P4Entity, P4Replica
from finsy.proto import U128, p4r

from wiresum.controller import lines
from wiresum.controller.errors import StoreFailed
from wiresum.controller.patience import Limiting
from wiresum.controller.southbound.apart import GoneError, apart
from wiresum.controller.southbound.desired import TABLES, Action, Fields, Key, Replica, Tables
from wiresum.controller.southbound.reconcile import Batch
from wiresum.controller.southbound.switch_tls import HTTPS, SwitchTls, target
from wiresum.controller.state.model import Switch
from wiresum.p4 import Program, packet

log = logging.getLogger(__name__)

# finsy reports every lost connection with a traceback; the reconcile loop says the same thing
# in one line, and where it can be asked for.
logging.getLogger("finsy").setLevel(logging.CRITICAL + 1)

_KEEPALIVE: list[tuple[str, int | str]] = [
    # A switch that has died silently is noticed within 15 s. No more pings in a row than gRPC sends
    # by default: BMv2's server closes the connection after more, and each pass resets the count.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
]


class _Options(GRPCOptions):
    """finsy's options of a channel, and those that it has no names for."""

    def to_native(self) -> list[tuple[str, int | str]]:
        return [*super().to_native(), *_KEEPALIVE]


# finsy makes the options of its channels itself, and has no way to add to them.
finsy.p4client.GRPCOptions = _Options  # type: ignore[attr-defined]

# A request must stay below gRPC's limit of 4 MiB for what a server receives.
_BATCH = 500
_MAX_PROGRAM_BYTES = 4 * 1024 * 1024 - 4096


_Entity = TypeVar("_Entity", bound=P4Entity)


ELECTION_ID = 10
"""Of a controller that is the only one of its store."""

ELECTION_STEP = 16
"""Between the ids of one leadership and the next: finsy counts down from an id that is in use."""


class SouthboundError(Exception):
    """A switch that cannot be driven; the message is one line."""


class SwitchConnection:
    """A connected switch that runs the right program and obeys us."""

    def __init__(
        self, finsy_switch: finsy.Switch, may_write: Callable[[], object] = lambda: None
    ) -> None:
        """``may_write`` raises if this controller must not write now."""
        self._switch = finsy_switch
        self._may_write = may_write
        self.down = asyncio.Event()
        """Set when the connection is lost, or another controller takes over."""

    # ---- tables

    async def read(self) -> Tables:
        """All entries of the controller's tables, and all multicast groups."""
        entries: dict[Key, Action] = {}
        for table in TABLES:
            async for entry in self._read([finsy.P4TableEntry(table)]):
                if entry.is_default_action or entry.is_const:
                    continue
                entries[Key(table, _fields(entry.match or {}))] = _action(entry)
        groups: dict[int, frozenset[Replica]] = {}
        async for group in self._read([finsy.P4MulticastGroupEntry()]):
            replicas = (
                Replica(replica, 0)
                if isinstance(replica, int)
                else Replica(replica.port, replica.instance)
                for replica in group.replicas
                if isinstance(replica, int | P4Replica)
            )
            groups[group.multicast_group_id] = frozenset(replicas)
        return Tables(entries, groups)

    def _read(self, entities: Sequence[_Entity]) -> AsyncIterator[_Entity]:
        # finsy declares its overloads as coroutines; they are asynchronous generators.
        return cast("AsyncIterator[_Entity]", self._switch.read(entities))

    async def write(self, batch: Batch) -> None:
        """Carry out a batch, in as many requests as it takes."""
        updates = [
            *(-_entry(key, None) for key in batch.delete),
            *(-finsy.P4MulticastGroupEntry(group) for group in batch.delete_groups),
            *(+_entry(key, action) for key, action in batch.insert),
            *(~_entry(key, action) for key, action in batch.modify),
            *(+_group(group, replicas) for group, replicas in batch.insert_groups),
            *(~_group(group, replicas) for group, replicas in batch.modify_groups),
        ]
        await self._write(updates)

    async def _write(self, updates: Sequence[Any]) -> None:
        for start in range(0, len(updates), _BATCH):
            # Between two requests another may have taken over. finsy, told so, would go on with
            # the other's election id as soon as that one is gone.
            if self.down.is_set():
                raise GoneError(lines.SWITCH_LOST.of(address=self._switch.address))
            self._may_write()
            await self._switch.write(updates[start : start + _BATCH])

    # ---- counters

    async def reset_job_counters(self, numbers: Sequence[int]) -> None:
        """Set the events of these job numbers to zero."""
        zero = finsy.P4CounterData(packet_count=0, byte_count=0)
        updates = [
            finsy.P4CounterEntry("events", index=index, data=zero)
            for number in numbers
            for index in _indices(number)
        ]
        await self._write(updates)

    async def read_events(self, numbers: Iterable[int]) -> dict[int, dict[str, int]]:
        """For each job number, how often each event happened; names in lower case."""
        wanted = [index for number in numbers for index in _indices(number)]
        counts = await self._read_counter("events", wanted)
        result: dict[int, dict[str, int]] = {}
        for index, count in counts.items():
            number, event = divmod(index, packet.EVENTS)
            result.setdefault(number, {})[packet.Event(event).name.lower()] = count
        return result

    async def read_drops(self) -> dict[str, int]:
        """How many packets were dropped for each reason; names in lower case."""
        counts = await self._read_counter("drops", [reason.value for reason in packet.DropReason])
        return {packet.DropReason(index).name.lower(): count for index, count in counts.items()}

    async def _read_counter(self, counter: str, indices: Sequence[int]) -> Mapping[int, int]:
        counts: dict[int, int] = {}
        for start in range(0, len(indices), _BATCH):
            entries = [
                finsy.P4CounterEntry(counter, index=index)
                for index in indices[start : start + _BATCH]
            ]
            async for entry in self._read(entries):
                if entry.index is not None:
                    counts[entry.index] = entry.packet_count
        missing = set(indices) - counts.keys()
        if missing:
            raise SouthboundError(lines.CELLS_MISSING.of(count=len(missing), counter=counter))
        return counts


@asynccontextmanager
async def connect(
    switch: Switch,
    program: Program,
    timeout_s: float,
    limit: Limiting = asyncio.timeout,
    tls: SwitchTls | None = None,
    election_id: int = ELECTION_ID,
    may_write: Callable[[], object] = lambda: None,
) -> AsyncIterator[SwitchConnection]:
    """Connect to ``switch``, become its controller and have it run ``program``.

    ``tls``: the files for a switch at ``https://…``; ``may_write`` is asked before every write, and
    raises if this controller must not write now.
    Raises what :func:`explain` explains; ``GoneError`` if it takes longer than ``timeout_s``.
    """
    schema = P4Schema(program.p4info, program.json)
    credentials = (tls or SwitchTls()).credentials(switch.p4runtime)
    finsy_switch = finsy.Switch(
        switch.name,
        target(switch.p4runtime),
        # Without a program finsy leaves the pipeline alone. We push it ourselves: a failure
        # inside finsy's own task would reach us as a cancellation without a reason.
        finsy.SwitchOptions(
            p4info=program.p4info,
            device_id=switch.device_id,
            initial_election_id=election_id,
            channel_credentials=credentials,
        ),
    )
    connection = SwitchConnection(finsy_switch, may_write)
    for event in (finsy.SwitchEvent.CHANNEL_DOWN, finsy.SwitchEvent.BECOME_BACKUP):
        finsy_switch.ee.on(event, lambda _switch: connection.down.set())

    async def enter() -> None:
        address = target(switch.p4runtime)
        async with P4Client(address, credentials, wait_for_ready=False) as client:
            # Asked first, because a switch that refuses this tells us why, and not only finsy.
            pipeline = await running(client, switch.device_id)
            await finsy_switch.__aenter__()
            try:
                if not finsy_switch.is_primary:
                    raise SouthboundError(
                        lines.ANOTHER_CONTROLLER.of(
                            address=switch.p4runtime, election_id=finsy_switch.primary_id
                        )
                    )
                if pipeline is None or not same_program(pipeline, schema):
                    may_write()
                    await push(client, finsy_switch.device_id, finsy_switch.election_id, schema)
                    log.info("switch %s: pushed program %s", switch.name, schema.version)
            except BaseException:
                await finsy_switch.__aexit__(None, None, None)
                raise

    await apart(
        enter(),
        limit_s=timeout_s,
        late=lines.SWITCH_SILENT.of(address=switch.p4runtime, limit_s=timeout_s),
        lost=lines.SWITCH_LOST_IN_SETUP.of(address=switch.p4runtime),
        limit=limit,
    )
    try:
        yield connection
    finally:
        await finsy_switch.__aexit__(None, None, None)


async def push(client: P4Client, device_id: int, election_id: int, schema: P4Schema) -> None:
    """Have the switch run a program; raises :class:`SouthboundError` or ``P4ClientError``."""
    if len(schema.p4blob) > _MAX_PROGRAM_BYTES:
        raise SouthboundError(lines.PROGRAM_TOO_LARGE.of(size=len(schema.p4blob)))
    await client.request(
        p4r.SetForwardingPipelineConfigRequest(
            device_id=device_id,
            election_id=U128.encode(election_id),
            action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
            config=schema.get_pipeline_config(),
        )
    )


async def running(client: P4Client, device_id: int) -> p4r.ForwardingPipelineConfig | None:
    """P4Info and cookie of the program that the switch runs; None without one."""
    try:
        reply = await client.request(
            p4r.GetForwardingPipelineConfigRequest(
                device_id=device_id,
                response_type=p4r.GetForwardingPipelineConfigRequest.P4INFO_AND_COOKIE,
            )
        )
    except P4ClientError as error:
        if error.is_pipeline_missing:
            return None
        raise
    return reply.config


def same_program(pipeline: p4r.ForwardingPipelineConfig, schema: P4Schema) -> bool:
    """Whether a switch runs just this program: to push it again would empty its memory."""
    same_version = pipeline.p4info.pkg_info.version == schema.version
    return same_version and pipeline.cookie.cookie == schema.p4cookie


def explain(error: BaseException, address: str) -> str:
    """Why the switch at ``address`` could not be driven, in one line."""
    if isinstance(error, P4ClientError):
        code = error.code.name
        if code == "UNAVAILABLE" and address.startswith(HTTPS):
            return lines.SWITCH_NOT_REACHED_WITH_TLS.of(address=address)
        if code == "UNAVAILABLE":
            return lines.SWITCH_NOT_REACHED.of(address=address)
        details = [
            detail.message or detail.canonical_code.name for detail in error.details.values()
        ]
        text = " ".join([error.message, *details[:3]])
        return lines.SWITCH_ANSWERED.of(address=address, code=code, message=" ".join(text.split()))
    if isinstance(error, SouthboundError | GoneError | StoreFailed):
        return str(error)
    if isinstance(error, AssertionError):
        # How finsy takes a request while its connection is being closed.
        return lines.SWITCH_LOST.of(address=address)
    text = " ".join(str(error).split())
    return lines.SWITCH_FAILED.of(address=address, error=type(error).__name__, why=text)


def _indices(number: int) -> range:
    return range(number * packet.EVENTS, (number + 1) * packet.EVENTS)


def _fields(values: Mapping[str, object]) -> Fields:
    """Values as finsy decodes them (addresses may be objects) in comparable form."""
    return tuple(sorted((name, _number(value)) for name, value in values.items()))


def _number(value: object) -> int:
    # A match that is not exact is never the controller's own: make it differ.
    return int(value) if hasattr(value, "__int__") else -1


def _action(entry: finsy.P4TableEntry) -> Action:
    if isinstance(entry.action, finsy.P4TableAction):
        return Action(entry.action.name, _fields(entry.action.args))
    return Action("", ())


def _entry(key: Key, action: Action | None) -> finsy.P4TableEntry:
    return finsy.P4TableEntry(
        key.table,
        match=finsy.P4TableMatch(dict(key.match)),
        action=finsy.P4TableAction(action.name, **dict(action.parameters)) if action else None,
    )


def _group(group: int, replicas: frozenset[Replica]) -> finsy.P4MulticastGroupEntry:
    return finsy.P4MulticastGroupEntry(
        group,
        replicas=[
            P4Replica(replica.port, instance=replica.instance) for replica in sorted(replicas)
        ],
    )
