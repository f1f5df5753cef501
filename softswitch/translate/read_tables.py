"""Pipelines, tables and conditionals → IR."""

from __future__ import annotations

from . import ir
from .errors import OLD_JSON, UnsupportedConstruct
from .node import U31, Node, unique
from .read_expr import ExprReader, source_of

MATCH_KINDS = ("exact", "lpm", "ternary", "range", "optional")
MAX_PRIORITY = (1 << 30) - 1


class TableReader:
    """Reads pipelines. ``direct`` maps a table to its direct counter."""

    def __init__(
        self, exprs: ExprReader, headers: dict[str, ir.Header], direct: dict[str, str]
    ) -> None:
        self.exprs = exprs
        self.headers = headers
        self.direct = direct

    def pipeline(self, data: Node, actions: dict[int, ir.Action]) -> ir.Pipeline:
        """One pipeline with its tables and conditions."""
        for profile in data.each("action_profiles"):
            raise UnsupportedConstruct(
                f"action profiles and selectors ({profile['name'].name()})", source_of(profile)
            )
        for call in data.each("action_calls"):
            raise UnsupportedConstruct(f"action_calls ({call['name'].name()})", source_of(call))
        nodes = unique([*data.each("tables"), *data.each("conditionals")], "name", "node")
        tables = {t["name"].name(): self._table(t, actions, nodes) for t in data.each("tables")}
        conditionals = {
            c["name"].name(): ir.Conditional(
                c["name"].name(),
                self.exprs.boolean(c["expression"], [], source_of(c)),
                _target(c.get("true_next"), nodes),
                _target(c.get("false_next"), nodes),
                source_of(c),
            )
            for c in data.each("conditionals")
        }
        name, first = data["name"].name(), _target(data.get("init_table"), nodes)
        pipeline = ir.Pipeline(name, first, tables, conditionals)
        _check_circles(data, pipeline)
        return pipeline

    def _table(self, data: Node, actions: dict[int, ir.Action], nodes: dict[str, Node]) -> ir.Table:
        name, source = data["name"].name(), source_of(data)
        kind = data.get("type")
        if kind is not None and kind.value != "simple":
            raise UnsupportedConstruct(f"action profiles and selectors (table {name})", source)
        aging = data.get("support_timeout")
        if aging is not None and aging.flag():
            raise UnsupportedConstruct(f"entry timeouts (table {name})", source)
        if data.get("direct_meters") is not None:
            raise UnsupportedConstruct(f"meters (table {name})", source)
        key = [self._key_field(k, name, source) for k in data.each("key")]
        if sum(k.match == "lpm" for k in key) > 1:
            raise UnsupportedConstruct(f"two lpm fields in one key (table {name})", source)
        ids = _action_ids(data, actions)
        nexts = data["next_tables"]
        by_hit = nexts.get("__HIT__") is not None or nexts.get("__MISS__") is not None
        by_hit = by_hit or "__HIT__" in nexts.value or "__MISS__" in nexts.value
        default = data.get("default_entry")
        if default is None:
            raise UnsupportedConstruct(
                f"a table without a default action ({name})", source_of(data), OLD_JSON
            )
        default_action = _action_of(default, ids)
        counted = data.get("with_counters")
        const = [default.get(k) for k in ("action_const", "action_entry_const")]
        return ir.Table(
            name=name,
            id=data["id"].whole(0, U31),
            key=key,
            max_size=data["max_size"].whole(0, U31),
            actions=ids,
            direct_counter=(
                self.direct.get(name, name) if counted is not None and counted.flag() else None
            ),
            default_action=default_action,
            default_data=_action_data(default, actions[default_action]),
            const_default=any(c is not None and c.flag() for c in const),
            entries=[self._entry(e, key, ids, actions) for e in data.each("entries")],
            # p4c marks `entries = {…}` without const by "initial_entries"-style flags per entry;
            # a plain "entries" list makes the table immutable, as in BMv2.
            const_entries=bool(data.each("entries")),
            next_by_action={}
            if by_hit
            else {i: _target(nexts.member(actions[i].name), nodes) for i in ids},
            next_hit=_target(nexts.get("__HIT__"), nodes),
            next_miss=_target(nexts.get("__MISS__"), nodes),
            by_hit=by_hit,
            source=source,
        )

    def _key_field(self, data: Node, table: str, source: ir.Source) -> ir.KeyField:
        match, target = data["match_type"].name(), data["target"]
        given = data.get("name")
        if match == "valid":
            header = self.exprs.known_header(target if isinstance(target.value, str) else target[0])
            expr: ir.Expr = ir.Unary("b2d", ir.Valid(ir.HeaderRef(header)))
            name = header if given is None else given.name()
            return ir.KeyField(name, "exact", expr, 1, None, None)
        if match not in MATCH_KINDS:
            raise UnsupportedConstruct(f"match kind {match} (table {table})", source)
        expr, bits = self.exprs.field_with_bits(target)
        if match == "range" and bits > 64:
            raise UnsupportedConstruct(
                f"range match on {bits} bits (table {table})", source, "at most 64"
            )
        guard = None
        if isinstance(expr, ir.FieldRef) and not self.headers[expr.header].metadata:
            guard = expr.header
        mask = data.get("mask")
        return ir.KeyField(
            ".".join(part.name() for part in target.pair()) if given is None else given.name(),
            match,
            expr,
            bits,
            None if mask is None else mask.bits(bits),
            guard,
        )

    def _entry(
        self, data: Node, key: list[ir.KeyField], ids: list[int], actions: dict[int, ir.Action]
    ) -> ir.ConstEntry:
        given = data["match_key"].items()
        if len(given) != len(key):
            raise data["match_key"].fault(f"{len(given)} fields instead of {len(key)}")
        call = data["action_entry"]
        action = _action_of(call, ids)
        priority = data.get("priority")
        return ir.ConstEntry(
            [_match(g, field) for g, field in zip(given, key, strict=True)],
            0 if priority is None else priority.whole(0, MAX_PRIORITY),
            action,
            _action_data(call, actions[action]),
        )


