"""JSON expressions → IR expressions."""

from __future__ import annotations

import re
from typing import Any

from . import ir
from .errors import UnsupportedConstruct
from .node import MAX_NUMBER_BITS, Node
from .writer import printable

ARITHMETIC = {"+", "-", "*", "/", "%", "<<", ">>", "&", "|", "^"}
COMPARISON = {"==", "!=", "<", ">", "<=", ">="}
BOOLEAN_RESULT = COMPARISON | {"and", "or", "not", "d2b", "valid", "valid_union"}
DEREFERENCE = "dereference_header_stack"
CASTS = {"two_comp_mod", "sat_cast", "usat_cast"}
MAX_DEPTH = 100
"""How deeply operations may be nested."""


def source_of(data: Node) -> ir.Source:
    """The ``source_info`` of a JSON object, where it has one. It is for people: never refused."""
    return _source(data.value)


def _source(data: Any) -> ir.Source:
    info = data.get("source_info") if isinstance(data, dict) else None
    if not isinstance(info, dict):
        return ir.NOWHERE
    filename, line = info.get("filename"), info.get("line")
    fragment = info.get("source_fragment")
    return ir.Source(
        printable(filename)[:200] if isinstance(filename, str) else "",
        line if type(line) is int and 0 <= line < 1 << 31 else 0,
        printable(fragment)[:1000] if isinstance(fragment, str) else "",
    )


