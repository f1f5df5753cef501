"""P4Info, indexed: what a controller may name, by id."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from finsy.proto import p4i

from wiresum.softswitch.p4runtime.dataplane import MatchKind
from wiresum.softswitch.p4runtime.status import invalid
from wiresum.softswitch.translate.reader import MAX_FIELD_BITS

_MATCH_KINDS = {
    p4i.MatchField.EXACT: MatchKind.EXACT,
    p4i.MatchField.LPM: MatchKind.LPM,
    p4i.MatchField.TERNARY: MatchKind.TERNARY,
    p4i.MatchField.RANGE: MatchKind.RANGE,
    p4i.MatchField.OPTIONAL: MatchKind.OPTIONAL,
}


class Scope(Enum):
    """Where a table may use an action."""

    TABLE_AND_DEFAULT = 0
    TABLE_ONLY = 1
    DEFAULT_ONLY = 2


@dataclass(frozen=True)
class MatchField:
    """One field of a table's key; ``width`` in bits."""

    id: int
    name: str
    width: int
    kind: MatchKind

    @cached_property
    def all_ones(self) -> int:
        """The field's highest value."""
        return (1 << self.width) - 1


@dataclass(frozen=True)
class Param:
    """One parameter of an action; ``width`` in bits."""

    id: int
    name: str
    width: int


@dataclass(frozen=True)
class Action:
    """An action and its parameters in the order of P4Info."""

    id: int
    name: str
    params: tuple[Param, ...]


@dataclass(frozen=True)
class Counter:
    """A counter; ``size`` cells (0 for a direct one)."""

    id: int
    name: str
    size: int


@dataclass(frozen=True)
class Table:
    """A table as P4Info describes it."""

    id: int
    name: str
    fields: tuple[MatchField, ...]
    actions: dict[int, tuple[Action, Scope]]
    size: int
    const: bool
    const_default: bool
    counter: Counter | None
    has_direct_meter: bool
    indirect: bool

    @cached_property
    def needs_priority(self) -> bool:
        """Whether entries of this table are ordered by a priority."""
        ordered = {MatchKind.TERNARY, MatchKind.RANGE, MatchKind.OPTIONAL}
        return any(field.kind in ordered for field in self.fields)


@dataclass(frozen=True)
class HeaderField:
    """One metadata field of a packet-in or packet-out header; ``width`` in bits."""

    id: int
    name: str
    width: int


@dataclass(frozen=True)
class Schema:
    """Everything that a controller may name."""

    tables: dict[int, Table]
    actions: dict[int, Action]
    counters: dict[int, Counter]
    direct_counters: dict[int, Counter]
    meters: frozenset[int]
    registers: frozenset[int]
    packet_in: tuple[HeaderField, ...] | None
    packet_out: tuple[HeaderField, ...] | None

    @cached_property
    def actions_by_name(self) -> dict[str, Action]:
        """Actions by their fully qualified name."""
        return {action.name: action for action in self.actions.values()}

    def table(self, table_id: int) -> Table:
        """Return a table; raises INVALID_ARGUMENT for an unknown id."""
        table = self.tables.get(table_id)
        if table is None:
            raise invalid(f"no table has the id {table_id}")
        return table


def _check_width(bits: int, what: str) -> None:
    if not 0 <= bits <= MAX_FIELD_BITS:
        raise invalid(f"P4Info: {what} has {bits} bits, at most {MAX_FIELD_BITS} are possible")


def _action(action: p4i.Action) -> Action:
    params = tuple(Param(p.id, p.name, p.bitwidth) for p in action.params)
    for param in params:
        if param.width <= 0:
            raise invalid(
                f"P4Info: parameter {param.name!r} of action {action.preamble.name!r} has no "
                "width (translated types are not supported)"
            )
        _check_width(param.width, f"parameter {param.name!r}")
    return Action(action.preamble.id, action.preamble.name, params)


