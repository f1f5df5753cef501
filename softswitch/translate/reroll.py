"""Repeated statements → loops.

P4 has no loop over the fields of a header, so a program that treats 256 lanes alike repeats the
statements 256 times. Groups of statements that differ only in field numbers (within a run of equal
fields) and constants, each growing by a fixed step, become one :class:`ir.Loop`, whose rounds do
exactly what the groups did, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from . import ir
from .layout import Layout
from .walk import blocks, read_exprs, subexpressions, written_place

MIN_ROUNDS = 8
MAX_PERIOD = 16


@dataclass
class _Leaf:
    value: int
    rebuilt: ir.FieldRef | None  # the field, if it is one


def reroll(body: list[ir.Stmt], layout: Layout) -> None:
    """Rolls up repeated statements of a body, in place."""
    for stmt in body:
        for block in blocks(stmt):
            reroll(block, layout)
    shapes: list[Any] = []
    leaves: list[list[_Leaf]] = []
    for stmt in body:
        found: list[_Leaf] = []
        shapes.append(_shape(stmt, layout, found))
        leaves.append(found)
    out: list[ir.Stmt] = []
    at = 0
    while at < len(body):
        best_rounds, best_period, best_steps = 0, 0, [0]
        for period in range(1, min(MAX_PERIOD, len(body) - at) + 1):
            rounds, steps = _rounds(shapes, leaves, at, period)
            if rounds >= MIN_ROUNDS and rounds * period > best_rounds * best_period:
                best_rounds, best_period, best_steps = rounds, period, steps
        if best_rounds == 0:
            out.append(body[at])
            at += 1
            continue
        group = body[at : at + best_period]
        back = _last_round(body, shapes, leaves, at, best_period, best_rounds, best_steps)
        if back is not None:
            best_rounds += 1
        numbers = [leaf for found in leaves[at : at + best_period] for leaf in found]
        take = iter(zip(numbers, best_steps, strict=True))
        rolled = [_rebuild(stmt, take, best_rounds, layout) for stmt in group]
        out.append(ir.Loop(best_rounds, rolled, source=group[0].source))
        at += best_rounds * best_period
        if back is not None:
            out.append(back)
            at -= 1
    body[:] = out


def mark_live(body: list[ir.Stmt], after: set[ir.Expr] | None = None) -> set[ir.Expr]:
    """Fills in ``live_after`` of every loop of an action.

    ``after``: the temporaries that may be read after ``body``. Returns those that may be read from
    the start of ``body`` on before they are written.
    """
    live = set(after or ())
    for stmt in reversed(body):
        if isinstance(stmt, ir.Loop):
            stmt.live_after = set(live)
        place = written_place(stmt)
        if isinstance(place, ir.Temp):
            live.discard(place)
        inner = [mark_live(block, live) for block in blocks(stmt)]
        for found in inner:
            live |= found
        for e in read_exprs(stmt):
            live |= {t for t in subexpressions(e) if isinstance(t, ir.Temp)}
    return live


def growth(stmt: ir.Stmt) -> int | None:
    """c for ``x = x + c`` or ``x = (x + c) & (2^32 - 1)``, with x a field of 32 bits."""
    if not isinstance(stmt, ir.Assign):
        return None
    value = stmt.value
    if isinstance(value, ir.Binary) and value.op == "&" and isinstance(value.right, ir.Const):
        if value.right.value != 0xFFFFFFFF:
            return None
        value = value.left
    if (
        isinstance(value, ir.Binary)
        and value.op == "+"
        and value.left == stmt.place
        and isinstance(value.right, ir.Const)
        and value.right.value > 0
    ):
        return value.right.value
    return None


def _last_round(
    body: list[ir.Stmt],
    shapes: list[Any],
    leaves: list[list[_Leaf]],
    at: int,
    period: int,
    rounds: int,
    steps: list[int],
) -> ir.Stmt | None:
    """The statement that undoes the growth in one more round.

    p4c drops the last ``x = x + 1`` of a sequence if nothing reads x afterwards. If one more round
    without that statement follows, the returned statement takes the growth back.
    """
    end = body[at + period - 1]
    step = growth(end)
    start = at + rounds * period
    if (
        step is None
        or period < 2
        or shapes[start : start + period - 1] != shapes[at : at + period - 1]
    ):
        return None
    zero = [leaf.value for found in leaves[at : at + period - 1] for leaf in found]
    here = [leaf.value for found in leaves[start : start + period - 1] for leaf in found]
    if any(h != z + rounds * s for h, z, s in zip(here, zero, steps, strict=False)):
        return None
    assert isinstance(end, ir.Assign)
    back = ir.Binary("&", ir.Binary("-", end.place, ir.Const(step)), ir.Const(0xFFFFFFFF))
    return ir.Assign(end.place, back, source=end.source)


def _rounds(
    shapes: list[Any], leaves: list[list[_Leaf]], at: int, period: int
) -> tuple[int, list[int]]:
    """How often the group of ``period`` statements at ``at`` repeats, and each leaf's step."""
    first = shapes[at : at + period]
    zero = [leaf.value for found in leaves[at : at + period] for leaf in found]
    steps: list[int] = []
    rounds = 1
    while True:
        start = at + rounds * period
        if shapes[start : start + period] != first:
            return rounds, steps
        here = [leaf.value for found in leaves[start : start + period] for leaf in found]
        if rounds == 1:
            steps = [b - a for a, b in zip(zero, here, strict=True)]
        elif any(h != z + rounds * s for h, z, s in zip(here, zero, steps, strict=True)):
            return rounds, steps
        rounds += 1


