"""A running program as a controller sees it: writes, reads, and the config it came from."""

from collections.abc import Iterator

from finsy.proto import p4r, rpc_code

from wiresum.softswitch.p4runtime.counters import CounterEntries
from wiresum.softswitch.p4runtime.dataplane import DataplaneControl, DataplaneError
from wiresum.softswitch.p4runtime.multicast import MulticastGroups
from wiresum.softswitch.p4runtime.schema import Schema
from wiresum.softswitch.p4runtime.status import (
    BatchError,
    P4RuntimeError,
    invalid,
    not_found,
    unimplemented,
)
from wiresum.softswitch.p4runtime.tables import TableEntries

_UNSUPPORTED = {
    "extern_entry": "externs are not supported",
    "action_profile_member": "action profiles are not supported",
    "action_profile_group": "action profiles are not supported",
    "meter_entry": "meters are not supported",
    "direct_meter_entry": "meters are not supported",
    "value_set_entry": "ValueSet reads and writes are not supported",
    "register_entry": "Register reads and writes are not supported",
    "digest_entry": "digests are not supported",
}


class Pipeline:
    """One program with everything that a controller has written into it."""

    def __init__(
        self,
        config: p4r.ForwardingPipelineConfig,
        schema: Schema,
        dataplane: DataplaneControl,
    ) -> None:
        """``dataplane`` runs the program that ``config`` carries; its tables are as declared."""
        self.config = config
        self.schema = schema
        self._tables = TableEntries(schema, dataplane)
        self._counters = CounterEntries(schema, dataplane)
        self._groups = MulticastGroups(dataplane)

    # -- Write ---------------------------------------------------------------------------------

    def write(self, request: p4r.WriteRequest) -> None:
        """Attempt every update, one after the other; raises :class:`BatchError` if any failed."""
        if request.atomicity != p4r.WriteRequest.CONTINUE_ON_ERROR:
            raise unimplemented("only the atomicity CONTINUE_ON_ERROR is supported")
        results = [self._write(update) for update in request.updates]
        if any(result is not None for result in results):
            raise BatchError(results)

    def _write(self, update: p4r.Update) -> P4RuntimeError | None:
        try:
            self._apply(update)
        except P4RuntimeError as error:
            return error
        except DataplaneError as error:
            return P4RuntimeError(error.code, str(error))
        return None

    def _apply(self, update: p4r.Update) -> None:
        entity = update.entity
        kind = entity.WhichOneof("entity")
        if kind == "table_entry":
            self._tables.write(update.type, entity.table_entry)
        elif kind == "counter_entry":
            self._counters.write(update.type, entity.counter_entry)
        elif kind == "direct_counter_entry":
            self._tables.write_direct_counter(update.type, entity.direct_counter_entry)
        elif kind == "packet_replication_engine_entry":
            engine = entity.packet_replication_engine_entry
            self._check_engine(engine)
            self._groups.write(update.type, engine.multicast_group_entry)
        else:
            raise self._unsupported(kind)

    # -- Read ----------------------------------------------------------------------------------

    def read(self, request: p4r.ReadRequest) -> Iterator[p4r.Entity]:
        """Yield the entities that the request selects; the first error ends it, as in BMv2."""
        for entity in request.entities:
            try:
                yield from self._read(entity)
            except DataplaneError as error:
                raise P4RuntimeError(error.code, str(error)) from error

    def _read(self, entity: p4r.Entity) -> Iterator[p4r.Entity]:
        kind = entity.WhichOneof("entity")
        if kind == "table_entry":
            for table_entry in self._tables.read(entity.table_entry):
                yield p4r.Entity(table_entry=table_entry)
        elif kind == "counter_entry":
            for counter_entry in self._counters.read(entity.counter_entry):
                yield p4r.Entity(counter_entry=counter_entry)
        elif kind == "direct_counter_entry":
            for direct in self._tables.read_direct_counters(entity.direct_counter_entry):
                yield p4r.Entity(direct_counter_entry=direct)
        elif kind == "packet_replication_engine_entry":
            engine = entity.packet_replication_engine_entry
            if engine.HasField("clone_session_entry"):
                if engine.clone_session_entry.session_id:
                    raise not_found("Clone session does not exist")
                return
            self._check_engine(engine)
            for group in self._groups.read(engine.multicast_group_entry):
                yield p4r.Entity(
                    packet_replication_engine_entry=p4r.PacketReplicationEngineEntry(
                        multicast_group_entry=group
                    )
                )
        elif not self._is_empty_wildcard(entity):
            raise self._unsupported(kind)

    def _is_empty_wildcard(self, entity: p4r.Entity) -> bool:
        """Whether a read asks for all of something that this program has none of.

        Controllers do that before they clear a switch; the answer is nothing, not an error.
        """
        kind = entity.WhichOneof("entity")
        if kind == "action_profile_member":
            return entity.action_profile_member.action_profile_id == 0
        if kind == "action_profile_group":
            return entity.action_profile_group.action_profile_id == 0
        if kind == "meter_entry":
            return entity.meter_entry.meter_id == 0 and not self.schema.meters
        return False

    def _check_engine(self, entry: p4r.PacketReplicationEngineEntry) -> None:
        kind = entry.WhichOneof("type")
        if kind == "clone_session_entry":
            raise unimplemented("clone sessions are not supported")
        if kind is None:
            raise invalid("the packet replication engine entry is empty")

    def _unsupported(self, kind: str | None) -> P4RuntimeError:
        if kind is None:
            return invalid("the entity is not set")
        return unimplemented(_UNSUPPORTED[kind])

    # -- pipeline changes ----------------------------------------------------------------------

    def snapshot(self) -> list[p4r.Entity]:
        """Return all that a controller has written, in an order in which it can be restored."""
        request = p4r.ReadRequest()
        request.entities.add().packet_replication_engine_entry.multicast_group_entry.SetInParent()
        request.entities.add().counter_entry.SetInParent()
        request.entities.add().table_entry.counter_data.SetInParent()
        entities = [
            entity
            for entity in self.read(request)
            if not (entity.HasField("table_entry") and entity.table_entry.is_const)
        ]
        entities += [p4r.Entity(table_entry=entry) for entry in self._tables.changed_defaults()]
        return entities

    def restore(self, entities: list[p4r.Entity]) -> None:
        """Write a snapshot of another program; raises where this one has no place for it."""
        for entity in entities:
            kind = p4r.Update.INSERT
            if entity.HasField("counter_entry") or entity.table_entry.is_default_action:
                kind = p4r.Update.MODIFY
            error = self._write(p4r.Update(type=kind, entity=entity))
            if error is not None and error.code == rpc_code.ALREADY_EXISTS:
                # The new program declares the same entry itself; the controller's goes first.
                error = self._write(p4r.Update(type=p4r.Update.MODIFY, entity=entity))
            if error is not None:
                raise invalid(f"the forwarding state cannot be kept: {error.message}")
