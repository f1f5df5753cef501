"""BMv2 JSON → IR. Refuses constructs outside the subset, with their name and source line."""

from __future__ import annotations

from typing import Any

from . import ir, lines
from .errors import ProgramInvalid, UnsupportedConstruct
from .node import MAX_NUMBER_BITS, U16, U31, U32, Node, unique
from .read_expr import ExprReader, source_of, use_of
from .read_parser import ParserReader
from .read_primitives import PrimitiveReader
from .read_tables import TableReader

MAX_FIELD_BITS = 2048
MAX_STATE_BYTES = 4 << 30
"""Registers and counters of one program, together."""

MAX_INPUT_BITS = 8 << 16
"""What one checksum or hash covers, without the payload: as much as the longest frame."""

MAX_PATH = 4096
SUPPORTED_HASHES = {"csum16", "crc16", "crc32", "crcCCITT", "identity", "xor16"}
REFUSED_LISTS = {
    "header_unions": "header unions",
    "header_union_stacks": "header unions",
    "parse_vsets": "parser value sets",
    "meter_arrays": "meters",
    "extern_instances": "extern instances",
}
# Fields of standard_metadata that the switch itself reads or writes.
SPEC, STANDARD = "egress_spec", "standard_metadata"


def read(data: Any) -> ir.Program:
    """Reads a parsed BMv2 JSON.

    Raises :class:`UnsupportedConstruct` for anything outside the subset and
    :class:`ProgramInvalid` for a JSON that p4c would not write.
    """
    if not isinstance(data, dict) or "pipelines" not in data or "header_types" not in data:
        raise ProgramInvalid(lines.NOT_BMV2_JSON.of())
    return _Reader(Node(data)).read()


