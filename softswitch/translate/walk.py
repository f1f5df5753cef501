"""Walking over expressions and statements: what they read, what they write, rewriting them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace

from . import ir

Rewrite = Callable[[ir.Expr], ir.Expr]


def children(e: ir.Expr) -> Iterator[ir.Expr]:
    """The operands of an expression."""
    assert is_dataclass(e)
    for f in fields(e):
        value = getattr(e, f.name)
        if isinstance(value, ir.Expr):
            yield value


def subexpressions(e: ir.Expr) -> Iterator[ir.Expr]:
    """The expression and everything in it."""
    yield e
    for child in children(e):
        yield from subexpressions(child)


def rewrite(e: ir.Expr, change: Rewrite) -> ir.Expr:
    """Rebuilds an expression from below; ``change`` maps each rebuilt node."""
    assert is_dataclass(e)
    new = {}
    for f in fields(e):
        value = getattr(e, f.name)
        if isinstance(value, ir.Expr):
            changed = rewrite(value, change)
            if changed is not value:
                new[f.name] = changed
    return change(replace(e, **new) if new else e)


def blocks(stmt: ir.Stmt) -> list[list[ir.Stmt]]:
    """The statement lists inside of a statement."""
    if isinstance(stmt, ir.If):
        return [stmt.then, stmt.otherwise]
    if isinstance(stmt, ir.Loop):
        return [stmt.body]
    return []


def statements(body: list[ir.Stmt]) -> Iterator[ir.Stmt]:
    """All statements, nested ones too."""
    for stmt in body:
        yield stmt
        for block in blocks(stmt):
            yield from statements(block)


def written_place(stmt: ir.Stmt) -> ir.Place | None:
    """The place that a statement assigns, if it is of that kind."""
    if isinstance(stmt, ir.Assign | ir.RegisterRead | ir.HashInto | ir.RandomInto):
        return stmt.place
    return None


def read_exprs(stmt: ir.Stmt) -> list[ir.Expr]:
    """The expressions that a statement evaluates itself (not those of nested statements).

    A place with a run-time index counts as read: its index is.
    """
    out: list[ir.Expr] = []
    for f in fields(stmt):
        value = getattr(stmt, f.name)
        if f.name == "place":
            if isinstance(value, ir.MemberOf):
                out.extend(children(value))
        elif isinstance(value, ir.Expr):
            out.append(value)
        elif isinstance(value, tuple):
            out.extend(v for v in value if isinstance(v, ir.Expr))
    return out


def map_exprs(stmt: ir.Stmt, change: Rewrite, places: bool = False) -> None:
    """Rewrites the expressions of a statement in place; its assigned place only if ``places``."""
    for f in fields(stmt):
        value = getattr(stmt, f.name)
        if f.name == "place" and not places:
            # The place stays what it is; only a run-time index inside of it is rewritten.
            if isinstance(value, ir.MemberOf) and isinstance(value.header, ir.StackElement):
                index = rewrite(value.header.index, change)
                header = ir.StackElement(value.header.stack, index)
                setattr(stmt, f.name, ir.MemberOf(header, value.field))
        elif isinstance(value, ir.Expr):
            setattr(stmt, f.name, rewrite(value, change))
        elif isinstance(value, tuple) and any(isinstance(v, ir.Expr) for v in value):
            setattr(stmt, f.name, tuple(rewrite(v, change) for v in value))


def field_refs(e: ir.Expr) -> Iterator[ir.FieldRef]:
    """The named fields in an expression."""
    for sub in subexpressions(e):
        if isinstance(sub, ir.FieldRef):
            yield sub
