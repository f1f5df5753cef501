"""JSON expressions → IR expressions."""

from __future__ import annotations

import re
from typing import Any

from . import ir
from .errors import ProgramInvalid, UnsupportedConstruct

Json = dict[str, Any]

ARITHMETIC = {"+", "-", "*", "/", "%", "<<", ">>", "&", "|", "^"}
COMPARISON = {"==", "!=", "<", ">", "<=", ">="}
BOOLEAN_RESULT = COMPARISON | {"and", "or", "not", "d2b", "valid", "valid_union"}
DEREFERENCE = "dereference_header_stack"
CASTS = {"two_comp_mod", "sat_cast", "usat_cast"}


def source_of(data: Any) -> ir.Source:
    """The ``source_info`` of a JSON object, where it has one."""
    info = data.get("source_info") if isinstance(data, dict) else None
    if not isinstance(info, dict):
        return ir.NOWHERE
    return ir.Source(
        str(info.get("filename", "")),
        int(info.get("line", 0) or 0),
        str(info.get("source_fragment", "")),
    )


def use_of(data: Any, name: str) -> ir.Source:
    """Some place of the P4 source that uses ``name``, for what carries no source line itself.

    First where the JSON refers to it, else where a fragment of the source that the JSON quotes
    mentions it.
    """
    word = re.compile(rf"\b{re.escape(name.split('[')[0].rsplit('.', 1)[-1])}\b")
    quoted = ir.NOWHERE
    waiting: list[tuple[Any, ir.Source]] = [(data, ir.NOWHERE)]
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, dict):
            around = source_of(node) or around
            value = node.get("value")
            if around and (value == name or (isinstance(value, list) and name in value)):
                return around
            if not quoted and word.search(around.fragment):
                quoted = around
            waiting.extend((child, around) for child in reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend((child, around) for child in reversed(node))
    return quoted


def unwrap(data: Json) -> Json:
    """Takes off the layers ``{"type": "expression", "value": …}`` around an object."""
    while data.get("type") == "expression" and isinstance(data["value"], dict):
        inner: Json = data["value"]
        if "op" in inner:
            return data
        data = inner
    return data


class ExprReader:
    """Reads type-value objects, given the program's headers."""

    def __init__(self, headers: dict[str, ir.Header], stacks: dict[str, ir.Stack]) -> None:
        self.headers = headers
        self.stacks = stacks

    def field_ref(self, value: Any) -> ir.FieldRef:
        """A named field (not ``$valid$``)."""
        header, name = value
        if header not in self.headers:
            raise ProgramInvalid(f"there is no header {header}")
        try:
            self.headers[header].type.field(name)
        except KeyError:
            raise ProgramInvalid(f"header {header} has no field {name}") from None
        return ir.FieldRef(header, name)

    def field_bits(self, value: Any) -> int:
        """The width of a named field."""
        return self.headers[value[0]].type.field(value[1]).bits

    def field_or_valid(self, value: Any) -> ir.Expr:
        """A named field, or ``b2d(valid)`` for ``$valid$``."""
        if value[1] == "$valid$":
            if value[0] not in self.headers:
                raise ProgramInvalid(f"there is no header {value[0]}")
            return ir.Unary("b2d", ir.Valid(ir.HeaderRef(value[0])))
        return self.field_ref(value)

    def is_boolean(self, data: Json) -> bool:
        """Whether a type-value object is a boolean (bmv2 keeps booleans and numbers apart)."""
        data = unwrap(data)
        if data["type"] == "bool":
            return True
        if data["type"] != "expression":
            return False
        expr = data["value"]
        if expr["op"] == "?":
            return self.is_boolean(expr["left"])
        return expr["op"] in BOOLEAN_RESULT

    def data(self, data: Json, params: list[int], source: ir.Source) -> ir.Expr:
        """A number. ``params`` are the widths of the enclosing action's parameters."""
        data = unwrap(data)
        kind: str = data["type"]
        value: Any = data.get("value")
        if kind == "hexstr":
            return ir.Const(_hex(value))
        if kind == "field":
            return self.field_or_valid(value)
        if kind in ("local", "runtime_data"):
            return ir.Param(value, params[value])
        if kind == "stack_field":
            return self._member(ir.StackLast(self.stack(value[0])), value[1])
        if kind == "bool":
            return ir.Const(int(bool(value)))
        if kind == "expression":
            return self._operation(value, params, source)
        if kind == "register":
            raise UnsupportedConstruct("registers inside of expressions", source)
        raise UnsupportedConstruct(f"a {kind} as a value", source)

    def boolean(self, data: Json, params: list[int], source: ir.Source) -> ir.Expr:
        """A boolean."""
        data = unwrap(data)
        kind: str = data["type"]
        value: Any = data.get("value")
        if kind == "bool":
            return ir.BoolConst(bool(value))
        if kind != "expression":
            return ir.Unary("d2b", self.data(data, params, source))
        op = value["op"]
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
            return ir.Valid(self.header(value["right"], params, source))
        if op in ("==", "!=") and self._is_header(value["left"]):
            same = ir.HeadersEqual(
                self.header(value["left"], params, source),
                self.header(value["right"], params, source),
            )
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

    def _operation(self, value: Json, params: list[int], source: ir.Source) -> ir.Expr:
        op = value["op"]
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
            if not isinstance(width, ir.Const) or width.value < 1:
                raise UnsupportedConstruct(f"{op} to a width that is not a constant", source)
            return ir.Cast(op, self.data(value["left"], params, source), width.value)
        if op == "?":
            return ir.Select(
                self.boolean(value["cond"], params, source),
                self.data(value["left"], params, source),
                self.data(value["right"], params, source),
            )
        if op == "access_field":
            header = self.header(value["left"], params, source)
            return self._member_at(header, value["right"])
        if op == "last_stack_index":
            return ir.StackSize(self.stack(unwrap(value["right"])["value"]), 1)
        if op == "size_stack":
            return ir.StackSize(self.stack(unwrap(value["right"])["value"]), 0)
        if op in BOOLEAN_RESULT:
            whole = {"type": "expression", "value": value}
            return ir.Unary("b2d", self.boolean(whole, params, source))
        raise UnsupportedConstruct(f"the operation {op}", source)

    def stack(self, name: str) -> str:
        """``name``, if it is a header stack."""
        if name not in self.stacks:
            raise ProgramInvalid(f"there is no header stack {name}")
        return name

    def _is_header(self, data: Json) -> bool:
        data = unwrap(data)
        if data["type"] == "header":
            return True
        return bool(data["type"] == "expression" and data["value"]["op"] == DEREFERENCE)

    def header(
        self, data: Json, params: list[int], source: ir.Source
    ) -> ir.HeaderRef | ir.StackElement:
        """A header, by name or by a run-time index in a stack."""
        data = unwrap(data)
        if data["type"] == "header":
            if data["value"] not in self.headers:
                raise ProgramInvalid(f"there is no header {data['value']}")
            return ir.HeaderRef(data["value"])
        if data["type"] == "expression" and data["value"]["op"] == DEREFERENCE:
            inner = data["value"]
            name = self.stack(unwrap(inner["left"])["value"])
            index = self.data(inner["right"], params, source)
            if isinstance(index, ir.Const) and 0 <= index.value < self.stacks[name].size:
                return ir.HeaderRef(self.stacks[name].elements[index.value])
            return ir.StackElement(name, index)
        what = data["value"]["op"] if data["type"] == "expression" else data["type"]
        raise UnsupportedConstruct(f"{what} as a header", source)

    def _member(self, header: ir.StackElement | ir.StackLast, name: str) -> ir.MemberOf:
        self.stacks[header.stack].type.field(name)
        return ir.MemberOf(header, name)

    def _member_at(self, header: ir.HeaderRef | ir.StackElement, index: int) -> ir.Expr:
        if isinstance(header, ir.HeaderRef):
            return ir.FieldRef(header.name, self.headers[header.name].type.fields[index].name)
        fields = self.stacks[header.stack].type.fields
        if index == len(fields):  # bmv2's hidden $valid$ comes after the fields
            return ir.Unary("b2d", ir.Valid(header))
        return ir.MemberOf(header, fields[index].name)

    def place(self, data: Json, source: ir.Source, params: list[int] | None = None) -> ir.Place:
        """Something that can be assigned to."""
        expr = self.data(data, params or [], source)
        if isinstance(expr, ir.FieldRef | ir.MemberOf):
            return expr
        raise UnsupportedConstruct(f"assignment to a {unwrap(data)['type']}", source)


def _hex(text: str) -> int:
    return int(text, 16)