def _match(given: Node, field: ir.KeyField) -> dict[str, int]:
    """How an entry of the program matches one field."""
    kind, bits = given["match_type"].name(), field.bits
    if kind == "valid" and field.match == "exact":
        return {"value": int(given["key"].flag())}
    # p4c writes an optional field as a ternary one.
    if kind != field.match and {kind, field.match} != {"ternary", "optional"}:
        raise given.fault(f"an entry matches {field.name} by {kind} instead of {field.match}")
    if kind == "range":
        start, end = given["start"].bits(bits), given["end"].bits(bits)
        if start > end:
            raise given.fault("an empty range")
        return {"value": start, "mask": end}
    value = {"value": given["key"].bits(bits)}
    if kind == "lpm":
        value["prefix"] = given["prefix_length"].whole(0, bits)
    elif kind in ("ternary", "optional"):
        value["mask"] = given["mask"].bits(bits)
    return value


def _action_ids(data: Node, actions: dict[int, ir.Action]) -> list[int]:
    ids: list[int] = []
    given = data.get("action_ids")
    if given is not None:
        for node in given.items():
            ids.append(node.whole(0, (1 << 32) - 1))
            if ids[-1] not in actions:
                raise node.fault("there is no action with this id")
    else:
        by_name = {a.name: i for i, a in actions.items()}
        for node in data["actions"].items():
            name = node.name()
            if name not in by_name:
                raise node.fault(f"there is no action {name}")
            ids.append(by_name[name])
    if len({actions[i].name for i in ids}) != len(ids):
        raise data.fault("two actions of one table have the same name")
    return ids


def _action_of(call: Node, ids: list[int]) -> int:
    """The action of an entry: one of the table's."""
    node = call["action_id"]
    number = node.whole(0, (1 << 32) - 1)
    if number not in ids:
        raise node.fault("it is none of the table's actions")
    return number


def _action_data(call: Node, action: ir.Action) -> list[int]:
    """The values that an entry gives for the parameters of its action."""
    data = call.each("action_data")
    if len(data) != len(action.params):
        raise call.fault(
            f"{len(data)} values for the {len(action.params)} parameters of action {action.name}"
        )
    return [d.bits(bits) for d, (_, bits) in zip(data, action.params, strict=True)]


def _target(node: Node | None, nodes: dict[str, Node]) -> str | None:
    """Where control goes; None: the pipeline ends."""
    if node is None:
        return None
    name = node.name()
    if name not in nodes:
        raise node.fault(f"there is no table or condition {name}")
    return name


def _check_circles(data: Node, pipeline: ir.Pipeline) -> None:
    """Refuses a pipeline that could go round for ever."""
    ended: set[str] = set()
    open_: set[str] = set()
    stack: list[tuple[str, bool]] = [(pipeline.first, False)] if pipeline.first else []
    while stack:
        name, leave = stack.pop()
        if leave:
            open_.discard(name)
            ended.add(name)
            continue
        if name in ended:
            continue
        if name in open_:
            raise data.fault(f"pipeline {pipeline.name} goes round in a circle at {name}")
        open_.add(name)
        stack.append((name, True))
        for successor in pipeline.successors(name):
            if successor is None or successor in ended:
                continue
            if successor in open_:
                raise data.fault(f"pipeline {pipeline.name} goes round in a circle at {successor}")
            stack.append((successor, False))
