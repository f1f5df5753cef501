"""BMv2 JSON → IR. Refuses, by name and source line, what is outside the subset."""

from __future__ import annotations

from typing import Any

from . import ir
from .errors import ProgramInvalid, UnsupportedConstruct
from .read_expr import ExprReader, source_of, use_of
from .read_primitives import PrimitiveReader
from .read_tables import TableReader

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
        self.tables = TableReader(self.exprs, self.headers, self.direct)
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
            ingress=self.tables.pipeline(pipelines["ingress"], actions),
            egress=self.tables.pipeline(pipelines["egress"], actions),
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
                bits = 1 if isinstance(ref, ir.Unary) else self.exprs.field_bits(value)
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
                bits = 1 if isinstance(expr, ir.Unary) else self.exprs.field_bits(value)
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
