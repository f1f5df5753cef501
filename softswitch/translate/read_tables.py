"""Pipelines, tables and conditionals → IR."""

from __future__ import annotations

from typing import Any

from . import ir
from .errors import ProgramInvalid, UnsupportedConstruct
from .read_expr import ExprReader, source_of

Json = dict[str, Any]


class TableReader:
    """Reads pipelines. ``direct`` maps a table to its direct counter."""

    def __init__(
        self, exprs: ExprReader, headers: dict[str, ir.Header], direct: dict[str, str]
    ) -> None:
        self.exprs = exprs
        self.headers = headers
        self.direct = direct

    def known_header(self, name: str) -> str:
        """``name``, if there is such a header."""
        if name not in self.headers:
            raise ProgramInvalid(f"there is no header {name}")
        return name

    def pipeline(self, data: Json, actions: dict[int, ir.Action]) -> ir.Pipeline:
        """One pipeline with its tables and conditions."""
        for profile in data.get("action_profiles") or []:
            raise UnsupportedConstruct(
                f"action profiles and selectors ({profile['name']})", source_of(profile)
            )
        for call in data.get("action_calls") or []:
            raise UnsupportedConstruct(f"action_calls ({call['name']})", source_of(call))
        tables = {t["name"]: self._table(t, actions) for t in data["tables"]}
        conditionals = {
            c["name"]: ir.Conditional(
                c["name"],
                self.exprs.boolean(c["expression"], [], source_of(c)),
                c["true_next"],
                c["false_next"],
                source_of(c),
            )
            for c in data["conditionals"]
        }
        pipeline = ir.Pipeline(data["name"], data["init_table"], tables, conditionals)
        targets: list[str | None] = [pipeline.first]
        for t in tables.values():
            targets += [t.next_hit, t.next_miss, *t.next_by_action.values()]
        for node in conditionals.values():
            targets += [node.true_next, node.false_next]
        for target in targets:
            if target is not None and target not in tables and target not in conditionals:
                raise ProgramInvalid(f"pipeline {pipeline.name}: there is no node {target}")
        return pipeline

    def _table(self, data: Json, actions: dict[int, ir.Action]) -> ir.Table:
        name, source = data["name"], source_of(data)
        if data.get("type", "simple") != "simple":
            raise UnsupportedConstruct(f"action profiles and selectors (table {name})", source)
        if data.get("support_timeout"):
            raise UnsupportedConstruct(f"entry timeouts (table {name})", source)
        if data.get("direct_meters"):
            raise UnsupportedConstruct(f"meters (table {name})", source)
        key = [self._key_field(k, name, source) for k in data["key"]]
        ids = data.get("action_ids")
        if ids is None:
            by_name = {a.name: i for i, a in actions.items()}
            ids = [by_name[n] for n in data["actions"]]
        default = data.get("default_entry")
        if default is None:
            raise ProgramInvalid(f"table {name} has no default_entry")
        nexts = data["next_tables"]
        by_hit = "__HIT__" in nexts or "__MISS__" in nexts
        entries = [self._entry(e, key) for e in data.get("entries") or []]
        return ir.Table(
            name=name,
            id=data["id"],
            key=key,
            match_type=data["match_type"],
            max_size=data["max_size"],
            actions=[int(i) for i in ids],
            direct_counter=(self.direct.get(name, name) if data.get("with_counters") else None),
            default_action=default["action_id"],
            default_data=[int(d, 16) for d in default.get("action_data") or []],
            const_default=bool(default.get("action_const") or default.get("action_entry_const")),
            entries=entries,
            # p4c marks `entries = {…}` without const by "initial_entries"-style flags per entry;
            # a plain "entries" list makes the table immutable, as in BMv2.
            const_entries=bool(data.get("entries")),
            next_by_action={} if by_hit else {int(i): nexts.get(actions[i].name) for i in ids},
            next_hit=nexts.get("__HIT__"),
            next_miss=nexts.get("__MISS__"),
            by_hit=by_hit,
            source=source,
        )

    def _key_field(self, data: Json, table: str, source: ir.Source) -> ir.KeyField:
        match = data["match_type"]
        target = data["target"]
        mask = data.get("mask")
        if match == "valid":
            header = target if isinstance(target, str) else target[0]
            expr: ir.Expr = ir.Unary("b2d", ir.Valid(ir.HeaderRef(self.known_header(header))))
            return ir.KeyField(data.get("name") or header, "exact", expr, 1, None, None)
        if match not in ("exact", "lpm", "ternary", "range", "optional"):
            raise UnsupportedConstruct(f"match kind {match} (table {table})", source)
        expr = self.exprs.field_or_valid(target)
        hidden = isinstance(expr, ir.Unary)
        bits = 1 if hidden else self.exprs.field_bits(target)
        if match == "range" and bits > 64:
            raise UnsupportedConstruct(
                f"range match on {bits} bits (table {table})", source, "at most 64"
            )
        guard = None if hidden or self.headers[target[0]].metadata else target[0]
        return ir.KeyField(
            data.get("name") or ".".join(target),
            match,
            expr,
            bits,
            None if mask is None else int(mask, 16),
            guard,
        )

    def _entry(self, data: Json, key: list[ir.KeyField]) -> ir.ConstEntry:
        fields: list[dict[str, int]] = []
        for given, field in zip(data["match_key"], key, strict=True):
            kind = given["match_type"]
            if kind == "valid":
                fields.append({"value": int(bool(given["key"]))})
            elif kind == "exact":
                fields.append({"value": int(given["key"], 16)})
            elif kind == "lpm":
                fields.append({"value": int(given["key"], 16), "prefix": given["prefix_length"]})
            elif kind in ("ternary", "optional"):
                fields.append({"value": int(given["key"], 16), "mask": int(given["mask"], 16)})
            elif kind == "range":
                fields.append({"value": int(given["start"], 16), "mask": int(given["end"], 16)})
            else:
                raise ProgramInvalid(f"an entry matches {field.name} by {kind!r}")
        call = data["action_entry"]
        return ir.ConstEntry(
            fields,
            int(data.get("priority", 0)),
            call["action_id"],
            [int(d, 16) for d in call["action_data"]],
        )
