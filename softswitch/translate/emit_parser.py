"""Parser states → one C++ function with a label per state."""

from __future__ import annotations

from . import ir
from .emit_actions import StatementEmitter
from .layout import storage
from .reps import Rep
from .writer import Writer

MAX_STATES = 1 << 16
"""A parser that visits so many states is in an endless loop: ParserTimeout."""


def emit_parser(w: Writer, owner: StatementEmitter) -> None:
    """``std::uint32_t parse()``: the error code, as in standard_metadata.parser_error."""
    program = owner.program
    labels = {name: f"state_{n}" for n, name in enumerate(program.parser_states)}
    errors = program.errors
    too_short = errors.get("PacketTooShort", 1)
    values = owner.values
    values.temps, values.param_words = {}, []

    def lookahead(e: ir.Lookahead, rep: Rep) -> str:
        if rep.wide:
            words = (e.bits + 63) // 64
            code = f"get_wide<{words}>(cursor_, {e.offset}, {e.bits})"
            return code if words == rep.words else f"{code}.zext<{rep.words}>()"
        if e.bits > 64:
            words = (e.bits + 63) // 64
            return (
                f"static_cast<{rep.ctype}>(get_wide<{words}>(cursor_, {e.offset}, {e.bits}).w[0])"
            )
        return f"static_cast<{rep.ctype}>(get_bits(cursor_, {e.offset}, {e.bits}))"

    values.lookahead = lookahead
    w.comment("The parser. On an error it stops where it is; ingress runs all the same.")
    with w.block("std::uint32_t parse()"):
        w.line("std::uint32_t visited = 0;")
        if program.parser_start is None:
            w.line("return 0;")
        else:
            w.line(f"goto {labels[program.parser_start]};")
        for state in program.parser_states.values():
            w.line()
            w.source(state.source)
            w.depth -= 1
            w.line(f"{labels[state.name]}:", state.name)
            w.depth += 1
            with w.block(""):
                w.line(f"if (++visited > {MAX_STATES}) return {errors.get('ParserTimeout', 5)};")
                for op in state.ops:
                    _emit_op(w, owner, op, too_short)
                _emit_select(w, owner, state, labels, too_short)
    values.lookahead = None
    w.line()


def _need(w: Writer, nbytes: int, too_short: int) -> None:
    w.line(f"if (static_cast<std::size_t>(end_ - cursor_) < {nbytes}) return {too_short};")


def _emit_op(w: Writer, owner: StatementEmitter, op: ir.ParserOp, too_short: int) -> None:
    values, layout, program = owner.values, owner.layout, owner.program
    w.source(op.source)
    values.source = op.source
    if isinstance(op, ir.Stmt):
        owner.mark_used(w, [op])
    if isinstance(op, ir.Extract):
        if op.stack is None:
            assert op.header is not None
            nbytes = program.headers[op.header].type.bits // 8
            target = layout.place[op.header]
            _need(w, nbytes, too_short)
            w.line(f"extract({target}, cursor_);")
            w.line(f"{target}.valid = {target}.used = true;")
        else:
            stack = program.stacks[op.stack]
            place = layout.place[op.stack]
            nbytes = stack.type.bits // 8
            full = program.errors.get("StackOutOfBounds", 3)
            w.line(f"if ({place}_next >= {stack.size}) return {full};")
            _need(w, nbytes, too_short)
            w.line(f"extract({place}[{place}_next], cursor_);")
            w.line(f"{place}[{place}_next].valid = {place}[{place}_next].used = true;")
            w.line(f"++{place}_next;")
        w.line(f"cursor_ += {nbytes};")
    elif isinstance(op, ir.Verify):
        error = values.assigned(op.error, 32)
        w.line(f"if (!{values.boolean(op.condition)}) return {error};")
    elif isinstance(op, ir.Advance):
        with w.block(""):
            w.line(f"const std::uint64_t bits = {values.assigned(op.bits, 64)};")
            bad = program.errors.get("ParserInvalidArgument", 6)
            w.line(f"if (bits % 8 != 0) return {bad};")
            w.line(
                f"if (static_cast<std::uint64_t>(end_ - cursor_) < bits / 8) return {too_short};"
            )
            w.line("cursor_ += bits / 8;")
    elif isinstance(op, ir.Assign) and isinstance(op.value, ir.Lookahead):
        _need(w, (op.value.offset % 8 + op.value.bits + 7) // 8 + op.value.offset // 8, too_short)
        owner.emit(w, op)
    else:
        owner.emit(w, op)


def _emit_select(
    w: Writer,
    owner: StatementEmitter,
    state: ir.ParserState,
    labels: dict[str, str],
    too_short: int,
) -> None:
    values = owner.values
    ahead = [e for e, _ in state.key if isinstance(e, ir.Lookahead)]
    if ahead:
        _need(w, max((e.offset + e.bits + 7) // 8 for e in ahead), too_short)
    keys: list[str] = []
    if any(t.value is not None for t in state.transitions):
        for n, (expr, bits) in enumerate(state.key):
            w.line(f"const {storage(bits)} key_{n} = {_stored(values.assigned(expr, bits), bits)};")
            keys.append(f"key_{n}")
    for t in state.transitions:
        if t.value is None:
            w.line(_go(t.next_state, labels))
            return
        tests = []
        for n, (value, (_, bits)) in enumerate(zip(t.value, state.key, strict=True)):
            mask = (1 << bits) - 1 if t.mask is None else t.mask[n] & ((1 << bits) - 1)
            if mask == 0:
                continue
            test = _masked(keys[n], mask, bits)
            tests.append(f"{test} == {_number(value & mask, bits)}")
        w.line(f"if ({' && '.join(tests) or 'true'}) {_go(t.next_state, labels)}")
    # p4c leaves out the default where nothing else can match; BMv2 then accepts.
    w.line("return 0;")


def _go(state: str | None, labels: dict[str, str]) -> str:
    return "return 0;" if state is None else f"goto {labels[state]};"


def _stored(code: str, bits: int) -> str:
    return code if bits > 64 or bits in (32, 64) else f"static_cast<{storage(bits)}>({code})"


def _number(value: int, bits: int) -> str:
    if bits <= 64:
        return f"UINT64_C({value:#x})"
    words = (bits + 63) // 64
    parts = ", ".join(f"UINT64_C({value >> 64 * i & (1 << 64) - 1:#x})" for i in range(words))
    return f"Wide<{words}>{{{{{parts}}}}}"


def _masked(code: str, mask: int, bits: int) -> str:
    if mask == (1 << bits) - 1:
        return code
    return f"({code} & {_number(mask, bits)})"
