"""The parser's states → IR."""

from __future__ import annotations

from . import ir
from .errors import UnsupportedConstruct
from .node import Node, unique
from .read_expr import ExprReader, source_of, use_of
from .read_primitives import PrimitiveReader

MAX_AHEAD_BITS = 8 << 16
"""How far a lookahead may lie ahead: as far as the longest frame."""

MAX_LOOKAHEAD_BITS = 2048


class ParserReader:
    """Reads a parser."""

    def __init__(self, exprs: ExprReader, primitives: PrimitiveReader) -> None:
        self.exprs = exprs
        self.primitives = primitives

    def read(self, data: Node) -> tuple[dict[str, ir.ParserState], str | None]:
        """The states by name, and the first one's name."""
        nodes = unique(data.each("parse_states"), "name", "parser state")
        self.known = set(nodes)
        states = {name: self.state(s) for name, s in nodes.items()}
        return states, self.target(data, "init_state")

    def target(self, data: Node, key: str) -> str | None:
        """The state that a key names; None where it is null: accept."""
        node = data.get(key)
        if node is None:
            return None
        name = node.name()
        if name not in self.known:
            raise node.fault(f"there is no parser state {name}")
        return name

    def state(self, data: Node) -> ir.ParserState:
        """One state."""
        ops = [self.op(op, data) for op in data.each("parser_ops")]
        key: list[tuple[ir.Expr, int]] = []
        for k in data.each("transition_key"):
            kind, value = k["type"].name(), k["value"]
            if kind == "field":
                key.append(self.exprs.field_with_bits(value))
            elif kind == "stack_field":
                stack, name = value.pair()
                member = self.exprs.member(ir.StackLast(self.exprs.stack(stack)), name)
                key.append((member, self.exprs.member_bits(member)))
            elif kind == "lookahead":
                ahead = self.lookahead(value)
                key.append((ahead, ahead.bits))
            else:
                raise UnsupportedConstruct(f"select on a {kind}", source_of(data))
        widths = [bits for _, bits in key]
        transitions = [self.transition(t, widths) for t in data.each("transitions")]
        return ir.ParserState(data["name"].name(), ops, key, transitions, source_of(data))

    def lookahead(self, value: Node) -> ir.Lookahead:
        """``[offset, bits]`` of what lies ahead."""
        offset, bits = value.pair()
        return ir.Lookahead(offset.whole(0, MAX_AHEAD_BITS), bits.whole(1, MAX_LOOKAHEAD_BITS))

    def transition(self, data: Node, widths: list[int]) -> ir.Transition:
        """One case of a select."""
        kind, value = data.get("type"), data.get("value")
        if kind is not None and kind.value == "parse_vset":
            name = data["value"].name()
            raise UnsupportedConstruct("parser value sets", use_of(data, name))
        target = self.target(data, "next_state")
        if value is None or value.value == "default" or (kind and kind.value == "default"):
            return ir.Transition(None, None, target)
        total = sum(8 * ((bits + 7) // 8) for bits in widths)
        mask = data.get("mask")
        return ir.Transition(
            _split_bytes(value.bits(total), widths),
            None if mask is None else _split_bytes(mask.bits(total), widths),
            target,
        )

    def op(self, data: Node, state: Node) -> ir.ParserOp:
        """One operation of a state."""
        op, params = data["op"].name(), data["parameters"]
        source = source_of(data) or source_of(state)
        if op == "extract":
            kind, value = params[0]["type"].name(), params[0]["value"]
            if kind == "regular":
                return ir.Extract(self.exprs.packet_header(value), None, source)
            if kind == "stack":
                return ir.Extract(None, self.exprs.stack(value), source)
            raise UnsupportedConstruct(f"extract into a {kind}", source)
        if op == "extract_VL":
            raise UnsupportedConstruct("varbit (extract with a variable length)", source)
        if op == "set":
            place = self.exprs.place(params[0], source)
            if params[1]["type"].value == "lookahead":
                return ir.Assign(place, self.lookahead(params[1]["value"]), source=source)
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
            return ir.Advance(ir.Const(8 * params[0].whole(0, MAX_AHEAD_BITS // 8)), source)
        if op == "primitive":
            stmt = self.primitives.read(params[0], [], source)
            if isinstance(stmt, ir.Jump | ir.JumpIfZero | ir.Exit | ir.Check):
                raise UnsupportedConstruct(
                    f"the primitive {params[0]['op'].name()} in a parser", source
                )
            return stmt
        raise UnsupportedConstruct(f"the parser operation {op}", source)


def _split_bytes(value: int, widths: list[int]) -> tuple[int, ...]:
    """Takes a transition's value apart: each key element is padded to whole bytes."""
    parts: list[int] = []
    for bits in reversed(widths):
        size = 8 * ((bits + 7) // 8)
        parts.append(value & ((1 << size) - 1))
        value >>= size
    return tuple(reversed(parts))