def _field(table: p4i.Table, field: p4i.MatchField) -> MatchField:
    kind = _MATCH_KINDS.get(field.match_type)
    if kind is None:
        raise invalid(
            f"P4Info: match field {field.name!r} of table {table.preamble.name!r} has a match "
            "kind that this switch does not know"
        )
    if field.bitwidth <= 0:
        raise invalid(
            f"P4Info: match field {field.name!r} of table {table.preamble.name!r} has no width "
            "(translated types are not supported)"
        )
    _check_width(field.bitwidth, f"match field {field.name!r}")
    return MatchField(field.id, field.name, field.bitwidth, kind)


def _table(
    table: p4i.Table,
    actions: dict[int, Action],
    direct_counters: dict[int, Counter],
    direct_meters: frozenset[int],
) -> Table:
    scopes = {
        p4i.ActionRef.TABLE_AND_DEFAULT: Scope.TABLE_AND_DEFAULT,
        p4i.ActionRef.TABLE_ONLY: Scope.TABLE_ONLY,
        p4i.ActionRef.DEFAULT_ONLY: Scope.DEFAULT_ONLY,
    }
    refs: dict[int, tuple[Action, Scope]] = {}
    for ref in table.action_refs:
        action = actions.get(ref.id)
        if action is None:
            raise invalid(f"P4Info: table {table.preamble.name!r} names no known action {ref.id}")
        refs[ref.id] = (action, scopes.get(ref.scope, Scope.TABLE_AND_DEFAULT))
    counters = [direct_counters[i] for i in table.direct_resource_ids if i in direct_counters]
    return Table(
        id=table.preamble.id,
        name=table.preamble.name,
        fields=tuple(_field(table, field) for field in table.match_fields),
        actions=refs,
        size=table.size,
        const=table.is_const_table,
        const_default=table.const_default_action_id != 0,
        counter=counters[0] if counters else None,
        has_direct_meter=any(i in direct_meters for i in table.direct_resource_ids),
        indirect=table.implementation_id != 0,
    )


def _controller_headers(p4info: p4i.P4Info) -> dict[str, tuple[HeaderField, ...]]:
    for header in p4info.controller_packet_metadata:
        for field in header.metadata:
            _check_width(field.bitwidth, f"metadata {field.name!r} of {header.preamble.name!r}")
    return {
        header.preamble.name: tuple(HeaderField(m.id, m.name, m.bitwidth) for m in header.metadata)
        for header in p4info.controller_packet_metadata
    }


def _check_ids(ids: Iterable[int]) -> None:
    seen: set[int] = set()
    for number in ids:
        if number == 0 or number in seen:
            raise invalid(f"P4Info: the id {number} is zero or used twice")
        seen.add(number)


def build_schema(p4info: p4i.P4Info) -> Schema:
    """Index a P4Info; raises INVALID_ARGUMENT where it contradicts itself."""
    _check_ids(
        item.preamble.id
        for group in (
            p4info.tables,
            p4info.actions,
            p4info.counters,
            p4info.direct_counters,
            p4info.registers,
        )
        for item in group
    )
    actions = {a.preamble.id: _action(a) for a in p4info.actions}
    direct = {
        c.preamble.id: Counter(c.preamble.id, c.preamble.name, 0) for c in p4info.direct_counters
    }
    direct_meters = frozenset(m.preamble.id for m in p4info.direct_meters)
    headers = _controller_headers(p4info)
    return Schema(
        tables={t.preamble.id: _table(t, actions, direct, direct_meters) for t in p4info.tables},
        actions=actions,
        counters={
            c.preamble.id: Counter(c.preamble.id, c.preamble.name, c.size) for c in p4info.counters
        },
        direct_counters=direct,
        meters=frozenset(m.preamble.id for m in p4info.meters),
        registers=frozenset(r.preamble.id for r in p4info.registers),
        packet_in=headers.get("packet_in"),
        packet_out=headers.get("packet_out"),
    )
