"""The interface of a data plane that the P4Runtime server needs.

Everything is named as in P4Info (fully qualified names); numbers are Python integers. The server
validates what a controller sends against P4Info *before* it calls in here; an implementation
reports what it alone can know.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from wiresum.common.errors import WiresumError


class DataplaneError(WiresumError):
    """The data plane refused an operation.

    ``code`` is the ``google.rpc.Code`` that a controller sees.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class MatchKind(Enum):
    """How one field of a table's key is compared; the values are P4Runtime's names."""

    EXACT = "exact"
    LPM = "lpm"
    TERNARY = "ternary"
    RANGE = "range"
    OPTIONAL = "optional"


class KeyField(NamedTuple):
    """One field of an entry's key, as two integers whose meaning the field's kind gives.

    EXACT, and OPTIONAL where it is given: ``value`` and all ones. OPTIONAL left out: 0, 0.
    TERNARY: ``value`` and ``mask``. LPM: ``value`` and the prefix's mask. RANGE: low and high.
    """

    value: int
    mask: int


class EntryKey(NamedTuple):
    """What identifies an entry within its table.

    ``fields`` in the order of P4Info. ``priority`` is P4Runtime's (the higher number wins), 0
    where the table needs none.
    """

    fields: tuple[KeyField, ...]
    priority: int


class ActionCall(NamedTuple):
    """An action's P4Info name and its arguments in the order of its parameters."""

    name: str
    args: tuple[int, ...]


class CounterValue(NamedTuple):
    """What one counter cell has counted."""

    packets: int
    bytes: int


class Entry(NamedTuple):
    """An entry; ``counter`` is its direct counter (zero where the table has none)."""

    key: EntryKey
    action: ActionCall
    counter: CounterValue


class DefaultEntry(NamedTuple):
    """A table's default action (None: the table has none) and its direct counter."""

    action: ActionCall | None
    counter: CounterValue


class Replica(NamedTuple):
    """One copy that a multicast group makes: where it leaves and its ``egress_rid``."""

    port: int
    instance: int


class DataplaneControl(Protocol):
    """The running program's tables, counters and multicast groups.

    Every call is atomic towards packets; calls come from one thread. All of them raise
    :class:`DataplaneError`.
    """

    def insert(self, table: str, key: EntryKey, action: ActionCall) -> None:
        """Add an entry."""
        ...

    def modify(self, table: str, key: EntryKey, action: ActionCall) -> None:
        """Give an entry another action; its direct counter stays."""
        ...

    def delete(self, table: str, key: EntryKey) -> None:
        """Remove an entry."""
        ...

    def find(self, table: str, key: EntryKey) -> Entry | None:
        """Return the entry with this key."""
        ...

    def entries(self, table: str) -> list[Entry]:
        """Return all entries, those of the program (``const entries``) included."""
        ...

    def set_default(self, table: str, action: ActionCall) -> None:
        """Set the default action."""
        ...

    def reset_default(self, table: str) -> None:
        """Set the default action back to what the program declares."""
        ...

    def default_entry(self, table: str) -> DefaultEntry:
        """Return the default action."""
        ...

    def write_direct_counter(self, table: str, key: EntryKey | None, value: CounterValue) -> None:
        """Set the direct counter of an entry, or of the default entry (None)."""
        ...

    def read_counters(self, counter: str, first: int, count: int) -> list[CounterValue]:
        """Read ``count`` cells of an indirect counter from index ``first``."""
        ...

    def write_counters(self, counter: str, first: int, count: int, value: CounterValue) -> None:
        """Set ``count`` cells of an indirect counter from index ``first``."""
        ...

    def create_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Add a multicast group."""
        ...

    def modify_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Replace a multicast group's replicas."""
        ...

    def delete_multicast_group(self, group: int) -> None:
        """Remove a multicast group."""
        ...


class SwitchTarget(Protocol):
    """The switch below a P4Runtime server: it takes programs, and frames from the controller.

    ``prepare`` may take long (it may run a compiler) and is called off the event loop; ``commit``
    makes what it returned the running program, with its tables empty, between two packets.
    """

    def prepare(self, device_config: bytes) -> object:
        """Make a program (p4c's BMv2 JSON) runnable; raises WiresumError where it cannot be."""
        ...

    def commit(self, prepared: object) -> DataplaneControl:
        """Run a prepared program from now on; returns its control interface."""
        ...

    def packet_out(self, frame: bytes) -> None:
        """Give the program a frame from the controller; raises WiresumError without a CPU port."""
        ...
