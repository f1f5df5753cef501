"""The embedded switch as a switch under test, in memory."""

from collections.abc import Sequence
from pathlib import Path

from wiresum.softswitch import Switch
from wiresum.softswitch.errors import SwitchError
from wiresum.testbed.conformance.p4info import Schema
from wiresum.testbed.conformance.target import (
    Count,
    Default,
    Delete,
    EntryKey,
    Frame,
    Group,
    Insert,
    Leaving,
    MatchValue,
    Modify,
    Probe,
    Write,
    probe_number,
)


class SoftTarget:
    """The softswitch running the program of a BMv2 JSON; names are P4Info's."""

    name = "softswitch"

    def __init__(self, json: Path, p4info: Path) -> None:
        """Raises what :class:`wiresum.softswitch.Switch` raises."""
        self.schema = Schema(p4info)
        self.switch = Switch(json)
        self._probes: Sequence[Probe] = ()
        self._number = 0
        self._left: Leaving = {}

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Do these in order; for each, whether it was accepted."""
        return [self._write(each) for each in writes]

    def _write(self, write: Write) -> bool:
        switch = self.switch
        try:
            match write:
                case Group():
                    switch.multicast_group(write.number, write.replicas)
                case Default():
                    switch.set_default(write.table, write.action, write.params)
                case Insert():
                    switch.table_add(
                        write.table, write.match, write.action, write.params, write.priority
                    )
                case Modify():
                    switch.table_modify(
                        write.table, write.match, write.action, write.params, write.priority
                    )
                case Delete():
                    switch.table_delete(write.table, write.match, write.priority)
        except SwitchError:
            return False
        return True

    def ready(self, probes: Sequence[Probe]) -> None:
        """Take up the probes: the other switch gets them, and so does this one."""
        self._probes = probes

    def send(self, frames: Sequence[Frame]) -> None:
        """Feed frames."""
        for port, frame in frames:
            for to, data in self.switch.inject(port, frame):
                self._left.setdefault(to, []).append(data)

    def collect(self) -> Leaving:
        """What left because of the frames sent."""
        left, self._left = self._left, {}
        self._number += 1
        for probe in self._probes:
            for to, data in self.switch.inject(*probe.frame(self._number)):
                if probe_number(data) is None:
                    left.setdefault(to, []).append(data)
        return left

    def counters(self) -> dict[tuple[str, int], Count]:
        """Every cell of every indirect counter that is not zero."""
        found = {}
        for name, _, size in self.switch.dataplane.counters():
            if name not in self.schema.counters:
                continue  # a direct counter
            octets = self.schema.counts_bytes[name]
            for index, cell in enumerate(self.switch.dataplane.counter_read(name, 0, size)):
                if cell[0]:
                    found[name, index] = Count(cell[0], cell[1] if octets else 0)
        return found

    def direct_counters(self) -> dict[EntryKey, Count]:
        """The direct counter of every entry of tables that have one."""
        found: dict[EntryKey, Count] = {}
        for table in self.schema.direct_tables:
            octets = self.schema.counts_bytes[table]
            kinds = self.schema.kinds(table)
            for entry in self.switch.table_entries(table):
                match: dict[str, MatchValue] = {}
                for name, given in entry.match.items():
                    if given is None:
                        continue
                    kind, bits = kinds[name]
                    value = _plain(given)
                    # p4c writes ternary where the program says optional.
                    if kind == "optional" and isinstance(value, tuple):
                        if value[1]:
                            match[name] = value[0]
                    elif kind == "range":
                        if value != (0, (1 << bits) - 1):
                            match[name] = value
                    elif not isinstance(value, tuple) or value[1]:
                        match[name] = value
                key = (table, tuple(sorted(match.items())), entry.priority)
                found[key] = Count(entry.counter.packets, entry.counter.bytes if octets else 0)
        return found

    def close(self) -> None:
        """Nothing to end."""


def _plain(value: object) -> MatchValue:
    if isinstance(value, tuple):
        first, second = value
        return _number(first), _number(second)
    return _number(value)


def _number(value: object) -> int:
    if isinstance(value, bytes):
        return int.from_bytes(value)
    assert isinstance(value, int)
    return value
