"""P4Info's names and P4Runtime's messages for the writes and counters of a target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finsy.proto import p4i, p4r
from google.protobuf import text_format

from wiresum.testbed import lines
from wiresum.testbed.conformance.errors import ConformanceError
from wiresum.testbed.conformance.target import (
    Default,
    Delete,
    EntryKey,
    Group,
    Insert,
    MatchValue,
    Modify,
    Write,
)

_UNITS = p4i.CounterSpec


def _bytes(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8))


class Schema:
    """A program's P4Info, by name."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`ConformanceError` where it is not P4Info."""
        try:
            self.info = text_format.Parse(path.read_text(), p4i.P4Info())
        except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
            raise ConformanceError(lines.NOT_P4INFO.of(path=path, why=error)) from error
        self._tables = {t.preamble.name: t for t in self.info.tables}
        self._tables_by_id = {t.preamble.id: t for t in self.info.tables}
        self._actions = {a.preamble.name: a for a in self.info.actions}
        self.counters = {c.preamble.name: c.preamble.id for c in self.info.counters}
        self.counter_names = {number: name for name, number in self.counters.items()}
        direct = {c.direct_table_id: c for c in self.info.direct_counters}
        self.direct_tables = [t.preamble.name for t in self.info.tables if t.preamble.id in direct]
        self.counts_bytes = {
            **{c.preamble.name: c.spec.unit != _UNITS.PACKETS for c in self.info.counters},
            **{
                self._tables_by_id[t].preamble.name: c.spec.unit != _UNITS.PACKETS
                for t, c in direct.items()
            },
        }

    def _find(self, known: Mapping[str, Any], name: str, what: str) -> Any:
        found = [each for full, each in known.items() if full in (name, name.lstrip("."))]
        found = found or [each for full, each in known.items() if full.endswith(f".{name}")]
        if len(found) != 1:
            raise ConformanceError(lines.AMBIGUOUS_NAME.of(count=len(found), kind=what, name=name))
        return found[0]

    def table(self, name: str) -> Any:
        """The table of this name, or the only one whose name ends in it."""
        return self._find(self._tables, name, "table")

    def kinds(self, table: str) -> dict[str, tuple[str, int]]:
        """Match kind, in lower case, and width of each key field by name."""
        name = p4i.MatchField.MatchType.Name
        fields = self.table(table).match_fields
        return {f.name: (name(f.match_type).lower(), f.bitwidth) for f in fields}

    def _match(self, entry: Any, table: Any, match: Mapping[str, MatchValue]) -> None:
        known = {f.name: f for f in table.match_fields}
        for name, value in match.items():
            field = self._find(known, name, "key field")
            item = p4r.FieldMatch(field_id=field.id)
            kind = field.match_type
            if kind == p4i.MatchField.EXACT and isinstance(value, int):
                item.exact.value = _bytes(value)
            elif kind == p4i.MatchField.OPTIONAL and isinstance(value, int):
                item.optional.value = _bytes(value)
            elif isinstance(value, int):
                raise ConformanceError(lines.TAKES_A_PAIR.of(table=table.preamble.name, field=name))
            elif kind == p4i.MatchField.LPM:
                if value[1] == 0:
                    continue
                item.lpm.value, item.lpm.prefix_len = _bytes(value[0]), value[1]
            elif kind == p4i.MatchField.TERNARY:
                if value[1] == 0:
                    continue
                item.ternary.value, item.ternary.mask = _bytes(value[0]), _bytes(value[1])
            elif kind == p4i.MatchField.RANGE:
                if value == (0, (1 << field.bitwidth) - 1):
                    continue
                item.range.low, item.range.high = _bytes(value[0]), _bytes(value[1])
            else:
                raise ConformanceError(
                    lines.TAKES_ONE_VALUE.of(table=table.preamble.name, field=name)
                )
            entry.match.append(item)

    def _action(self, holder: Any, name: str, params: Mapping[str, int]) -> None:
        info = self._find(self._actions, name, "action")
        holder.action.action_id = info.preamble.id
        for param in info.params:
            holder.action.params.add(param_id=param.id, value=_bytes(params[param.name]))

    def update(self, write: Write) -> p4r.Update:
        """P4Runtime's message for ``write``; a group's is an INSERT."""
        update = p4r.Update(type=p4r.Update.INSERT)
        if isinstance(write, Group):
            group = update.entity.packet_replication_engine_entry.multicast_group_entry
            group.multicast_group_id = write.number
            for port, instance in write.replicas:
                group.replicas.add(egress_port=port, instance=instance)
            return update
        table = self.table(write.table)
        entry = update.entity.table_entry
        entry.table_id = table.preamble.id
        if isinstance(write, Default):
            update.type = p4r.Update.MODIFY
            entry.is_default_action = True
        else:
            self._match(entry, table, write.match)
            entry.priority = write.priority
            if isinstance(write, Delete):
                update.type = p4r.Update.DELETE
            elif isinstance(write, Modify):
                update.type = p4r.Update.MODIFY
        if isinstance(write, Insert | Modify | Default):
            self._action(entry.action, write.action, write.params)
        return update

    def key(self, entry: p4r.TableEntry) -> EntryKey:
        """The entry's key in plain values."""
        table = self._tables_by_id[entry.table_id]
        names = {f.id: f.name for f in table.match_fields}
        match: dict[str, MatchValue] = {}
        for item in entry.match:
            name = names[item.field_id]
            kind = item.WhichOneof("field_match_type")
            if kind == "exact":
                match[name] = int.from_bytes(item.exact.value)
            elif kind == "optional":
                match[name] = int.from_bytes(item.optional.value)
            elif kind == "lpm":
                match[name] = (int.from_bytes(item.lpm.value), item.lpm.prefix_len)
            elif kind == "ternary":
                pair = item.ternary
                match[name] = (int.from_bytes(pair.value), int.from_bytes(pair.mask))
            else:
                match[name] = (int.from_bytes(item.range.low), int.from_bytes(item.range.high))
        return table.preamble.name, tuple(sorted(match.items())), entry.priority