class _Reader:
    def __init__(self, data: Node) -> None:
        self.data = data
        for key, construct in REFUSED_LISTS.items():
            for each in data.each(key):
                name = each["name"].name()
                raise UnsupportedConstruct(
                    f"{construct} ({name})", source_of(each) or use_of(data, name)
                )
        # The types themselves carry no source line; some place that uses the field does.
        types = unique(data.each("header_types"), "name", "header type")
        self.types = {name: self.header_type(t) for name, t in types.items()}
        self.headers: dict[str, ir.Header] = {}
        self.stacks: dict[str, ir.Stack] = {}
        self.read_headers()
        self.registers = {
            name: ir.Array(
                name, r["id"].whole(0, U31), r["size"].whole(0, U31), self.width(r["bitwidth"], r)
            )
            for name, r in unique(data.each("register_arrays"), "name", "register").items()
        }
        self.counters: dict[str, ir.Array] = {}
        self.direct: dict[str, str] = {}  # table → direct counter
        for name, c in unique(data.each("counter_arrays"), "name", "counter").items():
            direct = c.get("is_direct")
            if direct is not None and direct.flag():
                self.direct[c["binding"].name()] = name
            else:
                self.counters[name] = ir.Array(name, c["id"].whole(0, U31), c["size"].whole(0, U31))
        self.check_memory()
        self.exprs = ExprReader(self.headers, self.stacks)
        calculations = unique(data.each("calculations"), "name", "calculation")
        self.calculations = {name: self.calculation(c) for name, c in calculations.items()}
        self.tables = TableReader(self.exprs, self.headers, self.direct)
        self.primitives = PrimitiveReader(
            self.exprs, set(self.registers), set(self.counters), set(self.calculations)
        )

    # --- types, headers, arrays ---

    def width(self, bits: Node, where: Node) -> int:
        found = bits.whole(1, U31)
        if found > MAX_FIELD_BITS:
            raise UnsupportedConstruct(
                f"{where['name'].name()}: {found} bits",
                source_of(where),
                f"at most {MAX_FIELD_BITS}",
            )
        return found

    def header_type(self, data: Node) -> ir.HeaderType:
        fields: list[ir.Field] = []
        type_name, offset = data["name"].name(), 0
        for f in data.each("fields"):
            name = f[0].name()
            if any(name == other.name for other in fields):
                raise f.fault("two fields of one header have the same name")
            # Only this makes a varbit, as in BMv2: old JSONs have a length_exp without one.
            if f[1].value == "*":
                self.refuse_varbit(type_name, name)
            bits = f[1].whole(1, U31)
            if bits > MAX_FIELD_BITS:
                raise UnsupportedConstruct(
                    f"field {name} of header {type_name}: {bits} bits",
                    why=f"at most {MAX_FIELD_BITS}",
                )
            # Older JSONs have no third member, which says whether the field is signed.
            signed = len(f.value) > 2 and f.value[2] is not None and f[2].flag()
            if len(f.value) > 3 and f.value[3] is not None and f[3].flag():
                raise UnsupportedConstruct(f"saturating fields ({name} of header {type_name})")
            fields.append(ir.Field(name, bits, signed, offset))
            offset += bits
        return ir.HeaderType(type_name, tuple(fields))

    def refuse_varbit(self, type_name: str, field: str) -> None:
        users = [
            h["name"].name()
            for h in self.data.each("headers")
            if h["header_type"].value == type_name
        ]
        places = (use_of(self.data, used) for used in (field, *users))
        raise UnsupportedConstruct(
            f"varbit (field {field} of header {type_name})",
            next((place for place in places if place), None),
        )

    def read_headers(self) -> None:
        by_id: dict[int, str] = {}
        for name, h in unique(self.data.each("headers"), "name", "header").items():
            number = h["id"].whole(0, U31)
            if number in by_id:
                raise h.fault(f"two headers have the id {number}")
            by_id[number] = name
            metadata = h.get("metadata")
            self.headers[name] = ir.Header(
                name, self.type_of(h), metadata is not None and metadata.flag()
            )
        for name, s in unique(self.data.each("header_stacks"), "name", "header stack").items():
            if name in self.headers:
                raise s.fault(f"there is a header called {name}, too")
            stack_type = self.type_of(s)
            elements: list[str] = []
            for i in s["header_ids"].items():
                element = by_id.get(i.whole(0, U31))
                header = None if element is None else self.headers[element]
                if element is None or header is None:
                    raise i.fault("there is no header with this id")
                if header.metadata or header.stack is not None or header.type is not stack_type:
                    raise i.fault(f"header {element} is not one of type {stack_type.name} alone")
                index = len(elements)
                self.headers[element] = ir.Header(element, stack_type, False, name, index)
                elements.append(element)
            if not elements:
                raise s.fault("a header stack without elements")
            self.stacks[name] = ir.Stack(name, stack_type, len(elements), tuple(elements))
        for header in self.headers.values():
            if not header.metadata and header.type.bits % 8 != 0:
                raise UnsupportedConstruct(
                    f"header {header.name}, which is not a whole number of bytes"
                )

    def type_of(self, data: Node) -> ir.HeaderType:
        name = data["header_type"].name()
        if name not in self.types:
            raise data["header_type"].fault(f"there is no header type {name}")
        return self.types[name]

    def check_memory(self) -> None:
        used = sum(16 * c.size for c in self.counters.values())
        used += sum(8 * ((r.bits + 63) // 64) * r.size for r in self.registers.values())
        if used > MAX_STATE_BYTES:
            raise UnsupportedConstruct(
                f"registers and counters of {used >> 20} MiB",
                why=f"at most {MAX_STATE_BYTES >> 20}",
            )

    # --- the program ---

    def read(self) -> ir.Program:
        data = self.data
        pipelines = unique(data.each("pipelines"), "name", "pipeline")
        if set(pipelines) != {"ingress", "egress"}:
            raise UnsupportedConstruct(
                f"the architecture with pipelines {sorted(pipelines)}", why="v1model only"
            )
        standard = self.headers.get(STANDARD)
        if standard is None or not standard.metadata:
            raise ProgramInvalid(lines.NOT_V1MODEL.of())
        aliases = self.aliases()
        actions: dict[int, ir.Action] = {}
        for a in data.each("actions"):
            action = self.action(a)
            if action.id in actions:
                raise a.fault(f"two actions have the id {action.id}")
            actions[action.id] = action
        parsers, deparsers = data.each("parsers"), data.each("deparsers")
        if len(parsers) != 1 or len(deparsers) != 1:
            raise UnsupportedConstruct(f"{len(parsers)} parsers and {len(deparsers)} deparsers")
        if deparsers[0].each("primitives"):
            raise UnsupportedConstruct("calls of extern functions in the deparser")
        parser = ParserReader(self.exprs, self.primitives)
        states, start = parser.read(parsers[0])
        ingress = self.tables.pipeline(pipelines["ingress"], actions)
        egress = self.tables.pipeline(pipelines["egress"], actions)
        for name in egress.tables:
            if name in ingress.tables:
                raise pipelines["egress"].fault(f"table {name} is in ingress, too")
        meta = data.get("__meta__")
        compiler = None if meta is None else meta.get("compiler")
        program = data.get("program")
        return ir.Program(
            name="" if program is None or program.value == "" else program.name(MAX_PATH),
            compiler="" if compiler is None or compiler.value == "" else compiler.name(),
            headers=self.headers,
            stacks=self.stacks,
            errors=self.errors(),
            parser_states=states,
            parser_start=start,
            deparser=[self.emitted(name) for name in deparsers[0]["order"].items()],
            actions=actions,
            ingress=ingress,
            egress=egress,
            registers=self.registers,
            counters=self.counters,
            calculations=self.calculations,
            checksums=[self.checksum(c) for c in data.each("checksums")],
            aliases=aliases,
        )

    def errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in self.data.each("errors"):
            name, value = each.pair()
            found[name.name()] = value.whole(0, U16)
        return found

    def aliases(self) -> dict[str, ir.FieldRef]:
        """Other names of fields of standard_metadata. What the switch itself uses must be plain."""
        found: dict[str, ir.FieldRef] = {}
        for each in self.data.each("field_aliases"):
            alias, target = each.pair()
            found[alias.name()] = self.plain(target)
        for name in (SPEC,):
            if f"intrinsic_metadata.{name}" not in found:
                self.plain(Node([STANDARD, name], f"headers: {STANDARD}"))
        for field in self.headers[STANDARD].type.fields:
            self.plain(Node([STANDARD, field.name], f"header_types: {STANDARD}"))
        return found

    def plain(self, node: Node) -> ir.FieldRef:
        ref = ExprReader(self.headers, self.stacks).field_ref(node)
        header = self.headers[ref.header]
        field = header.type.field(ref.field)
        if not header.metadata or field.bits > 64 or field.signed:
            raise node.fault(
                f"{ref.header}.{ref.field} is no metadata of at most 64 bits without a sign"
            )
        return ref

    def emitted(self, node: Node) -> str:
        name = node.name()
        header = self.headers.get(name)
        if header is None or header.metadata:
            raise node.fault(f"the deparser emits {name}, which is no header")
        return name

    def action(self, data: Node) -> ir.Action:
        params = [
            (p["name"].name(), self.width(p["bitwidth"], p)) for p in data.each("runtime_data")
        ]
        widths = [bits for _, bits in params]
        source = source_of(data)
        primitives = data.each("primitives")
        body = [self.primitives.read(p, widths, source) for p in primitives]
        for stmt, node in zip(body, primitives, strict=True):
            if isinstance(stmt, ir.Jump | ir.JumpIfZero) and not 0 <= stmt.target <= len(body):
                raise node.fault(f"a jump to primitive {stmt.target} of {len(body)}")
        return ir.Action(data["name"].name(), data["id"].whole(0, U32), params, body, source)

    # --- checksums ---

    def calculation(self, data: Node) -> ir.Calculation:
        algorithm, name = data["algo"].name(), data["name"].name()
        if algorithm not in SUPPORTED_HASHES:
            source = source_of(data) or use_of(self.data, name)
            raise UnsupportedConstruct(f"the hash algorithm {algorithm}", source)
        inputs: list[tuple[ir.Expr, int] | ir.HeaderRef] = []
        payload, total = False, 0
        for i in data["input"].items():
            kind = i["type"].name()
            if kind == "payload":
                payload = True
            elif kind == "header":
                header = self.exprs.packet_header(i["value"])
                inputs.append(ir.HeaderRef(header))
                total += self.headers[header].type.bits
            elif kind == "field":
                expr, bits = self.exprs.field_with_bits(i["value"])
                inputs.append((expr, bits))
                total += bits
            elif kind == "hexstr":
                bits = i["bitwidth"].whole(1, MAX_NUMBER_BITS)
                inputs.append((ir.Const(i["value"].hexstr()), bits))
                total += bits
            else:
                raise UnsupportedConstruct(f"a {kind} in a checksum or hash", source_of(data))
        if total > MAX_INPUT_BITS:
            raise UnsupportedConstruct(
                f"a checksum or hash over {total} bits",
                source_of(data),
                f"at most {MAX_INPUT_BITS}",
            )
        return ir.Calculation(name, algorithm, inputs, payload)

    def checksum(self, data: Node) -> ir.Checksum:
        kind = data["type"].name()
        if kind != "generic":
            raise UnsupportedConstruct(f"checksums of type {kind}", source_of(data))
        calculation = data["calculation"].name()
        if calculation not in self.calculations:
            raise data["calculation"].fault(f"there is no calculation {calculation}")
        condition = data.get("if_cond")
        verify, update = data.get("verify"), data.get("update")
        return ir.Checksum(
            data["name"].name(),
            self.exprs.field_ref(data["target"]),
            calculation,
            None if condition is None else self.exprs.boolean(condition, [], source_of(data)),
            verify is None or verify.flag(),
            update is None or update.flag(),
            source_of(data),
        )
