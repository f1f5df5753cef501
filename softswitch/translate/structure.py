"""Jumps → ifs. An action whose jumps do not nest (a loop) keeps them, as labels and gotos."""

from __future__ import annotations

from . import ir


class _Unstructured(Exception):
    pass


def structure(body: list[ir.Stmt]) -> list[ir.Stmt]:
    """Turns an action's flat primitives into nested statements."""
    if not any(isinstance(s, ir.Jump | ir.JumpIfZero) for s in body):
        return body
    try:
        return _block(body, 0, len(body))
    except _Unstructured:
        targets = {s.target for s in body if isinstance(s, ir.Jump | ir.JumpIfZero)}
        flat: list[ir.Stmt] = []
        for index, stmt in enumerate(body):
            if index in targets:
                flat.append(ir.Label(index))
            flat.append(stmt)
        if len(body) in targets:
            flat.append(ir.Label(len(body)))
        return flat


def _block(body: list[ir.Stmt], start: int, end: int) -> list[ir.Stmt]:
    """The statements [start, end), of which every jump must stay inside."""
    out: list[ir.Stmt] = []
    at = start
    while at < end:
        stmt = body[at]
        if isinstance(stmt, ir.Jump):
            raise _Unstructured
        if not isinstance(stmt, ir.JumpIfZero):
            out.append(stmt)
            at += 1
            continue
        target = stmt.target
        if not at < target <= end:
            raise _Unstructured
        last = body[target - 1]
        if target - 1 > at and isinstance(last, ir.Jump):
            if not target <= last.target <= end:
                raise _Unstructured
            then = _block(body, at + 1, target - 1)
            otherwise = _block(body, target, last.target)
            at = last.target
        else:
            then, otherwise = _block(body, at + 1, target), []
            at = target
        out.append(ir.If(stmt.condition, then, otherwise, source=stmt.source))
    return out
