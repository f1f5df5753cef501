"""IR expressions → C++ expressions.

BMv2 computes with numbers of unlimited size and cuts a value only when it is assigned. Here every
expression knows the interval that it lies in, and two ways of computing it:

- :meth:`Values.low` gives the value modulo 2^bits of a C++ type. Addition, subtraction,
  multiplication, shifts to the left and bitwise operations need no more of their operands.
- :meth:`Values.exact` gives the value itself, in the smallest C++ type that holds its interval, for
  what needs it: comparison, shift to the right, division, saturation.
"""

from __future__ import annotations

from collections.abc import Callable

from . import ir
from .errors import UnsupportedConstruct
from .layout import Layout
from .node import MAX_NUMBER_BITS
from .reps import I64, U64, Interval, Rep, convert, exact_rep, literal, low_rep, widen


class Values:
    """Makes C++ out of expressions. ``source`` is named in refusals."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.program = layout.program
        self.source = ir.NOWHERE
        self.param_words: list[int] = []
        self.temps: dict[str, str] = {}
        self.round = "i"
        # The parser sets this: how to look ahead.
        self.lookahead: Callable[[ir.Lookahead, Rep], str] | None = None

    # --- intervals ---

    def interval(self, e: ir.Expr) -> Interval | None:
        """The bounds of a number; None if they are too far apart to be computed exactly."""
        bounds = self._interval(e)
        if bounds is None or max(abs(bounds[0]), abs(bounds[1])).bit_length() > MAX_NUMBER_BITS:
            return None
        return bounds

    def _interval(self, e: ir.Expr) -> Interval | None:
        match e:
            case ir.Const(value):
                return value, value
            case ir.Step(start, _, last):
                return min(start, last), max(start, last)
            case ir.FieldRef() | ir.Temp() | ir.MemberOf() | ir.RunRef():
                bits, signed = self.width(e)
                return (
                    (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
                )
            case ir.Param(_, bits) | ir.Lookahead(_, bits):
                return 0, (1 << bits) - 1
            case ir.StackSize(stack, minus):
                return -minus, self.program.stacks[stack].size - minus
            case ir.Unary("b2d"):
                return 0, 1
            case ir.Unary("~", operand):
                b = self.interval(operand)
                return None if b is None else (-b[1] - 1, -b[0] - 1)
            case ir.Cast("usat_cast", _, bits):
                return 0, (1 << bits) - 1
            case ir.Cast(_, _, bits):
                return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
            case ir.Select(_, yes, no):
                a, b = self.interval(yes), self.interval(no)
                return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
            case ir.Binary(op, left, right):
                return self._binary_interval(op, left, right)
        raise UnsupportedConstruct(f"{type(e).__name__} as a number", self.source)

    def _binary_interval(self, op: str, left: ir.Expr, right: ir.Expr) -> Interval | None:
        a, b = self.interval(left), self.interval(right)
        if op == "&":
            # One operand that is never negative bounds the result.
            tops = [x[1] for x in (a, b) if x is not None and x[0] >= 0]
            if tops:
                return 0, min(tops)
        if op == "%" and b is not None and b[0] >= 0:
            top = max(b[1] - 1, 0)
            return (0, max(top, a[1])) if a is not None else None
        if a is None or b is None:
            return None
        if op == "+":
            return a[0] + b[0], a[1] + b[1]
        if op == "-":
            return a[0] - b[1], a[1] - b[0]
        if op == "*":
            corners = [x * y for x in a for y in b]
            return min(corners), max(corners)
        if op == "<<":
            if b[1] > MAX_NUMBER_BITS:
                return None
            top = max(b[1], 0)
            return min(a[0], a[0] << top), max(a[1], a[1] << top)
        if op == ">>":
            return min(a[0], 0), max(a[1], 0)
        if op == "/":
            return 0, max(a[1], 0)
        if op in ("&", "|", "^"):
            width = max(x.bit_length() for x in (*a, *b))
            return (0 if min(a[0], b[0]) >= 0 else -(1 << width)), (1 << width) - 1
        raise UnsupportedConstruct(f"the operation {op}", self.source)

    def width(self, e: ir.Expr) -> tuple[int, bool]:
        """Bits and signedness of a place."""
        match e:
            case ir.FieldRef():
                f = self.program.field_of(e)
                return f.bits, f.signed
            case ir.RunRef(header, name, _):
                f = self.program.headers[header].type.field(name)
                return f.bits, f.signed
            case ir.Temp(_, bits, signed):
                return bits, signed
            case ir.MemberOf(header, name):
                f = self.program.stacks[header.stack].type.field(name)
                return f.bits, f.signed
        raise TypeError(f"{e} is not a place")

    # --- numbers ---

    def assigned(self, e: ir.Expr, bits: int) -> str:
        """The value modulo 2^bits, as it is stored in a field of that width."""
        rep = low_rep(bits)
        code = self.low(e, rep)
        bounds = self.interval(e)
        if bits == rep.bits or (bounds is not None and bounds[0] >= 0 and bounds[1] < 1 << bits):
            return code
        return f"{code}.low({bits})" if rep.wide else f"({code} & {literal((1 << bits) - 1, rep)})"

    def exact(self, e: ir.Expr, rep: Rep | None = None) -> tuple[str, Rep]:
        """The value itself, in ``rep`` or in the smallest type that holds it."""
        bounds = self.interval(e)
        if bounds is None:
            raise UnsupportedConstruct(
                f"an intermediate result of more than {MAX_NUMBER_BITS} bits", self.source
            )
        rep = rep or exact_rep(bounds)
        if rep == I64:
            return f"static_cast<std::int64_t>({self.low(e, U64)})", rep
        return self.low(e, rep), rep

    def low(self, e: ir.Expr, rep: Rep) -> str:
        """The value modulo 2^rep.bits."""
        match e:
            case ir.Const(value):
                return literal(value, rep)
            case ir.Step(start, step, _):
                grow = f"{literal(step, rep)} * static_cast<{rep.ctype}>({self.round})"
                if rep.wide:
                    raise UnsupportedConstruct("a loop over wide numbers", self.source)
                return f"({literal(start, rep)} + {grow})"
            case ir.FieldRef() | ir.Temp() | ir.MemberOf() | ir.RunRef():
                bits, signed = self.width(e)
                return widen(self.rvalue(e), bits, signed, rep)
            case ir.Param(index, bits):
                word = self.param_words[index]
                if bits > 64:
                    n = (bits + 63) // 64
                    return widen(f"wide_at<{n}>(a + {word})", bits, False, rep)
                return widen(f"a[{word}]", 64, False, rep, U64)
            case ir.Lookahead():
                if self.lookahead is None:
                    raise UnsupportedConstruct("lookahead outside of a parser", self.source)
                return self.lookahead(e, rep)
            case ir.StackSize(stack, minus):
                size = f"static_cast<std::int64_t>({self.layout.place[stack]}_next)"
                return convert(f"({size} - {minus})" if minus else size, I64, rep)
            case ir.Unary("b2d", operand):
                return self._pick(self.boolean(operand), literal(1, rep), literal(0, rep))
            case ir.Unary("~", operand):
                return f"(~{self.low(operand, rep)})"
            case ir.Cast():
                return self._cast(e, rep)
            case ir.Select(condition, yes, no):
                return self._pick(self.boolean(condition), self.low(yes, rep), self.low(no, rep))
            case ir.Binary(op, left, right):
                return self._binary(op, left, right, rep)
        raise UnsupportedConstruct(f"{type(e).__name__} as a number", self.source)

    def _pick(self, condition: str, yes: str, no: str) -> str:
        return f"({condition} ? {yes} : {no})"

    def _binary(self, op: str, left: ir.Expr, right: ir.Expr, rep: Rep) -> str:
        if op == "&" and isinstance(right, ir.Const):
            mask = right.value
            bounds = self.interval(left)
            whole = mask & ((1 << rep.bits) - 1) == (1 << rep.bits) - 1
            within = (
                mask > 0
                and (mask & (mask + 1)) == 0
                and bounds is not None
                and bounds[0] >= 0
                and bounds[1] <= mask
            )
            if mask >= 0 and (whole or within):
                return self.low(left, rep)
        if op in ("+", "-", "*", "&", "|", "^"):
            return f"({self.low(left, rep)} {op} {self.low(right, rep)})"
        if op == "<<":
            return self._shift_left(left, right, rep)
        if op == ">>":
            return self._shift_right(left, right, rep)
        if op in ("/", "%"):
            a, b = self.interval(left), self.interval(right)
            if a is None or b is None or a[0] < 0 or b[0] < 0:
                raise UnsupportedConstruct(f"{op} of numbers that may be negative", self.source)
            common = exact_rep((0, max(a[1], b[1])))
            name = "safe_div" if op == "/" else "safe_mod"
            code = (
                f"{name}<{common.ctype}>({self.exact(left, common)[0]}, "
                f"{self.exact(right, common)[0]})"
            )
            return convert(code, common, rep)
        raise UnsupportedConstruct(f"the operation {op}", self.source)

    def _shift_left(self, left: ir.Expr, right: ir.Expr, rep: Rep) -> str:
        value = self.low(left, rep)
        if isinstance(right, ir.Const) and right.value >= 0:
            if right.value >= rep.bits:
                return literal(0, rep)
            return f"{value}.shl({right.value})" if rep.wide else f"({value} << {right.value})"
        n = self._amount(right)
        if rep.wide:
            return f"{value}.shl({n})"
        return f"shift_left<{rep.ctype}>({value}, {n})"

    def _shift_right(self, left: ir.Expr, right: ir.Expr, rep: Rep) -> str:
        value, from_rep = self.exact(left)
        small = isinstance(right, ir.Const) and 0 <= right.value < from_rep.bits
        if isinstance(right, ir.Const) and small and not from_rep.wide:
            return convert(f"({value} >> {right.value})", from_rep, rep)
        n = self._amount(right)
        code = (
            f"{value}.shr({n})" if from_rep.wide else f"shift_right<{from_rep.ctype}>({value}, {n})"
        )
        return convert(code, from_rep, rep)

    def _amount(self, e: ir.Expr) -> str:
        """A shift's amount, which is never negative."""
        bounds = self.interval(e)
        if bounds is None or bounds[0] < 0:
            raise UnsupportedConstruct("a shift by an amount that may be negative", self.source)
        if bounds[1] < 1 << 64:
            return convert(*self.exact(e), U64)
        code, _ = self.exact(e)
        return f"shift_amount({code})"

    def _cast(self, e: ir.Cast, rep: Rep) -> str:
        if e.op == "two_comp_mod":
            inner = low_rep(e.bits)
            return widen(self.assigned(e.operand, e.bits), e.bits, True, rep, inner)
        # Saturation: both the operand and the limits must fit the type that compares them.
        lo = 0 if e.op == "usat_cast" else -(1 << (e.bits - 1))
        hi = (1 << e.bits) - 1 if e.op == "usat_cast" else (1 << (e.bits - 1)) - 1
        bounds = self.interval(e.operand)
        if bounds is None:
            raise UnsupportedConstruct(
                f"an intermediate result of more than {MAX_NUMBER_BITS} bits", self.source
            )
        common = exact_rep((min(lo, bounds[0]), max(hi, bounds[1])))
        value, _ = self.exact(e.operand, common)
        code = f"clamp<{common.ctype}>({value}, {literal(lo, common)}, {literal(hi, common)})"
        return convert(code, common, rep)

    # --- booleans ---

    def boolean(self, e: ir.Expr) -> str:
        """A C++ condition."""
        match e:
            case ir.BoolConst(value):
                return "true" if value else "false"
            case ir.Valid(header):
                return self.valid(header)
            case ir.HeadersEqual(left, right):
                return f"same_header({self.header(left)}, {self.header(right)})"
            case ir.Unary("not", operand):
                return f"(!{self.boolean(operand)})"
            case ir.Unary("d2b", ir.Unary("b2d", inner)):
                return self.boolean(inner)
            case ir.Unary("d2b", operand):
                code, rep = self.exact(operand)
                return f"(!{code}.is_zero())" if rep.wide else f"({code} != 0)"
            case ir.Binary("and", left, right):
                return f"({self.boolean(left)} && {self.boolean(right)})"
            case ir.Binary("or", left, right):
                return f"({self.boolean(left)} || {self.boolean(right)})"
            case ir.Binary("bool==", left, right):
                return f"({self.boolean(left)} == {self.boolean(right)})"
            case ir.Binary("bool!=", left, right):
                return f"({self.boolean(left)} != {self.boolean(right)})"
            case ir.Binary(op, left, right):
                a, b = self.interval(left), self.interval(right)
                if a is None or b is None:
                    raise UnsupportedConstruct(
                        f"a comparison of more than {MAX_NUMBER_BITS} bits", self.source
                    )
                rep = exact_rep((min(a[0], b[0]), max(a[1], b[1])))
                return f"({self.exact(left, rep)[0]} {op} {self.exact(right, rep)[0]})"
            case ir.Select(condition, yes, no):
                return self._pick(self.boolean(condition), self.boolean(yes), self.boolean(no))
        raise UnsupportedConstruct(f"{type(e).__name__} as a condition", self.source)

    # --- headers and places ---

    def header(self, e: ir.Expr) -> str:
        """The C++ lvalue of a header. A run-time index beyond the stack reaches a spare header."""
        match e:
            case ir.HeaderRef(name):
                return self.layout.place[name]
            case ir.StackElement(stack, index):
                size = self.program.stacks[stack].size
                return f"element({self.layout.place[stack]}, {size}, {self.index(index)})"
            case ir.StackLast(stack):
                size = self.program.stacks[stack].size
                place = self.layout.place[stack]
                return f"element({place}, {size}, {place}_next - 1)"
        raise UnsupportedConstruct(f"{type(e).__name__} as a header", self.source)

    def valid(self, header: ir.Expr) -> str:
        """Whether a header is valid."""
        if isinstance(header, ir.HeaderRef) and self.program.headers[header.name].metadata:
            return "true"
        return f"{self.header(header)}.valid"

    def index(self, e: ir.Expr) -> str:
        """An index into an array: 32 bits, as in BMv2."""
        return self.assigned(e, 32)

    def text(self, e: ir.Expr) -> str:
        """A value for a log line."""
        code, rep = self.exact(e)
        return code if rep in (I64, U64) or rep.wide else f"std::uint64_t{{{code}}}"

    def rvalue(self, e: ir.Expr) -> str:
        """The stored (unsigned) value of a place."""
        match e:
            case ir.FieldRef():
                return self.layout.field(e)
            case ir.Temp(name, _, _):
                return self.temps[name]
            case ir.RunRef(header, name, step):
                member, start = self.layout.type_of(header).run[name]
                at = self.round if step == 1 else f"{step} * {self.round}"
                at = f"{start} + {at}" if start else at
                return f"{self.layout.place[header]}.{member.name}[{at}]"
            case ir.MemberOf(header, name):
                access = self.layout.stack_type(header.stack).access[name]
                return f"{self.header(header)}.{access}"
        raise TypeError(f"{e} is not a place")
