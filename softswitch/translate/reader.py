"""BMv2 JSON → IR. Refuses, by name and source line, what is outside the subset."""

from __future__ import annotations

from typing import Any

from . import ir
from .errors import ProgramInvalid, UnsupportedConstruct
from .read_expr import ExprReader, source_of, use_of
from .read_primitives import PrimitiveReader

Json = dict[str, Any]

MAX_FIELD_BITS = 2048
SUPPORTED_HASHES = {"csum16", "crc16", "crc32", "crcCCITT", "identity", "xor16"}
REFUSED_LISTS = {
    "header_unions": "header unions",
    "header_union_stacks": "header unions",
    "parse_vsets": "parser value sets",
    "meter_arrays": "meters",
    "extern_instances": "extern instances",
}


def read(data: Any) -> ir.Program:
    """Reads a parsed BMv2 JSON.

    Raises :class:`UnsupportedConstruct` for anything outside the subset and
    :class:`ProgramInvalid` for a JSON that p4c would not write.
    """
    if not isinstance(data, dict) or "pipelines" not in data or "header_types" not in data:
        raise ProgramInvalid("not a BMv2 JSON: 'pipelines' or 'header_types' is missing")
    try:
        return _Reader(data).read()
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise ProgramInvalid(f"not a valid BMv2 JSON: {type(e).__name__} {e}") from e


