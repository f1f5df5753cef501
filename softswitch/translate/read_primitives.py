"""Primitive calls of actions → IR statements."""

from __future__ import annotations

from collections.abc import Callable

from . import ir
from .errors import OLD_JSON, UnsupportedConstruct
from .node import U31, Node
from .read_expr import ExprReader, source_of, unwrap

Handler = Callable[[Node, list[int], ir.Source], ir.Stmt]

REFUSED = {
    "execute_meter": "meters",
    "clone_ingress_pkt_to_egress": "clone",
    "clone_egress_pkt_to_egress": "clone",
    "resubmit": "resubmit",
    "recirculate": "recirculate",
    "generate_digest": "digest",
    "assign_VL": "varbit",
    "assign_union": "header unions",
    "assign_union_stack": "header unions",
}

P4_14 = (
    "add",
    "add_header_fast",
    "add_to_field",
    "bit_and",
    "bit_or",
    "bit_xor",
    "no_op",
    "shift_left",
    "shift_right",
    "subtract",
    "subtract_from_field",
)
"""BMv2's primitives that p4c-bm2-ss never writes."""


class PrimitiveReader:
    """Reads primitives; ``registers``, ``counters`` and ``calculations`` are the known names."""

    def __init__(
        self,
        exprs: ExprReader,
        registers: set[str],
        counters: set[str],
        calculations: set[str],
    ) -> None:
        self.exprs = exprs
        self.registers = registers
        self.counters = counters
        self.calculations = calculations
        self.handlers: dict[str, Handler] = {
            "assign": self._assign,
            "modify_field": self._assign,
            "assign_header": self._assign_header,
            "copy_header": self._assign_header,
            "assign_header_stack": self._assign_stack,
            "add_header": lambda a, p, s: ir.SetValid(self.exprs.header(a[0], p, s), source=s),
            "remove_header": lambda a, p, s: ir.SetInvalid(self.exprs.header(a[0], p, s), source=s),
            "push": lambda a, p, s: ir.PushFront(
                self._stack(a[0]), self._constant(a[1], s), source=s
            ),
            "pop": lambda a, p, s: ir.PopFront(
                self._stack(a[0]), self._constant(a[1], s), source=s
            ),
            "register_read": self._register_read,
            "register_write": self._register_write,
            "count": self._count,
            "modify_field_with_hash_based_offset": self._hash,
            "modify_field_rng_uniform": self._random,
            "mark_to_drop": lambda a, p, s: ir.MarkToDrop(source=s),
            "drop": lambda a, p, s: ir.MarkToDrop(source=s),
            "truncate": lambda a, p, s: ir.Truncate(self.exprs.data(a[0], p, s), source=s),
            "log_msg": self._log,
            "assert": lambda a, p, s: ir.Check("assert", self._condition(a[0], p, s), source=s),
            "assume": lambda a, p, s: ir.Check("assume", self._condition(a[0], p, s), source=s),
            "_jump": lambda a, p, s: ir.Jump(self._constant(a[0], s), source=s),
            "_jump_if_zero": lambda a, p, s: ir.JumpIfZero(
                self._condition(a[0], p, s), self._constant(a[1], s), source=s
            ),
            "exit": lambda a, p, s: ir.Exit(source=s),
        }

    def read(self, data: Node, params: list[int], enclosing: ir.Source) -> ir.Stmt:
        """One primitive. ``enclosing`` is named where the primitive itself has no source line."""
        source = source_of(data)
        if not source.where:
            source = enclosing
        op = data["op"].name()
        if op in REFUSED:
            raise UnsupportedConstruct(f"{REFUSED[op]} (primitive {op})", source)
        handler = self.handlers.get(op)
        if handler is None:
            old = OLD_JSON if op in P4_14 else ""
            raise UnsupportedConstruct(f"the primitive {op}", source, old)
        return handler(data["parameters"], params, source)

    def _assign(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        value = (
            ir.Unary("b2d", self.exprs.boolean(args[1], params, source))
            if self.exprs.is_boolean(args[1])
            else self.exprs.data(args[1], params, source)
        )
        return ir.Assign(self.exprs.place(args[0], source, params), value, source=source)

    def _assign_header(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        to = self.exprs.header(args[0], params, source)
        read = self.exprs.header(args[1], params, source)
        if self.exprs.type_of(to) is not self.exprs.type_of(read):
            raise args.fault("a header is copied to one of another type")
        return ir.AssignHeader(to, read, source=source)

    def _assign_stack(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        to, read = self._stack(args[0]), self._stack(args[1])
        a, b = self.exprs.stacks[to], self.exprs.stacks[read]
        if a.type is not b.type or a.size != b.size:
            raise args.fault("a header stack is copied to one of another type or size")
        return ir.AssignStack(to, read, source=source)

    def _register_read(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        return ir.RegisterRead(
            self.exprs.place(args[0], source, params),
            self._known(args[1], self.registers),
            self.exprs.data(args[2], params, source),
            source=source,
        )

    def _register_write(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        return ir.RegisterWrite(
            self._known(args[0], self.registers),
            self.exprs.data(args[1], params, source),
            self.exprs.data(args[2], params, source),
            source=source,
        )

    def _count(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        return ir.Count(
            self._known(args[0], self.counters),
            self.exprs.data(args[1], params, source),
            source=source,
        )

    def _hash(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        return ir.HashInto(
            self.exprs.place(args[0], source, params),
            self.exprs.data(args[1], params, source),
            self._known(args[2], self.calculations),
            self.exprs.data(args[3], params, source),
            source=source,
        )

    def _random(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        return ir.RandomInto(
            self.exprs.place(args[0], source, params),
            self.exprs.data(args[1], params, source),
            self.exprs.data(args[2], params, source),
            source=source,
        )

    def _log(self, args: Node, params: list[int], source: ir.Source) -> ir.Stmt:
        values = args[1].each("value") if len(args.value) > 1 else []
        return ir.Log(
            args[0]["value"].text(),
            tuple(self.exprs.data(v, params, source) for v in values),
            source=source,
        )

    def _condition(self, data: Node, params: list[int], source: ir.Source) -> ir.Expr:
        """A number that is used as a truth value."""
        expr = self.exprs.boolean(data, params, source)
        # d2b(b2d(x)) is x
        while (
            isinstance(expr, ir.Unary)
            and expr.op == "d2b"
            and isinstance(expr.operand, ir.Unary)
            and expr.operand.op == "b2d"
        ):
            expr = expr.operand.operand
        return expr

    def _constant(self, data: Node, source: ir.Source) -> int:
        expr = self.exprs.data(data, [], source)
        if not isinstance(expr, ir.Const) or not 0 <= expr.value <= U31:
            raise UnsupportedConstruct("a count or jump that is not a small constant", source)
        return expr.value

    def _stack(self, data: Node) -> str:
        return self.exprs.stack(unwrap(data)["value"])

    def _known(self, data: Node, names: set[str]) -> str:
        name = data["value"].name()
        if name not in names:
            raise data.fault(f"there is no {data['type'].name()} {name}")
        return name
