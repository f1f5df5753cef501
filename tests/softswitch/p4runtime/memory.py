"""A data plane that is a few dictionaries: what the P4Runtime server asked of it, no packets."""

import json
from collections.abc import Sequence

from finsy.proto import rpc_code
from wiresum.softswitch.p4runtime.dataplane import (
    ActionCall,
    CounterValue,
    DataplaneError,
    DefaultEntry,
    Entry,
    EntryKey,
    Replica,
)

ZERO = CounterValue(0, 0)


class MemoryDataplane:
    """Implements DataplaneControl for the tables and counters that a BMv2 JSON declares."""

    def __init__(self, device_config: bytes) -> None:
        program = json.loads(device_config)
        self.sizes = {t["name"]: t["max_size"] for p in program["pipelines"] for t in p["tables"]}
        self.tables: dict[str, dict[EntryKey, Entry]] = {name: {} for name in self.sizes}
        self.defaults: dict[str, DefaultEntry] = {}
        self.counters = {
            c["name"]: [ZERO] * c["size"] for c in program["counter_arrays"] if "size" in c
        }
        self.groups: dict[int, Sequence[Replica]] = {}

    def insert(self, table: str, key: EntryKey, action: ActionCall) -> None:
        if len(self.tables[table]) >= self.sizes[table]:
            raise DataplaneError(rpc_code.RESOURCE_EXHAUSTED, f"table {table!r} is full")
        self.tables[table][key] = Entry(key, action, ZERO)

    def modify(self, table: str, key: EntryKey, action: ActionCall) -> None:
        self.tables[table][key] = self.tables[table][key]._replace(action=action)

    def delete(self, table: str, key: EntryKey) -> None:
        del self.tables[table][key]

    def find(self, table: str, key: EntryKey) -> Entry | None:
        return self.tables[table].get(key)

    def entries(self, table: str) -> list[Entry]:
        return list(self.tables[table].values())

    def set_default(self, table: str, action: ActionCall) -> None:
        self.defaults[table] = self.default_entry(table)._replace(action=action)

    def reset_default(self, table: str) -> None:
        self.defaults.pop(table, None)

    def default_entry(self, table: str) -> DefaultEntry:
        return self.defaults.get(table, DefaultEntry(None, ZERO))

    def write_direct_counter(self, table: str, key: EntryKey | None, value: CounterValue) -> None:
        if key is None:
            self.defaults[table] = self.default_entry(table)._replace(counter=value)
        else:
            self.tables[table][key] = self.tables[table][key]._replace(counter=value)

    def read_counters(self, counter: str, first: int, count: int) -> list[CounterValue]:
        return self.counters[counter][first : first + count]

    def write_counters(self, counter: str, first: int, count: int, value: CounterValue) -> None:
        self.counters[counter][first : first + count] = [value] * count

    def create_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        self.groups[group] = replicas

    modify_multicast_group = create_multicast_group

    def delete_multicast_group(self, group: int) -> None:
        del self.groups[group]


class MemoryTarget:
    """Implements SwitchTarget."""

    def prepare(self, device_config: bytes) -> object:
        return device_config

    def commit(self, prepared: object) -> MemoryDataplane:
        assert isinstance(prepared, bytes)
        return MemoryDataplane(prepared)

    def packet_out(self, frame: bytes) -> None:
        raise DataplaneError(rpc_code.FAILED_PRECONDITION, "no CPU port")