class _Reader:
    def __init__(self, data: Json) -> None:
        self.data = data
        for key, construct in REFUSED_LISTS.items():
            for each in data.get(key) or []:
                raise UnsupportedConstruct(
                    f"{construct} ({each['name']})", source_of(each) or use_of(data, each["name"])
                )
        # The types themselves carry no source line; some place that uses the field does.
        self.types = {t["name"]: self.header_type(t) for t in data["header_types"]}
        self.headers: dict[str, ir.Header] = {}
        by_id: dict[int, str] = {}
        for h in data["headers"]:
            by_id[h["id"]] = h["name"]
            self.headers[h["name"]] = ir.Header(
                h["name"], self.types[h["header_type"]], bool(h["metadata"])
            )
        self.stacks: dict[str, ir.Stack] = {}
        for s in data.get("header_stacks") or []:
            names = tuple(by_id[i] for i in s["header_ids"])
            stack_type = self.types[s["header_type"]]
            self.stacks[s["name"]] = ir.Stack(s["name"], stack_type, len(names), names)
            for index, name in enumerate(names):
                self.headers[name] = ir.Header(name, stack_type, False, s["name"], index)
        for h in self.headers.values():
            if not h.metadata and h.type.bits % 8 != 0:
                raise UnsupportedConstruct(f"header {h.name}, which is not a whole number of bytes")
        self.registers = {
            r["name"]: ir.Array(r["name"], r["id"], r["size"], self.width(r["bitwidth"], r))
            for r in data.get("register_arrays") or []
        }
        self.counters: dict[str, ir.Array] = {}
        self.direct: dict[str, str] = {}  # table → direct counter
        for c in data.get("counter_arrays") or []:
            if c.get("is_direct"):
                self.direct[c["binding"]] = c["name"]
            else:
                self.counters[c["name"]] = ir.Array(c["name"], c["id"], c["size"])
        self.exprs = ExprReader(self.headers, self.stacks)
        self.primitives = PrimitiveReader(
            self.exprs,
            set(self.registers),
            set(self.counters),
            {c["name"] for c in data.get("calculations") or []},
        )

    def width(self, bits: Any, where: Json) -> int:
        if not isinstance(bits, int) or bits < 1:
            raise ProgramInvalid(f"{where.get('name')}: a width of {bits!r} bits")
        if bits > MAX_FIELD_BITS:
            raise UnsupportedConstruct(
                f"{where.get('name')}: {bits} bits", source_of(where), f"at most {MAX_FIELD_BITS}"
            )
        return bits

    def header_type(self, data: Json) -> ir.HeaderType:
        fields: list[ir.Field] = []
        offset = 0
        for f in data["fields"]:
            name, bits = f[0], f[1]
            if bits == "*" or "length_exp" in data:
                users = [
                    h["name"] for h in self.data["headers"] if h["header_type"] == data["name"]
                ]
                places = (use_of(self.data, used) for used in (name, *users))
                raise UnsupportedConstruct(
                    f"varbit (field {name} of header {data['name']})",
                    next((place for place in places if place), None),
                )
            self.width(bits, {"name": f"field {name} of header {data['name']}"})
            fields.append(ir.Field(name, bits, bool(f[2]) if len(f) > 2 else False, offset))
            offset += bits
        return ir.HeaderType(data["name"], tuple(fields))

    def read(self) -> ir.Program:
        data = self.data
        pipelines = {p["name"]: p for p in data["pipelines"]}
        if set(pipelines) != {"ingress", "egress"}:
            raise UnsupportedConstruct(
                f"the architecture with pipelines {sorted(pipelines)}", why="v1model only"
            )
        actions = {a["id"]: self.action(a) for a in data["actions"]}
        parsers = data["parsers"]
        if len(parsers) != 1 or len(data["deparsers"]) != 1:
            raise UnsupportedConstruct(
                f"{len(parsers)} parsers and {len(data['deparsers'])} deparsers"
            )
        if data["deparsers"][0].get("primitives"):
            raise UnsupportedConstruct("calls of extern functions in the deparser")
        states = {s["name"]: self.parser_state(s) for s in parsers[0]["parse_states"]}
        program = ir.Program(
            name=str(data.get("program", "")),
            compiler=str((data.get("__meta__") or {}).get("compiler", "")),
            headers=self.headers,
            stacks=self.stacks,
            errors={str(name): int(value) for name, value in data.get("errors") or []},
            parser_states=states,
            parser_start=parsers[0]["init_state"],
            deparser=[str(name) for name in data["deparsers"][0]["order"]],
            actions=actions,
            ingress=self.pipeline(pipelines["ingress"], actions),
            egress=self.pipeline(pipelines["egress"], actions),
            registers=self.registers,
            counters=self.counters,
            calculations={c["name"]: self.calculation(c) for c in data.get("calculations") or []},
            checksums=[self.checksum(c) for c in data.get("checksums") or []],
            aliases={
                str(alias): self.exprs.field_ref(target)
                for alias, target in data.get("field_aliases") or []
            },
        )
        if "standard_metadata" not in self.headers:
            raise ProgramInvalid("not a v1model program: there is no standard_metadata")
        for state in states.values():
            for t in state.transitions:
                if t.next_state is not None and t.next_state not in states:
                    raise ProgramInvalid(f"parser state {t.next_state} does not exist")
        for name in program.deparser:
            if name not in self.headers:
                raise ProgramInvalid(f"the deparser emits {name}, which does not exist")
        return program

    # --- actions, parser ---

    def action(self, data: Json) -> ir.Action:
        params = [
            (p["name"], self.width(p["bitwidth"], {"name": f"parameter {p['name']}"}))
            for p in data["runtime_data"]
        ]
        widths = [bits for _, bits in params]
        source = source_of(data)
        body = [self.primitives.read(p, widths, source) for p in data["primitives"]]
        return ir.Action(data["name"], data["id"], params, body, source)

    def parser_state(self, data: Json) -> ir.ParserState:
        ops = [self.parser_op(op, data) for op in data["parser_ops"]]
        key: list[tuple[ir.Expr, int]] = []
        for k in data["transition_key"]:
            kind, value = k["type"], k["value"]
            if kind == "field":
                ref = self.exprs.field_or_valid(value)
                bits = 1 if isinstance(ref, ir.Unary) else self.field_bits(value)
                key.append((ref, bits))
            elif kind == "stack_field":
                stack = self.stacks[value[0]]
                key.append(
                    (ir.MemberOf(ir.StackLast(value[0]), value[1]), stack.type.field(value[1]).bits)
                )
            elif kind == "lookahead":
                key.append((ir.Lookahead(value[0], value[1]), value[1]))
            else:
                raise UnsupportedConstruct(f"select on a {kind}", source_of(data))
        widths = [bits for _, bits in key]
        transitions = [self.transition(t, widths, data) for t in data["transitions"]]
        return ir.ParserState(data["name"], ops, key, transitions, source_of(data))

    def field_bits(self, value: list[str]) -> int:
        return self.headers[value[0]].type.field(value[1]).bits

    def transition(self, data: Json, widths: list[int], state: Json) -> ir.Transition:
        if data.get("type") == "parse_vset":
            raise UnsupportedConstruct("parser value sets", use_of(state, data["value"]))
        value = data.get("value")
        if data.get("type") == "default" or value in (None, "default"):
            return ir.Transition(None, None, data["next_state"])
        mask = data.get("mask")
        return ir.Transition(
            _split_bytes(int(value, 16), widths),
            None if mask is None else _split_bytes(int(mask, 16), widths),
            data["next_state"],
        )

    def parser_op(self, data: Json, state: Json) -> ir.ParserOp:
        op, params = data["op"], data["parameters"]
        source = source_of(data) or source_of(state)
        if op == "extract":
            kind, value = params[0]["type"], params[0]["value"]
            if kind == "regular":
                return ir.Extract(self.header(value), None, source)
            if kind == "stack":
                return ir.Extract(None, self.stacks[value].name, source)
            raise UnsupportedConstruct(f"extract into a {kind}", source)
        if op == "extract_VL":
            raise UnsupportedConstruct("varbit (extract with a variable length)", source)
        if op == "set":
            place = self.exprs.place(params[0], source)
            if params[1]["type"] == "lookahead":
                offset, bits = params[1]["value"]
                return ir.Assign(place, ir.Lookahead(offset, bits), source=source)
            return ir.Assign(place, self.exprs.data(params[1], [], source), source=source)
        if op == "verify":
            return ir.Verify(
                self.exprs.boolean(params[0], [], source),
                self.exprs.data(params[1], [], source),
                source,
            )
        if op == "advance":
            return ir.Advance(self.exprs.data(params[0], [], source), source)
        if op == "shift":
            return ir.Advance(ir.Const(8 * int(params[0])), source)
        if op == "primitive":
            return self.primitives.read(params[0], [], source)
        raise UnsupportedConstruct(f"the parser operation {op}", source)

    def header(self, name: str) -> str:
        if name not in self.headers:
            raise ProgramInvalid(f"there is no header {name}")
        return name

    # --- tables ---

    def pipeline(self, data: Json, actions: dict[int, ir.Action]) -> ir.Pipeline:
        for profile in data.get("action_profiles") or []:
            raise UnsupportedConstruct(
                f"action profiles and selectors ({profile['name']})", source_of(profile)
            )
        for call in data.get("action_calls") or []:
            raise UnsupportedConstruct(f"action_calls ({call['name']})", source_of(call))
        tables = {t["name"]: self.table(t, actions) for t in data["tables"]}
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

    def table(self, data: Json, actions: dict[int, ir.Action]) -> ir.Table:
        name, source = data["name"], source_of(data)
        if data.get("type", "simple") != "simple":
            raise UnsupportedConstruct(f"action profiles and selectors (table {name})", source)
        if data.get("support_timeout"):
            raise UnsupportedConstruct(f"entry timeouts (table {name})", source)
        if data.get("direct_meters"):
            raise UnsupportedConstruct(f"meters (table {name})", source)
        key = [self.key_field(k, name, source) for k in data["key"]]
        ids = data.get("action_ids")
        if ids is None:
            by_name = {a.name: i for i, a in actions.items()}
            ids = [by_name[n] for n in data["actions"]]
        default = data.get("default_entry")
        if default is None:
            raise ProgramInvalid(f"table {name} has no default_entry")
        nexts = data["next_tables"]
        by_hit = "__HIT__" in nexts or "__MISS__" in nexts
        entries = [self.entry(e, key) for e in data.get("entries") or []]
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

    def key_field(self, data: Json, table: str, source: ir.Source) -> ir.KeyField:
        match = data["match_type"]
        target = data["target"]
        mask = data.get("mask")
        if match == "valid":
            header = target if isinstance(target, str) else target[0]
            expr: ir.Expr = ir.Unary("b2d", ir.Valid(ir.HeaderRef(self.header(header))))
            return ir.KeyField(data.get("name") or header, "exact", expr, 1, None, None)
        if match not in ("exact", "lpm", "ternary", "range", "optional"):
            raise UnsupportedConstruct(f"match kind {match} (table {table})", source)
        expr = self.exprs.field_or_valid(target)
        hidden = isinstance(expr, ir.Unary)
        bits = 1 if hidden else self.field_bits(target)
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

    def entry(self, data: Json, key: list[ir.KeyField]) -> ir.ConstEntry:
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

    # --- checksums ---

    def calculation(self, data: Json) -> ir.Calculation:
        algorithm = data["algo"]
        if algorithm not in SUPPORTED_HASHES:
            source = source_of(data) or use_of(self.data, data["name"])
            raise UnsupportedConstruct(f"the hash algorithm {algorithm}", source)
        inputs: list[tuple[ir.Expr, int] | ir.HeaderRef] = []
        payload = False
        for i in data["input"]:
            kind, value = i["type"], i.get("value")
            if kind == "payload":
                payload = True
            elif kind == "header":
                inputs.append(ir.HeaderRef(self.header(value)))
            elif kind == "field":
                expr = self.exprs.field_or_valid(value)
                bits = 1 if isinstance(expr, ir.Unary) else self.field_bits(value)
                inputs.append((expr, bits))
            elif kind == "hexstr":
                inputs.append((ir.Const(int(value, 16)), i["bitwidth"]))
            else:
                raise UnsupportedConstruct(f"a {kind} in a checksum or hash", source_of(data))
        return ir.Calculation(data["name"], algorithm, inputs, payload)

    def checksum(self, data: Json) -> ir.Checksum:
        if data["type"] != "generic":
            raise UnsupportedConstruct(f"checksums of type {data['type']}", source_of(data))
        condition = data.get("if_cond")
        return ir.Checksum(
            data["name"],
            self.exprs.field_ref(data["target"]),
            data["calculation"],
            None if condition is None else self.exprs.boolean(condition, [], source_of(data)),
            bool(data.get("verify", True)),
            bool(data.get("update", True)),
            source_of(data),
        )


def _split_bytes(value: int, widths: list[int]) -> tuple[int, ...]:
    """Takes a transition's value apart: each key element is padded to whole bytes."""
    parts: list[int] = []
    for bits in reversed(widths):
        size = 8 * ((bits + 7) // 8)
        parts.append(value & ((1 << size) - 1))
        value >>= size
    return tuple(reversed(parts))