def use_of(data: Node, name: str) -> ir.Source:
    """Some place of the P4 source that uses ``name``, for what carries no source line itself.

    First where the JSON refers to it, else where a fragment of the source that the JSON quotes
    mentions it.
    """
    word = re.compile(rf"\b{re.escape(name.split('[')[0].rsplit('.', 1)[-1])}\b")
    quoted = ir.NOWHERE
    waiting: list[tuple[Any, ir.Source]] = [(data.value, ir.NOWHERE)]
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, dict):
            around = _source(node) or around
            value = node.get("value")
            if around and (value == name or (isinstance(value, list) and name in value)):
                return around
            if not quoted and word.search(around.fragment):
                quoted = around
            waiting.extend((child, around) for child in reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend((child, around) for child in reversed(node))
    return quoted


def unwrap(data: Node) -> Node:
    """Takes off the layers ``{"type": "expression", "value": …}`` around an object."""
    while data["type"].value == "expression" and data["value"].is_object():
        inner = data["value"]
        if "op" in inner.value:
            return data
        data = inner
    return data


class ExprReader:
    """Reads type-value objects, given the program's headers."""

    def __init__(self, headers: dict[str, ir.Header], stacks: dict[str, ir.Stack]) -> None:
        self.headers = headers
        self.stacks = stacks
        self.depth = 0

    # --- headers and fields by name ---

    def known_header(self, node: Node) -> str:
        """A header's name, metadata too."""
        name = node.name()
        if name not in self.headers:
            raise node.fault(f"there is no header {name}")
        return name

    def packet_header(self, node: Node) -> str:
        """The name of a header that packets have: no metadata."""
        name = self.known_header(node)
        if self.headers[name].metadata:
            raise node.fault(f"{name} is metadata, no header of a packet")
        return name

    def field_ref(self, node: Node) -> ir.FieldRef:
        """A named field (not ``$valid$``)."""
        first, second = node.pair()
        header, name = self.known_header(first), second.name()
        try:
            self.headers[header].type.field(name)
        except KeyError:
            raise node.fault(f"header {header} has no field {name}") from None
        return ir.FieldRef(header, name)

    def field_or_valid(self, node: Node) -> ir.Expr:
        """A named field, or ``b2d(valid)`` for ``$valid$``."""
        header, name = node.pair()
        if name.value == "$valid$":
            return ir.Unary("b2d", ir.Valid(ir.HeaderRef(self.known_header(header))))
        return self.field_ref(node)

    def field_with_bits(self, node: Node) -> tuple[ir.Expr, int]:
        """The same and its width."""
        expr = self.field_or_valid(node)
        if isinstance(expr, ir.FieldRef):
            return expr, self.headers[expr.header].type.field(expr.field).bits
        return expr, 1

    def stack(self, node: Node) -> str:
        """The name of a header stack."""
        name = node.name()
        if name not in self.stacks:
            raise node.fault(f"there is no header stack {name}")
        return name

    def member(self, header: ir.StackElement | ir.StackLast, node: Node) -> ir.MemberOf:
        """A field, by name, of a header that is only known at run time."""
        name = node.name()
        try:
            self.stacks[header.stack].type.field(name)
        except KeyError:
            raise node.fault(f"header stack {header.stack} has no field {name}") from None
        return ir.MemberOf(header, name)

    def member_bits(self, member: ir.MemberOf) -> int:
        """The width of such a field."""
        return self.stacks[member.header.stack].type.field(member.field).bits

    # --- expressions ---

    def is_boolean(self, data: Node) -> bool:
        """Whether a type-value object is a boolean (bmv2 keeps booleans and numbers apart)."""
        while True:
            data = unwrap(data)
            kind = data["type"].value
            if kind != "expression":
                return bool(kind == "bool")
            expr = data["value"]
            if expr["op"].value != "?":
                return expr["op"].name() in BOOLEAN_RESULT
            data = expr["left"]

    def data(self, data: Node, params: list[int], source: ir.Source) -> ir.Expr:
        """A number. ``params`` are the widths of the enclosing action's parameters."""
        data = unwrap(data)
        kind = data["type"].name()
        if kind == "hexstr":
            return ir.Const(data["value"].hexstr())
        if kind == "field":
            return self.field_or_valid(data["value"])
        if kind in ("local", "runtime_data"):
            if not params:
                raise data.fault("there is no parameter here")
            index = data["value"].whole(0, len(params) - 1)
            return ir.Param(index, params[index])
        if kind == "stack_field":
            stack, name = data["value"].pair()
            return self.member(ir.StackLast(self.stack(stack)), name)
        if kind == "bool":
            return ir.Const(int(data["value"].flag()))
        if kind == "expression":
            return self._operation(data["value"], params, source)
        if kind == "register":
            raise UnsupportedConstruct("registers inside of expressions", source)
        raise UnsupportedConstruct(f"a {kind} as a value", source)

    def _deeper(self, node: Node) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise node.fault(f"more than {MAX_DEPTH} operations in each other")

    def boolean(self, data: Node, params: list[int], source: ir.Source) -> ir.Expr:
        """A boolean."""
        data = unwrap(data)
        kind = data["type"].name()
        if kind == "bool":
            return ir.BoolConst(data["value"].flag())
        if kind != "expression":
            return ir.Unary("d2b", self.data(data, params, source))
        before = self.depth
        self._deeper(data)
        try:
            return self._condition(data, data["value"], params, source)
        finally:
            self.depth = before

    def _condition(self, data: Node, value: Node, params: list[int], source: ir.Source) -> ir.Expr:
        op = value["op"].name()
        if op in ("and", "or"):
            return ir.Binary(
                op,
                self.boolean(value["left"], params, source),
                self.boolean(value["right"], params, source),
            )
        if op == "not":
            return ir.Unary("not", self.boolean(value["right"], params, source))
        if op == "d2b":
            return ir.Unary("d2b", self.data(value["right"], params, source))
        if op == "valid":
            return ir.Valid(self.header(value["right"], params, source, metadata=True))
        if op in ("==", "!=") and self._is_header(value["left"]):
            left = self.header(value["left"], params, source)
            right = self.header(value["right"], params, source)
            if self.type_of(left) is not self.type_of(right):
                raise value.fault("a comparison of headers of two types")
            same = ir.HeadersEqual(left, right)
            return same if op == "==" else ir.Unary("not", same)
        if op in ("==", "!=") and self.is_boolean(value["left"]):
            return ir.Binary(
                "bool" + op,
                self.boolean(value["left"], params, source),
                self.boolean(value["right"], params, source),
            )
        if op in COMPARISON:
            return ir.Binary(
                op,
                self.data(value["left"], params, source),
                self.data(value["right"], params, source),
            )
        if op == "?" and self.is_boolean(data):
            return ir.Select(
                self.boolean(value["cond"], params, source),
                self.boolean(value["left"], params, source),
                self.boolean(value["right"], params, source),
            )
        return ir.Unary("d2b", self._operation(value, params, source))

    def _operation(self, value: Node, params: list[int], source: ir.Source) -> ir.Expr:
        before = self.depth
        self._deeper(value)
        try:
            return self._number(value, params, source)
        finally:
            self.depth = before

    def _number(self, value: Node, params: list[int], source: ir.Source) -> ir.Expr:
        op = value["op"].name()
        if op in ARITHMETIC:
            return ir.Binary(
                op,
                self.data(value["left"], params, source),
                self.data(value["right"], params, source),
            )
        if op == "~":
            return ir.Unary("~", self.data(value["right"], params, source))
        if op == "b2d":
            return ir.Unary("b2d", self.boolean(value["right"], params, source))
        if op in CASTS:
            width = self.data(value["right"], params, source)
            if not isinstance(width, ir.Const) or not 1 <= width.value <= MAX_NUMBER_BITS:
                raise UnsupportedConstruct(
                    f"{op} to a width that is not a constant from 1 to {MAX_NUMBER_BITS}", source
                )
            return ir.Cast(op, self.data(value["left"], params, source), width.value)
        if op == "?":
            return ir.Select(
                self.boolean(value["cond"], params, source),
                self.data(value["left"], params, source),
                self.data(value["right"], params, source),
            )
        if op == "access_field":
            header = self.header(value["left"], params, source, metadata=True)
            return self._member_at(header, value["right"])
        if op == "last_stack_index":
            return ir.StackSize(self.stack(unwrap(value["right"])["value"]), 1)
        if op == "size_stack":
            return ir.StackSize(self.stack(unwrap(value["right"])["value"]), 0)
        if op in BOOLEAN_RESULT:
            whole = Node({"type": "expression", "value": value.value}, value.path)
            return ir.Unary("b2d", self.boolean(whole, params, source))
        raise UnsupportedConstruct(f"the operation {op}", source)

    def _is_header(self, data: Node) -> bool:
        data = unwrap(data)
        if data["type"].value == "header":
            return True
        return bool(data["type"].value == "expression" and data["value"]["op"].value == DEREFERENCE)

    def header(
        self, data: Node, params: list[int], source: ir.Source, *, metadata: bool = False
    ) -> ir.HeaderRef | ir.StackElement:
        """A header, by name or by a run-time index in a stack; metadata only where told."""
        data = unwrap(data)
        kind = data["type"].name()
        if kind == "header":
            find = self.known_header if metadata else self.packet_header
            return ir.HeaderRef(find(data["value"]))
        if kind == "expression" and data["value"]["op"].value == DEREFERENCE:
            inner = data["value"]
            name = self.stack(unwrap(inner["left"])["value"])
            before = self.depth
            self._deeper(inner)
            index = self.data(inner["right"], params, source)
            self.depth = before
            if isinstance(index, ir.Const) and 0 <= index.value < self.stacks[name].size:
                return ir.HeaderRef(self.stacks[name].elements[index.value])
            return ir.StackElement(name, index)
        what = data["value"]["op"].name() if kind == "expression" else kind
        raise UnsupportedConstruct(f"{what} as a header", source)

    def type_of(self, header: ir.HeaderRef | ir.StackElement) -> ir.HeaderType:
        """The type of a header."""
        if isinstance(header, ir.HeaderRef):
            return self.headers[header.name].type
        return self.stacks[header.stack].type

    def _member_at(self, header: ir.HeaderRef | ir.StackElement, index: Node) -> ir.Expr:
        fields = self.type_of(header).fields
        at = index.whole(0, len(fields))
        if at == len(fields):  # bmv2's hidden $valid$ comes after the fields
            return ir.Unary("b2d", ir.Valid(header))
        if isinstance(header, ir.HeaderRef):
            return ir.FieldRef(header.name, fields[at].name)
        return ir.MemberOf(header, fields[at].name)

    def place(self, data: Node, source: ir.Source, params: list[int] | None = None) -> ir.Place:
        """Something that can be assigned to."""
        expr = self.data(data, params or [], source)
        if isinstance(expr, ir.FieldRef | ir.MemberOf):
            return expr
        raise UnsupportedConstruct(f"assignment to a {unwrap(data)['type'].name()}", source)