def _shape(node: Any, layout: Layout, leaves: list[_Leaf]) -> Any:
    """What stays the same from round to round; what may grow is put into ``leaves``."""
    if isinstance(node, ir.Const):
        leaves.append(_Leaf(node.value, None))
        return "const"
    if isinstance(node, ir.FieldRef):
        run = layout.type_of(node.header).run.get(node.field)
        if run is None:
            return node
        member, index = run
        leaves.append(_Leaf(index, node))
        return ("run", node.header, member.name)
    if isinstance(node, ir.Loop):
        return id(node)  # never rolled up again
    if isinstance(node, list):
        return [_shape(each, layout, leaves) for each in node]
    if isinstance(node, tuple):
        return tuple(_shape(each, layout, leaves) for each in node)
    if isinstance(node, ir.Expr | ir.Stmt):
        assert is_dataclass(node)
        parts: list[Any] = [type(node).__name__]
        parts += [_shape(getattr(node, f.name), layout, leaves) for f in _parts(node)]
        return parts
    return node


def _parts(node: Any) -> list[Any]:
    return [f for f in fields(node) if f.name != "source"]


def _rebuild(node: Any, take: Any, rounds: int, layout: Layout) -> Any:
    """Copies a statement of round 0 with its growing leaves replaced."""
    if isinstance(node, ir.Const):
        leaf, step = next(take)
        return ir.Step(leaf.value, step, leaf.value + step * (rounds - 1)) if step else node
    if isinstance(node, ir.FieldRef):
        if layout.type_of(node.header).run.get(node.field) is None:
            return node
        _, step = next(take)
        return ir.RunRef(node.header, node.field, step) if step else node
    if isinstance(node, list):
        return [_rebuild(each, take, rounds, layout) for each in node]
    if isinstance(node, tuple):
        return tuple(_rebuild(each, take, rounds, layout) for each in node)
    if isinstance(node, ir.Expr | ir.Stmt) and not isinstance(node, ir.Loop):
        changed = {
            f.name: _rebuild(getattr(node, f.name), take, rounds, layout) for f in _parts(node)
        }
        if isinstance(node, ir.Stmt):
            changed["source"] = node.source
        return type(node)(**changed)
    return node
