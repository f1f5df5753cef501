"""Temporaries → locals, small ifs → selections.

p4c keeps every temporary in the metadata header ``scalars``. One that no code reads before that
same code has written it carries nothing from one action to the next: it becomes a local variable.
"""

from __future__ import annotations

from . import ir
from .walk import (
    blocks,
    field_refs,
    map_exprs,
    read_exprs,
    statements,
    subexpressions,
    written_place,
)

SCALARS = "scalars"


def simplify(program: ir.Program) -> None:
    """Simplifies all actions in place. Their jumps must have become ifs already."""
    for action in program.actions.values():
        _select(action.body)
    carried = _fields_read_elsewhere(program)
    for action in program.actions.values():
        carried |= _read_before_written(action.body)
    for action in program.actions.values():
        _localize(program, action.body, carried)
        _drop_dead(action.body)


def _select(body: list[ir.Stmt]) -> None:
    """``if (c) x = a; else x = b;`` → ``x = c ? a : b;`` (also without else)."""
    for index, stmt in enumerate(body):
        for block in blocks(stmt):
            _select(block)
        if not isinstance(stmt, ir.If) or len(stmt.then) != 1 or len(stmt.otherwise) > 1:
            continue
        yes = stmt.then[0]
        if not isinstance(yes, ir.Assign) or not isinstance(yes.place, ir.FieldRef):
            continue
        value: ir.Expr
        if not stmt.otherwise:
            value = yes.place
        else:
            no = stmt.otherwise[0]
            if not isinstance(no, ir.Assign) or no.place != yes.place:
                continue
            value = no.value
        body[index] = ir.Assign(
            yes.place, ir.Select(stmt.condition, yes.value, value), source=yes.source
        )


def other_exprs(program: ir.Program) -> list[ir.Expr]:
    """All expressions outside of actions."""
    out: list[ir.Expr] = []
    for state in program.parser_states.values():
        out += [e for e, _ in state.key]
        for op in state.ops:
            out += parser_exprs(op)
    for pipeline in (program.ingress, program.egress):
        for table in pipeline.tables.values():
            out += [k.expr for k in table.key]
        out += [c.condition for c in pipeline.conditionals.values()]
    for calculation in program.calculations.values():
        out += [i[0] for i in calculation.inputs if isinstance(i, tuple)]
    for checksum in program.checksums:
        out.append(checksum.target)
        if checksum.condition is not None:
            out.append(checksum.condition)
    return out


def parser_exprs(op: ir.ParserOp) -> list[ir.Expr]:
    """The expressions that an operation of the parser reads."""
    if isinstance(op, ir.Verify):
        return [op.condition, op.error]
    if isinstance(op, ir.Advance):
        return [op.bits]
    if isinstance(op, ir.Stmt):
        return [e for stmt in statements([op]) for e in read_exprs(stmt)]
    return []


def _fields_read_elsewhere(program: ir.Program) -> set[ir.FieldRef]:
    return {ref for e in other_exprs(program) for ref in field_refs(e)}


def _read_before_written(body: list[ir.Stmt]) -> set[ir.FieldRef]:
    """The fields that a body may read before it has written them itself."""
    found: set[ir.FieldRef] = set()
    if any(isinstance(s, ir.Label) for s in body):  # jumps without structure: not known
        return {ref for s in statements(body) for e in read_exprs(s) for ref in field_refs(e)}

    def walk(block: list[ir.Stmt], written: set[ir.FieldRef]) -> set[ir.FieldRef]:
        for stmt in block:
            for e in read_exprs(stmt):
                found.update(ref for ref in field_refs(e) if ref not in written)
            if isinstance(stmt, ir.If):
                then, otherwise = walk(stmt.then, set(written)), walk(stmt.otherwise, set(written))
                written = written | (then & otherwise)
            place = written_place(stmt)
            if isinstance(place, ir.FieldRef):
                written = written | {place}
        return written

    walk(body, set())
    return found


def _localize(program: ir.Program, body: list[ir.Stmt], carried: set[ir.FieldRef]) -> None:
    if any(isinstance(s, ir.Label) for s in body):
        return

    def change(e: ir.Expr) -> ir.Expr:
        if isinstance(e, ir.FieldRef) and e.header == SCALARS and e not in carried:
            f = program.field_of(e)
            return ir.Temp(f.name, f.bits, f.signed)
        return e

    for stmt in statements(body):
        map_exprs(stmt, change, places=True)


def _drop_dead(body: list[ir.Stmt]) -> None:
    """Removes assignments to locals that nothing reads."""
    while True:
        read = {e for s in statements(body) for top in read_exprs(s) for e in _temps(top)}
        if not _remove_unread(body, read):
            return


def _temps(e: ir.Expr) -> set[ir.Temp]:
    return {sub for sub in subexpressions(e) if isinstance(sub, ir.Temp)}


def _remove_unread(body: list[ir.Stmt], read: set[ir.Temp]) -> bool:
    changed = False
    kept: list[ir.Stmt] = []
    for stmt in body:
        for block in blocks(stmt):
            changed |= _remove_unread(block, read)
        place = written_place(stmt)
        if isinstance(place, ir.Temp) and place not in read:
            changed = True
        else:
            kept.append(stmt)
    body[:] = kept
    return changed


def used_fields(program: ir.Program) -> set[ir.FieldRef]:
    """Every named field that some code reads or writes."""
    used = {ref for e in other_exprs(program) for ref in field_refs(e)}
    bodies = [a.body for a in program.actions.values()]
    bodies += [
        [op for op in state.ops if isinstance(op, ir.Stmt)]
        for state in program.parser_states.values()
    ]
    for body in bodies:
        for stmt in statements(body):
            for e in read_exprs(stmt):
                used.update(field_refs(e))
            place = written_place(stmt)
            if isinstance(place, ir.FieldRef):
                used.add(place)
    return used
