"""The native data plane as the P4Runtime server wants it: integers, and names as in P4Info."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finsy.proto import rpc_code

from wiresum.softswitch import errors, lines
from wiresum.softswitch._softswitch import Dataplane
from wiresum.softswitch.p4runtime.dataplane import (
    ActionCall,
    CounterValue,
    DataplaneError,
    DefaultEntry,
    Entry,
    EntryKey,
    KeyField,
    Replica,
)

_CODES: dict[type[errors.SwitchError], int] = {
    errors.InvalidArgument: rpc_code.INVALID_ARGUMENT,
    errors.NotFound: rpc_code.NOT_FOUND,
    errors.AlreadyExists: rpc_code.ALREADY_EXISTS,
    errors.IndexOutOfRange: rpc_code.OUT_OF_RANGE,
    errors.TableFull: rpc_code.RESOURCE_EXHAUSTED,
    errors.ConstViolation: rpc_code.PERMISSION_DENIED,
}

_NativeField = tuple[bytes, bytes, int, bool]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except errors.SwitchError as error:
        raise DataplaneError(_CODES.get(type(error), rpc_code.INTERNAL), str(error)) from error


def _bytes(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _int(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _to_native(kind: str, field: KeyField) -> _NativeField:
    """``kind`` is the program's, which may be ternary where P4Info says optional."""
    value = _bytes(field.value)
    if kind == "exact":
        return value, b"", 0, False
    if kind == "lpm":
        return value, b"", field.mask.bit_count(), False
    if kind == "optional":
        return value, b"", 0, field.mask == 0
    return value, _bytes(field.mask), 0, False


def _from_native(kind: str, bits: int, field: _NativeField) -> KeyField:
    value, mask, prefix, anything = field
    ones = (1 << bits) - 1
    if kind == "exact":
        return KeyField(_int(value), ones)
    if kind == "lpm":
        return KeyField(_int(value), ones >> (bits - prefix) << (bits - prefix))
    if kind == "optional":
        return KeyField(0, 0) if anything else KeyField(_int(value), ones)
    return KeyField(_int(value), _int(mask))


class NativeControl:
    """The tables, counters and multicast groups of a ``_softswitch.Dataplane``.

    Implements :class:`wiresum.softswitch.p4runtime.dataplane.DataplaneControl`.
    """

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        # Per table: match kind and width of every key field, as the program has them.
        self._keys: dict[str, list[tuple[str, int]]] = {
            table["name"]: [(kind, bits) for _, kind, bits in table["key"]]
            for table in dataplane.tables()
        }

    def _kinds(self, table: str) -> list[tuple[str, int]]:
        kinds = self._keys.get(table)
        if kinds is None:  # what p4c has made for an action call in a control
            raise DataplaneError(rpc_code.NOT_FOUND, lines.NO_TABLE.of(table=table))
        return kinds

    def _key(self, table: str, key: EntryKey) -> list[_NativeField]:
        kinds = self._kinds(table)
        return [_to_native(kind, field) for (kind, _), field in zip(kinds, key.fields, strict=True)]

    def _entry(self, table: str, native: tuple[Any, ...]) -> Entry:
        key, priority, action, params, packets, octets = native
        fields = tuple(
            _from_native(kind, bits, field)
            for (kind, bits), field in zip(self._kinds(table), key, strict=True)
        )
        return Entry(
            EntryKey(fields, priority),
            ActionCall(action, tuple(map(_int, params))),
            CounterValue(packets, octets),
        )

    def insert(self, table: str, key: EntryKey, action: ActionCall) -> None:
        """Add an entry."""
        native = self._key(table, key)
        params = list(map(_bytes, action.args))
        with _translated():
            self._dataplane.table_add(table, native, key.priority, action.name, params)

    def modify(self, table: str, key: EntryKey, action: ActionCall) -> None:
        """Give an entry another action."""
        native = self._key(table, key)
        params = list(map(_bytes, action.args))
        with _translated():
            self._dataplane.table_modify(table, native, key.priority, action.name, params)

    def delete(self, table: str, key: EntryKey) -> None:
        """Remove an entry."""
        with _translated():
            self._dataplane.table_delete(table, self._key(table, key), key.priority)

    def find(self, table: str, key: EntryKey) -> Entry | None:
        """Return the entry with this key."""
        with _translated():
            native = self._dataplane.table_find(table, self._key(table, key), key.priority)
        return None if native is None else self._entry(table, native)

    def entries(self, table: str) -> list[Entry]:
        """Return all entries."""
        with _translated():
            natives = self._dataplane.table_entries(table)
        return [self._entry(table, native) for native in natives]

    def set_default(self, table: str, action: ActionCall) -> None:
        """Set the default action."""
        with _translated():
            self._dataplane.table_set_default(table, action.name, list(map(_bytes, action.args)))

    def reset_default(self, table: str) -> None:
        """Set the default action back to what the program declares."""
        with _translated():
            self._dataplane.table_reset_default(table)

    def default_entry(self, table: str) -> DefaultEntry:
        """Return the default action."""
        with _translated():
            _, _, name, params, packets, octets = self._dataplane.table_default(table)
        action = ActionCall(name, tuple(map(_int, params))) if name else None
        return DefaultEntry(action, CounterValue(packets, octets))

    def write_direct_counter(self, table: str, key: EntryKey | None, value: CounterValue) -> None:
        """Set the direct counter of an entry, or of the default entry (None)."""
        with _translated():
            if key is None:
                self._dataplane.table_write_default_counter(table, *value)
            else:
                native = self._key(table, key)
                self._dataplane.table_write_counter(table, native, key.priority, *value)

    def read_counters(self, counter: str, first: int, count: int) -> list[CounterValue]:
        """Read ``count`` cells of an indirect counter from index ``first``."""
        with _translated():
            return [CounterValue(*c) for c in self._dataplane.counter_read(counter, first, count)]

    def write_counters(self, counter: str, first: int, count: int, value: CounterValue) -> None:
        """Set ``count`` cells of an indirect counter from index ``first``."""
        with _translated():
            self._dataplane.counter_write(counter, first, count, *value)

    def create_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Add a multicast group."""
        with _translated():
            self._dataplane.multicast_create(group, list(replicas))

    def modify_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Replace a multicast group's replicas."""
        with _translated():
            self._dataplane.multicast_modify(group, list(replicas))

    def delete_multicast_group(self, group: int) -> None:
        """Remove a multicast group."""
        with _translated():
            self._dataplane.multicast_delete(group)
