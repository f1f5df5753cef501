"""Makes sure that no header shows data of an earlier packet.

All packets use the same storage for headers, and only headers that may hold data are cleared: those
with the flag ``used``. Extracting and ``setValid()`` do that by themselves. Two other kinds of code
need more: code that writes into a header that may not be valid sets the flag, and headers that the
parser reads before it has extracted them are cleared before it runs, not after it.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import ir
from .simplify import parser_exprs
from .walk import statements, subexpressions, written_place


def written_headers(program: ir.Program, body: Iterable[ir.Stmt]) -> list[str]:
    """The headers of packets whose fields some statement assigns by name, in order."""
    found: dict[str, None] = {}
    for stmt in statements(list(body)):
        place = written_place(stmt)
        if (
            isinstance(place, ir.FieldRef | ir.RunRef)
            and not program.headers[place.header].metadata
        ):
            found[place.header] = None
    return list(found)


def cleared_before_parsing(program: ir.Program) -> set[str]:
    """The headers that the parser may read or write before this packet has filled them."""
    if program.parser_start is None:
        return set()
    filled: dict[str, set[str]] = {program.parser_start: set()}
    waiting = [program.parser_start]
    while waiting:
        name = waiting.pop()
        state = program.parser_states[name]
        after = set(filled[name])
        for op in state.ops:
            after |= _fills(op)
        for t in state.transitions:
            if t.next_state is None:
                continue
            known = filled.get(t.next_state)
            merged = after if known is None else known & after
            if known is None or merged != known:
                filled[t.next_state] = set(merged)
                waiting.append(t.next_state)
    exposed: set[str] = set()
    for name, before in filled.items():
        state, now = program.parser_states[name], set(before)
        for op in state.ops:
            exposed |= _touched(program, op) - now
            now |= _fills(op)
        for e, _ in state.key:
            exposed |= _headers_of(program, e) - now
    return exposed


def _fills(op: ir.ParserOp) -> set[str]:
    """The header that holds this packet's data alone after ``op``, if it is known by name."""
    if isinstance(op, ir.Extract) and op.header is not None:
        return {op.header}
    if isinstance(op, ir.SetValid) and isinstance(op.header, ir.HeaderRef):
        return {op.header.name}
    return set()


def _touched(program: ir.Program, op: ir.ParserOp) -> set[str]:
    found: set[str] = set()
    for e in parser_exprs(op):
        found |= _headers_of(program, e)
    if isinstance(op, ir.Stmt):
        place = written_place(op)
        if place is not None:
            found |= _headers_of(program, place)
    return found


def _headers_of(program: ir.Program, e: ir.Expr) -> set[str]:
    """The headers of packets whose fields an expression names."""
    found: set[str] = set()
    for sub in subexpressions(e):
        if isinstance(sub, ir.FieldRef) and not program.headers[sub.header].metadata:
            found.add(sub.header)
        elif isinstance(sub, ir.MemberOf) and isinstance(sub.header, ir.StackElement):
            # .last is an element that has been extracted, or none.
            found.update(program.stacks[sub.header.stack].elements)
    return found
