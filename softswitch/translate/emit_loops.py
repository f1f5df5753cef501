"""Rolled loops → C++ that the compiler can vectorize.

A loop whose registers are indexed by ``base + round`` gets two versions: if the whole range lies
inside of the array, one check is made and a function over plain pointers runs, compiled for several
instruction sets; otherwise every access is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from . import ir
from .layout import storage
from .reroll import growth
from .values import Values
from .walk import read_exprs, statements, subexpressions, written_place
from .writer import Writer

# Beyond it the sum with a base of 32 bits could pass 2^64, and come out small.
_HIGHEST_START = 1 << 31


@dataclass
class _Induction:
    """A place that grows by ``step`` once per round, at statement ``position``."""

    place: ir.Place
    step: int
    position: int


@dataclass(frozen=True)
class _Range:
    """The registers' index in round i: base + start + i."""

    base: ir.Expr
    start: int


class Statements(Protocol):
    """The emitter of statements, as loops need it."""

    program: ir.Program
    values: Values

    def member(self, kind: str, name: str) -> str:
        """The C++ member of a register, counter, calculation or table."""

    def emit(self, w: Writer, stmt: ir.Stmt) -> None:
        """Write one statement."""

    def emit_body(self, w: Writer, body: list[ir.Stmt]) -> None:
        """Write statements in order."""

    def store_from(self, w: Writer, place: ir.Place, code: str, have: int) -> None:
        """Assign an unsigned value of ``have`` bits, cut to the place's width."""

    @staticmethod
    def stored(code: str, bits: int) -> str:
        """``code``, computed in the type for ``bits`` bits, as the type that stores them."""


