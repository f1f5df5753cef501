"""A switch without sockets: a Python call feeds it packets and returns packets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wiresum import p4
from wiresum.softswitch import lines

from . import _softswitch
from .compiler import load_program
from .errors import InvalidArgument, NotFound

Value = int | bytes
"""A number, or its big-endian bytes."""

MatchValue = Value | tuple[Value, Value] | None
"""How a key field matches.

exact, optional: a value. lpm: (value, prefix length). ternary: (value, mask). range: (low, high).
None: any value (not for exact).
"""

Field = tuple[bytes, bytes, int, bool]


class Counter(NamedTuple):
    """A counter's value; bytes are those of the frames as they came in."""

    packets: int
    bytes: int


@dataclass(frozen=True)
class Entry:
    """An entry of a table, numbers as integers."""

    match: dict[str, MatchValue]
    action: str
    params: dict[str, int]
    priority: int
    counter: Counter


class Switch:
    """A v1model program, ready to take packets.

    >>> switch = Switch(lanes=64)
    >>> switch.table_add("l2", {"mac": 0x020000000001}, "to_port", {"port": 1})
    >>> switch.inject(2, frame)
    [(1, b"...")]

    Names are those of P4Info. Every control-plane call raises a
    :class:`wiresum.softswitch.errors.SwitchError`.
    """

    def __init__(
        self, program: Path | str | bytes | None = None, *, lanes: int | None = None
    ) -> None:
        """Loads ``program`` (a BMv2 JSON: path or content) or wiresum's own for ``lanes`` lanes.

        Raises what :func:`load_program` raises.
        """
        if (program is None) == (lanes is None):
            raise InvalidArgument(lines.PROGRAM_OR_LANES.of())
        source = p4.program(lanes).json if lanes is not None else program
        assert source is not None
        self.library = load_program(source)
        self.dataplane = _softswitch.Dataplane(str(self.library))
        self._tables: dict[str, dict[str, Any]] = {t["name"]: t for t in self.dataplane.tables()}
        self._registers = {name: bits for name, _, _, bits in self.dataplane.registers()}
        self._counters = [name for name, _, _ in self.dataplane.counters()]

    # --- packets ---

    def inject(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Feeds one frame in at ``port``; returns the (port, frame) pairs that leave, in order."""
        return self.dataplane.inject(port, frame)

    def stats(self) -> dict[str, int]:
        """Frames received and emitted, and frames that the parser ended with an error."""
        return self.dataplane.stats()

    def reset(self) -> None:
        """Back to the state after loading: no entries but the program's own, all state zero."""
        self.dataplane.reset()

    # --- tables ---

    def tables(self) -> list[str]:
        """The names of all tables."""
        return list(self._tables)

    def table_add(
        self,
        table: str,
        match: Mapping[str, MatchValue],
        action: str,
        params: Mapping[str, Value] | None = None,
        priority: int | None = None,
    ) -> None:
        """Adds an entry. A field that ``match`` leaves out matches everything (not if exact).

        ``priority``: the larger wins; needed where a field is ternary, range or optional.
        """
        t = self._table(table)
        self.dataplane.table_add(
            t["name"], _key(t, match), priority or 0, *_action(t, action, params)
        )

    def table_modify(
        self,
        table: str,
        match: Mapping[str, MatchValue],
        action: str,
        params: Mapping[str, Value] | None = None,
        priority: int | None = None,
    ) -> None:
        """Gives an entry another action; its direct counter stays."""
        t = self._table(table)
        self.dataplane.table_modify(
            t["name"], _key(t, match), priority or 0, *_action(t, action, params)
        )

    def table_delete(
        self, table: str, match: Mapping[str, MatchValue], priority: int | None = None
    ) -> None:
        """Removes an entry."""
        t = self._table(table)
        self.dataplane.table_delete(t["name"], _key(t, match), priority or 0)

    def table_clear(self, table: str) -> None:
        """Removes all entries; the default action stays."""
        self.dataplane.table_clear(self._table(table)["name"])

    def table_entries(self, table: str) -> list[Entry]:
        """All entries, in the order in which they were added."""
        t = self._table(table)
        return [_entry(t, e) for e in self.dataplane.table_entries(t["name"])]

    def set_default(
        self, table: str, action: str, params: Mapping[str, Value] | None = None
    ) -> None:
        """Sets the default action."""
        t = self._table(table)
        self.dataplane.table_set_default(t["name"], *_action(t, action, params))

    def default(self, table: str) -> Entry:
        """The default action and its direct counter."""
        t = self._table(table)
        return _entry(t, self.dataplane.table_default(t["name"]))

    def direct_counter(
        self, table: str, match: Mapping[str, MatchValue], priority: int | None = None
    ) -> Counter:
        """The direct counter of an entry."""
        t = self._table(table)
        found = self.dataplane.table_find(t["name"], _key(t, match), priority or 0)
        if found is None:
            raise NotFound(lines.NO_ENTRY.of(table=t["name"]))
        return Counter(found[4], found[5])

    # --- multicast, counters, registers ---

    def multicast_group(self, group: int, replicas: Iterable[tuple[int, int]]) -> None:
        """Makes or replaces a multicast group of (egress port, instance) copies."""
        copies = list(replicas)
        if group in self.dataplane.multicast_list():
            self.dataplane.multicast_modify(group, copies)
        else:
            self.dataplane.multicast_create(group, copies)

    def multicast_delete(self, group: int) -> None:
        """Removes a multicast group."""
        self.dataplane.multicast_delete(group)

    def counter(self, name: str, index: int) -> Counter:
        """One cell of an indirect counter."""
        full = _resolve(name, self._counters, "counter")
        return Counter(*self.dataplane.counter_read(full, _index(full, index), 1)[0])

    def register(self, name: str, index: int) -> int:
        """One cell of a register array."""
        full = _resolve(name, list(self._registers), "register")
        return int.from_bytes(self.dataplane.register_read(full, _index(full, index), 1)[0], "big")

    def registers(self, name: str, first: int, count: int) -> list[int]:
        """``count`` cells of a register array."""
        full = _resolve(name, list(self._registers), "register")
        cells = self.dataplane.register_read(full, _index(full, first), count)
        return [int.from_bytes(cell, "big") for cell in cells]

    def set_register(self, name: str, index: int, value: Value) -> None:
        """Sets one cell of a register array."""
        full = _resolve(name, list(self._registers), "register")
        self.dataplane.register_write(full, _index(full, index), _bytes(value, f"register {full}"))

    def _table(self, name: str) -> dict[str, Any]:
        return self._tables[_resolve(name, list(self._tables), "table")]


def _resolve(name: str, names: Sequence[str], kind: str) -> str:
    """The full name: as given, without a leading dot, or the only one that ends in it."""
    wanted = name.removeprefix(".")
    if wanted in names:
        return wanted
    ending = [n for n in names if n.endswith("." + wanted)]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise NotFound(lines.AMBIGUOUS_NAME.of(kind=kind, name=wanted, found=", ".join(ending)))
    raise NotFound(lines.UNKNOWN_NAME.of(kind=kind, name=wanted, known=", ".join(names) or "none"))


def _index(name: str, index: int) -> int:
    if index < 0:
        raise InvalidArgument(lines.NEGATIVE_INDEX.of(name=name, index=index))
    return index


def _bytes(value: Value, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, int) or value < 0:
        raise InvalidArgument(lines.NEITHER_NUMBER_NOR_BYTES.of(name=what, value=value))
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _key(table: dict[str, Any], match: Mapping[str, MatchValue]) -> list[Field]:
    names = [name for name, _, _ in table["key"]]
    for name in match:
        if name not in names:
            raise InvalidArgument(
                lines.UNKNOWN_KEY_FIELD.of(table=table["name"], field=name, known=", ".join(names))
            )
    return [
        _field(f"table {table['name']}: field {name}", kind, bits, match.get(name))
        for name, kind, bits in table["key"]
    ]


def _field(what: str, kind: str, bits: int, given: MatchValue) -> Field:
    if given is None:
        if kind == "exact":
            raise InvalidArgument(lines.FIELD_NEEDED.of(field=what))
        high = ((1 << bits) - 1).to_bytes((bits + 7) // 8, "big") if kind == "range" else b""
        return b"", high, 0, True
    if kind in ("exact", "optional"):
        if isinstance(given, tuple):
            raise InvalidArgument(lines.FIELD_TAKES_ONE_VALUE.of(field=what, kind=kind))
        return _bytes(given, what), b"", 0, False
    if isinstance(given, tuple):
        first, second = given
    elif kind == "range":
        first = second = given
    else:  # a plain value: all of its bits count
        first, second = given, bits if kind == "lpm" else (1 << bits) - 1
    if kind == "lpm":
        if not isinstance(second, int) or second < 0:
            raise InvalidArgument(lines.NOT_A_PREFIX.of(field=what))
        return _bytes(first, what), b"", second, False
    return _bytes(first, what), _bytes(second, what), 0, False


def _action(
    table: dict[str, Any], action: str, params: Mapping[str, Value] | None
) -> tuple[str, list[bytes]]:
    known = {name: ps for name, _, ps in table["actions"]}
    full = _resolve(action, list(known), f"action in table {table['name']},")
    given = dict(params or {})
    out = []
    for name, _ in known[full]:
        if name not in given:
            raise InvalidArgument(lines.PARAMETER_NEEDED.of(action=full, parameter=name))
        out.append(_bytes(given.pop(name), f"action {full}: parameter {name}"))
    if given:
        raise InvalidArgument(lines.UNKNOWN_PARAMETER.of(action=full, parameter=next(iter(given))))
    return full, out


def _entry(table: dict[str, Any], raw: tuple[Any, ...]) -> Entry:
    key, priority, action, params, packets, octets = raw
    match: dict[str, MatchValue] = {}
    for (name, kind, _), (value, mask, prefix, anything) in zip(table["key"], key, strict=False):
        number = int.from_bytes(value, "big")
        if kind == "lpm":
            match[name] = (number, prefix)
        elif kind in ("ternary", "range"):
            match[name] = (number, int.from_bytes(mask, "big"))
        else:
            match[name] = None if anything else number
    names = next(ps for full, _, ps in table["actions"] if full == action)
    values = {name: int.from_bytes(p, "big") for (name, _), p in zip(names, params, strict=True)}
    return Entry(match, action, values, priority, Counter(packets, octets))
