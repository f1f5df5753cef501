"""TableEntry and DirectCounterEntry: what a controller writes into tables and reads from them.

Rules: P4Runtime specification, section "TableEntry"; where it leaves room, as BMv2 does.
"""

from collections.abc import Iterator

from finsy.proto import p4r

from wiresum.softswitch.p4runtime.dataplane import (
    ActionCall,
    CounterValue,
    DataplaneControl,
    DefaultEntry,
    Entry,
    EntryKey,
)
from wiresum.softswitch.p4runtime.schema import Schema, Table
from wiresum.softswitch.p4runtime.status import (
    already_exists,
    denied,
    internal,
    invalid,
    not_found,
    unimplemented,
)
from wiresum.softswitch.p4runtime.table_codec import (
    decode_action,
    decode_counter_data,
    decode_key,
    encode_counter,
    encode_key,
)
from wiresum.softswitch.p4runtime.values import encode


class Cookie:
    """The data that a controller stores with an entry and gets back unchanged."""

    __slots__ = ("controller_metadata", "metadata")

    def __init__(self, entry: p4r.TableEntry) -> None:
        self.controller_metadata = entry.controller_metadata
        self.metadata = entry.metadata


class TableEntries:
    """The tables of one running program."""

    def __init__(self, schema: Schema, dataplane: DataplaneControl) -> None:
        self._schema = schema
        self._dataplane = dataplane
        self._cookies: dict[tuple[int, EntryKey | None], Cookie] = {}
        self._changed_defaults: set[int] = set()

    # -- Write ---------------------------------------------------------------------------------

    def write(self, kind: "p4r.Update.Type.ValueType", entry: p4r.TableEntry) -> None:
        """Apply one update; raises P4RuntimeError."""
        table = self._schema.table(entry.table_id)
        if kind not in (p4r.Update.INSERT, p4r.Update.MODIFY, p4r.Update.DELETE):
            raise invalid("the update's type is not set")
        if entry.is_const:
            raise invalid("is_const must not be set in a write")
        if table.indirect:
            raise unimplemented(f"table {table.name!r} has an action profile: not supported")
        if entry.is_default_action:
            self._write_default(kind, table, entry)
            return
        key = decode_key(table, entry)
        if kind == p4r.Update.DELETE:
            self._delete(table, key)
            return
        if kind == p4r.Update.INSERT:
            self._insert(table, key, entry)
        else:
            self._modify(table, key, entry)

    def _check_resources(self, table: Table, entry: p4r.TableEntry) -> None:
        if entry.HasField("time_since_last_hit"):
            raise invalid("time_since_last_hit must not be set in a write")
        if entry.idle_timeout_ns:
            raise invalid(f"table {table.name!r} has no idle timeout: idle_timeout_ns must be 0")
        if entry.HasField("meter_config") or entry.HasField("meter_counter_data"):
            if table.has_direct_meter:
                raise unimplemented("meters are not supported")
            raise invalid(f"table {table.name!r} has no direct meter")
        if entry.HasField("counter_data"):
            if table.counter is None:
                raise invalid(f"table {table.name!r} has no direct counter")
            decode_counter_data(entry.counter_data)

    def _insert(self, table: Table, key: EntryKey, entry: p4r.TableEntry) -> None:
        if table.const:
            raise denied(f"table {table.name!r} has const entries")
        if not table.fields:
            raise invalid(f"table {table.name!r} has no key: it takes a default entry only")
        if not entry.HasField("action"):
            raise invalid("the entry has no action")
        action = decode_action(table, entry)
        self._check_resources(table, entry)
        if self._dataplane.find(table.name, key) is not None:
            raise already_exists("Match entry exists, use MODIFY if you wish to change action")
        self._dataplane.insert(table.name, key, action)
        if entry.HasField("counter_data"):
            value = decode_counter_data(entry.counter_data)
            self._dataplane.write_direct_counter(table.name, key, value)
        self._remember(table, key, entry)

    def _modify(self, table: Table, key: EntryKey, entry: p4r.TableEntry) -> None:
        if table.const and entry.HasField("action"):
            raise denied(f"table {table.name!r} has const entries: the action cannot be changed")
        action = decode_action(table, entry) if entry.HasField("action") else None
        self._check_resources(table, entry)
        if self._dataplane.find(table.name, key) is None:
            raise not_found("Cannot find match entry")
        if action is not None:
            self._dataplane.modify(table.name, key, action)
        if entry.HasField("counter_data"):
            value = decode_counter_data(entry.counter_data)
            self._dataplane.write_direct_counter(table.name, key, value)
        self._remember(table, key, entry)

    def _delete(self, table: Table, key: EntryKey) -> None:
        if table.const:
            raise denied(f"table {table.name!r} has const entries")
        if self._dataplane.find(table.name, key) is None:
            raise not_found("Cannot find match entry")
        self._dataplane.delete(table.name, key)
        self._cookies.pop((table.id, key), None)

    def _write_default(
        self, kind: "p4r.Update.Type.ValueType", table: Table, entry: p4r.TableEntry
    ) -> None:
        if kind != p4r.Update.MODIFY:
            raise invalid("the default entry can only be changed by MODIFY")
        if entry.match:
            raise invalid("the default entry has no key")
        if entry.priority:
            raise invalid("the default entry has no priority")
        if table.const_default:
            raise denied(f"table {table.name!r} has a const default action")
        self._check_resources(table, entry)
        if not entry.HasField("action"):
            self._dataplane.reset_default(table.name)
            if table.counter is not None:
                self._dataplane.write_direct_counter(table.name, None, CounterValue(0, 0))
            self._cookies.pop((table.id, None), None)
            self._changed_defaults.discard(table.id)
            return
        self._dataplane.set_default(table.name, decode_action(table, entry))
        self._changed_defaults.add(table.id)
        if entry.HasField("counter_data"):
            value = decode_counter_data(entry.counter_data)
            self._dataplane.write_direct_counter(table.name, None, value)
        self._remember(table, None, entry)

    def _remember(self, table: Table, key: EntryKey | None, entry: p4r.TableEntry) -> None:
        if entry.controller_metadata or entry.metadata:
            self._cookies[table.id, key] = Cookie(entry)
        else:
            self._cookies.pop((table.id, key), None)

    # -- Read ----------------------------------------------------------------------------------

    def read(self, request: p4r.TableEntry) -> Iterator[p4r.TableEntry]:
        """Yield what the request selects; raises P4RuntimeError."""
        tables = (
            [self._schema.table(request.table_id)]
            if request.table_id
            else list(self._schema.tables.values())
        )
        if request.HasField("time_since_last_hit"):
            raise invalid("time_since_last_hit: no table of this program has an idle timeout")
        for table in tables:
            if request.is_default_action:
                yield from self._read_default(table, request)
            else:
                yield from self._read_entries(table, request)

    def _read_entries(self, table: Table, request: p4r.TableEntry) -> Iterator[p4r.TableEntry]:
        if request.match:
            entry = self._dataplane.find(table.name, decode_key(table, request))
            found = [] if entry is None else [entry]
        else:
            found = self._dataplane.entries(table.name)
        for entry in found:
            message = self._encode(table, entry, counter=request.HasField("counter_data"))
            if _selected(request, message):
                yield message

    def _read_default(self, table: Table, request: p4r.TableEntry) -> Iterator[p4r.TableEntry]:
        if request.match or request.priority:
            raise invalid("the default entry has neither key nor priority")
        entry = self._dataplane.default_entry(table.name)
        message = self._encode_default(table, entry, counter=request.HasField("counter_data"))
        if _selected(request, message):
            yield message

    def changed_defaults(self) -> list[p4r.TableEntry]:
        """Return the default entries that a controller has set, with their counters."""
        return [
            self._encode_default(table, self._dataplane.default_entry(table.name), counter=True)
            for table in map(self._schema.table, sorted(self._changed_defaults))
        ]

    def read_direct_counters(
        self, request: p4r.DirectCounterEntry
    ) -> Iterator[p4r.DirectCounterEntry]:
        """Yield the direct counters that the request selects; raises P4RuntimeError."""
        if not request.HasField("table_entry"):
            raise invalid("DirectCounterEntry without table_entry")
        wanted = request.table_entry
        if wanted.table_id == 0:
            tables = [t for t in self._schema.tables.values() if t.counter is not None]
        else:
            tables = [self._counted(wanted.table_id)]
        for table in tables:
            yield from self._read_direct_counters(table, wanted)

    def _read_direct_counters(
        self, table: Table, wanted: p4r.TableEntry
    ) -> Iterator[p4r.DirectCounterEntry]:
        if wanted.is_default_action:
            entry = p4r.TableEntry(table_id=table.id, is_default_action=True)
            counted = self._dataplane.default_entry(table.name).counter
            yield _direct(entry, counted)
            return
        if wanted.match:
            found = self._dataplane.find(table.name, decode_key(table, wanted))
            if found is None:
                raise not_found("Cannot find match entry")
            selected = [found]
        else:
            selected = self._dataplane.entries(table.name)
        for each in selected:
            yield _direct(encode_key(table, each.key), each.counter)

    def write_direct_counter(
        self, kind: "p4r.Update.Type.ValueType", entry: p4r.DirectCounterEntry
    ) -> None:
        """Set a direct counter; raises P4RuntimeError."""
        if not entry.HasField("table_entry"):
            raise invalid("DirectCounterEntry without table_entry")
        table = self._counted(entry.table_entry.table_id)
        if kind != p4r.Update.MODIFY:
            raise invalid("a direct counter can only be changed by MODIFY")
        key: EntryKey | None = None
        if entry.table_entry.is_default_action:
            if entry.table_entry.match:
                raise invalid("the default entry has no key")
        else:
            key = decode_key(table, entry.table_entry)
            if self._dataplane.find(table.name, key) is None:
                raise not_found("Cannot find match entry")
        if entry.HasField("data"):
            value = decode_counter_data(entry.data)
            self._dataplane.write_direct_counter(table.name, key, value)

    def _counted(self, table_id: int) -> Table:
        table = self._schema.table(table_id)
        if table.counter is None:
            raise invalid(f"table {table.name!r} has no direct counter")
        return table

    # -- messages ------------------------------------------------------------------------------

    def _encode(self, table: Table, entry: Entry, *, counter: bool) -> p4r.TableEntry:
        message = encode_key(table, entry.key)
        message.is_const = table.const
        self._encode_action(table, entry.action, message)
        if counter and table.counter is not None:
            message.counter_data.CopyFrom(encode_counter(entry.counter))
        self._add_cookie(table, entry.key, message)
        return message

    def _encode_default(
        self, table: Table, entry: DefaultEntry, *, counter: bool
    ) -> p4r.TableEntry:
        message = p4r.TableEntry(
            table_id=table.id, is_default_action=True, is_const=table.const_default
        )
        if entry.action is not None:
            self._encode_action(table, entry.action, message)
        if counter and table.counter is not None:
            message.counter_data.CopyFrom(encode_counter(entry.counter))
        self._add_cookie(table, None, message)
        return message

    def _encode_action(self, table: Table, call: ActionCall, message: p4r.TableEntry) -> None:
        action = self._schema.actions_by_name.get(call.name)
        if action is None:
            raise internal(f"table {table.name!r} runs {call.name!r}, which P4Info does not have")
        message.action.action.action_id = action.id
        for param, value in zip(action.params, call.args, strict=True):
            message.action.action.params.add(param_id=param.id, value=encode(value))

    def _add_cookie(self, table: Table, key: EntryKey | None, message: p4r.TableEntry) -> None:
        cookie = self._cookies.get((table.id, key))
        if cookie is not None:
            message.controller_metadata = cookie.controller_metadata
            message.metadata = cookie.metadata


def _direct(entry: p4r.TableEntry, value: CounterValue) -> p4r.DirectCounterEntry:
    return p4r.DirectCounterEntry(table_entry=entry, data=encode_counter(value))


def _selected(request: p4r.TableEntry, entry: p4r.TableEntry) -> bool:
    """Whether the filters of a wildcard read let ``entry`` pass."""
    if request.priority and request.priority != entry.priority:
        return False
    if request.controller_metadata and request.controller_metadata != entry.controller_metadata:
        return False
    if request.metadata and request.metadata != entry.metadata:
        return False
    wanted = request.action.action.action_id
    return not wanted or wanted == entry.action.action.action_id