class LoopEmitter:
    """Writes loops; their fast versions are collected in ``functions``."""

    def __init__(self, owner: Statements) -> None:
        self.owner = owner
        self.functions = Writer()
        self.count = 0

    def emit(self, w: Writer, loop: ir.Loop) -> None:
        """One loop."""
        plan = self.plan(loop)
        if plan is None:
            self.plain(w, loop)
            return
        ranges, induction = plan
        values = self.owner.values
        self.count += 1
        name = f"loop_{self.count}"
        self.fast(name, loop, ranges, induction)
        with w.block(""):
            checks, args = [], []
            for n, (register, r) in enumerate(ranges.items()):
                start = f" + {r.start}" if r.start else ""
                w.line(
                    f"const std::uint64_t first_{n} = "
                    f"std::uint64_t{{{values.assigned(r.base, 32)}}}{start};"
                )
                member = self.owner.member("register", register)
                checks.append(f"{member}.holds(first_{n}, {loop.count})")
                args.append(f", {member}.data() + first_{n}")
            with w.block(f"if ({' && '.join(checks) or 'true'})", "} else {"):
                w.line(f"{name}(h, a{''.join(args)});")
                if induction is not None:
                    grown = ir.Binary("+", induction.place, ir.Const(induction.step * loop.count))
                    self.owner.emit(w, ir.Assign(induction.place, grown))
            w.depth += 1
            self.plain(w, loop)
            w.depth -= 1
            w.line("}")

    def plain(self, w: Writer, loop: ir.Loop) -> None:
        """Every access checked."""
        with w.block(f"for (std::uint32_t i = 0; i < {loop.count}; ++i)"):
            self.owner.emit_body(w, loop.body)

    # --- when and how a loop can be fast ---

    def plan(self, loop: ir.Loop) -> tuple[dict[str, _Range], _Induction | None] | None:
        """The register ranges and the induction variable; None: no fast version."""
        allowed = (ir.Assign, ir.RegisterRead, ir.RegisterWrite)
        if not all(isinstance(s, allowed) for s in loop.body):
            return None
        inductions: list[_Induction] = []
        written: set[ir.Expr] = set()
        for position, stmt in enumerate(loop.body):
            place = written_place(stmt)
            if place is None:
                continue
            step = growth(stmt)
            if step is not None and not isinstance(place, ir.RunRef | ir.MemberOf):
                inductions.append(_Induction(place, step, position))
            elif isinstance(place, ir.FieldRef | ir.MemberOf):
                return None
            written.add(place)
        if len(inductions) > 1:
            return None
        induction = inductions[0] if inductions else None
        if induction is not None:
            places = [written_place(s) for s in loop.body]
            if places.count(induction.place) != 1:
                return None
        if not _temps_stay_inside(loop, induction):
            return None
        ranges: dict[str, _Range] = {}
        for position, stmt in enumerate(loop.body):
            if not isinstance(stmt, ir.RegisterRead | ir.RegisterWrite):
                continue
            r = self.range_of(stmt.index, position, induction, written, loop)
            if r is None or ranges.setdefault(stmt.register, r) != r:
                return None
        if induction is not None and _reads_elsewhere(loop, induction.place):
            return None
        return ranges, induction

    def range_of(
        self,
        index: ir.Expr,
        position: int,
        induction: _Induction | None,
        written: set[ir.Expr],
        loop: ir.Loop,
    ) -> _Range | None:
        """``index`` as base + start + round, if it has that form and cannot wrap before 2^32."""
        while (
            isinstance(index, ir.Binary)
            and index.op == "&"
            and isinstance(index.right, ir.Const)
            and index.right.value == 0xFFFFFFFF
        ):
            index = index.left
        if induction is not None and index == induction.place:
            if induction.step != 1:
                return None
            return _Range(index, 1 if position > induction.position else 0)
        base, start = index, 0
        if isinstance(index, ir.Binary) and index.op == "+" and isinstance(index.right, ir.Step):
            if index.right.step != 1 or not 0 <= index.right.start < _HIGHEST_START:
                return None
            base, start = index.left, index.right.start
        elif isinstance(index, ir.Step):
            if index.step != 1 or not 0 <= index.start < _HIGHEST_START:
                return None
            return _Range(ir.Const(0), index.start)
        else:
            return None
        bounds = self.owner.values.interval(base)
        fixed = not any(
            sub in written or isinstance(sub, ir.Step | ir.RunRef) for sub in subexpressions(base)
        )
        if not fixed or bounds is None or bounds[0] < 0 or bounds[1] >= 1 << 32:
            return None
        return _Range(base, start)

    def fast(
        self,
        name: str,
        loop: ir.Loop,
        ranges: dict[str, _Range],
        induction: _Induction | None,
    ) -> None:
        """The function over plain pointers."""
        owner, values, w = self.owner, self.owner.values, self.functions
        w.last_source = ir.NOWHERE
        w.source(loop.source)
        pointers = {register: f"r{n}" for n, register in enumerate(ranges)}
        args = "".join(
            f", {storage(owner.program.registers[register].bits)}* __restrict {pointer}"
            for register, pointer in pointers.items()
        )
        with (
            w.block(
                f"WIRESUM_HOT static void {name}(Headers& h, "
                f"[[maybe_unused]] const std::uint64_t* a{args})"
            ),
            w.block(f"for (std::size_t i = 0; i < {loop.count}; ++i)"),
        ):
            for temp in sorted(_temps_of(loop), key=lambda t: t.name):
                w.line(f"{storage(temp.bits)} {values.temps[temp.name]};")
            for position, stmt in enumerate(loop.body):
                if induction is not None and position == induction.position:
                    continue
                w.source(stmt.source)
                if isinstance(stmt, ir.RegisterRead):
                    bits = owner.program.registers[stmt.register].bits
                    owner.store_from(w, stmt.place, f"{pointers[stmt.register]}[i]", bits)
                elif isinstance(stmt, ir.RegisterWrite):
                    bits = owner.program.registers[stmt.register].bits
                    code = owner.stored(values.assigned(stmt.value, bits), bits)
                    w.line(f"{pointers[stmt.register]}[i] = {code};")
                else:
                    owner.emit(w, stmt)
        w.line()


def _temps_of(loop: ir.Loop) -> set[ir.Temp]:
    found: set[ir.Temp] = set()
    for stmt in statements(loop.body):
        place = written_place(stmt)
        tops = read_exprs(stmt) + ([place] if place is not None else [])
        found |= {sub for e in tops for sub in subexpressions(e) if isinstance(sub, ir.Temp)}
    return found


def _temps_stay_inside(loop: ir.Loop, induction: _Induction | None) -> bool:
    """Whether every temporary is written before it is read in each round."""
    if induction is not None and isinstance(induction.place, ir.Temp):
        return False
    written: set[ir.Expr] = set()
    for stmt in loop.body:
        for e in read_exprs(stmt):
            if any(isinstance(s, ir.Temp) and s not in written for s in subexpressions(e)):
                return False
        place = written_place(stmt)
        if isinstance(place, ir.Temp):
            written.add(place)
    return not (written & loop.live_after)


def _reads_elsewhere(loop: ir.Loop, place: ir.Place) -> bool:
    """Whether anything but register indexes and its own growth reads the induction variable."""
    for stmt in loop.body:
        if growth(stmt) is not None and written_place(stmt) == place:
            continue
        for e in read_exprs(stmt):
            if isinstance(stmt, ir.RegisterRead | ir.RegisterWrite) and e is stmt.index:
                continue
            if any(sub == place for sub in subexpressions(e)):
                return True
    return False
