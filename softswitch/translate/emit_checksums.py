"""Calculations, checksums and the deparser → C++."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from . import ir
from .emit_actions import StatementEmitter
from .writer import Writer

FUNCTIONS = {
    "csum16": "csum16",
    "crc16": "crc16",
    "crc32": "crc32",
    "crcCCITT": "crc_ccitt",
    "identity": "identity",
    "xor16": "xor16",
}


# Lines that differ in one index alone, so many of them or more, become a loop.
_LEAST_ROLLED = 8
_INDEX = re.compile(r"\[(\d+)\]")


def _rolled_up(lines: Iterable[str]) -> Iterator[str]:
    """The same lines, with runs over consecutive elements of an array as loops."""
    run: list[str] = []
    shape: tuple[str, str] | None = None
    first = 0

    def finished() -> Iterator[str]:
        if shape is None or len(run) < _LEAST_ROLLED:
            yield from run
        else:
            before, after = shape
            yield f"for (std::size_t i = {first}; i < {first + len(run)}; ++i) {before}[i]{after}"

    for line in lines:
        found = _INDEX.search(line)
        here = None if found is None else (line[: found.start()], line[found.end() :])
        index = 0 if found is None else int(found[1])
        if here is None or here != shape or index != first + len(run):
            yield from finished()
            run, shape, first = [], here, index
        run.append(line)
    yield from finished()


def emit_calculations(w: Writer, owner: StatementEmitter) -> None:
    """One member function per calculation: the hash over the packet's current fields."""
    values, layout, program = owner.values, owner.layout, owner.program
    values.temps, values.param_words = {}, []
    for calc in program.calculations.values():
        total = 0
        for i in calc.inputs:
            total += i[1] if isinstance(i, tuple) else program.headers[i.name].type.bits
        payload = " and the payload" if calc.payload else ""
        w.comment(f"{calc.name}: {calc.algorithm} over {len(calc.inputs)} inputs{payload}")
        with w.block(f"std::uint64_t {owner.member('calculation', calc.name)}()"):
            _emit_known_places(w, owner, calc)
            if calc.payload:
                w.line("std::uint8_t* const buffer = scratch_.get();")
            else:
                w.line(f"std::uint8_t buffer[{max((total + 7) // 8, 1)}];")
            w.line("BitWriter out(buffer);")
            appended: list[str] = []
            for i in calc.inputs:
                if isinstance(i, ir.HeaderRef):
                    for line in _rolled_up(appended):
                        w.line(line)
                    appended = []
                    header = program.headers[i.name]
                    place = layout.place[i.name]
                    with w.block(f"if ({place}.valid)"):
                        w.line(f"std::uint8_t bytes[{header.type.bits // 8}];")
                        w.line(f"deparse({place}, bytes);")
                        w.line("out.append_bytes(bytes, sizeof bytes);")
                    continue
                expr, bits = i
                guard = ""
                if isinstance(expr, ir.FieldRef) and not program.headers[expr.header].metadata:
                    guard = f"if ({layout.place[expr.header]}.valid) "
                appended.append(f"{guard}out.append({values.assigned(expr, bits)}, {bits});")
            for line in _rolled_up(appended):
                w.line(line)
            if calc.payload:
                w.line("out.append_bytes(cursor_, static_cast<std::size_t>(end_ - cursor_));")
            w.line(f"return {FUNCTIONS[calc.algorithm]}(buffer, out.bytes());")
        w.line()


def _emit_known_places(w: Writer, owner: StatementEmitter, calc: ir.Calculation) -> None:
    """csum16 without a buffer, for when every header is there: each field's place is known then."""
    values, layout, program = owner.values, owner.layout, owner.program
    if calc.algorithm != "csum16" or calc.payload:
        return
    terms: list[str] = []
    guards: list[str] = []
    offset = 0
    for i in calc.inputs:
        if isinstance(i, ir.HeaderRef):
            return
        expr, bits = i
        offset += bits
        up = -offset % 16  # the field ends so many bits before a boundary of 16
        if bits + up > 64:
            return
        if isinstance(expr, ir.FieldRef) and not program.headers[expr.header].metadata:
            guard = f"{layout.place[expr.header]}.valid"
            if guard not in guards:
                guards.append(guard)
        value = f"std::uint64_t{{{values.assigned(expr, bits)}}}"
        terms.append(f"sum.add({value} << {up});" if up else f"sum.add({value});")
    with w.block(f"if ({' && '.join(guards) or 'true'})"):
        w.line("Csum16 sum;")
        for term in _rolled_up(terms):
            w.line(term)
        w.line("return sum.finish();")


def emit_checksums(w: Writer, owner: StatementEmitter) -> None:
    """``verify_checksums()`` after parsing and ``update_checksums()`` before deparsing."""
    values, layout, program = owner.values, owner.layout, owner.program
    values.temps, values.param_words = {}, []
    with w.block("void verify_checksums()"):
        error = program.aliases.get(
            "standard_metadata.checksum_error", ir.FieldRef("standard_metadata", "checksum_error")
        )
        access = layout.type_of(error.header).access.get(error.field)
        for c in program.checksums:
            if not c.verify or access is None:
                continue
            w.source(c.source)
            values.source = c.source
            tests = []
            if not program.headers[c.target.header].metadata:
                tests.append(f"{layout.place[c.target.header]}.valid")
            if c.condition is not None:
                tests.append(values.boolean(c.condition))
            found = owner.member("calculation", c.calculation)
            tests.append(f"{found}() != {values.assigned(c.target, 64)}")
            w.line(f"if ({' && '.join(tests)}) {layout.place[error.header]}.{access} = 1;")
    w.line()
    with w.block("void update_checksums()"):
        for c in program.checksums:
            if not c.update:
                continue
            w.source(c.source)
            values.source = c.source
            condition = "true" if c.condition is None else values.boolean(c.condition)
            with w.block(f"if ({condition})"):
                if not program.headers[c.target.header].metadata:
                    owner.mark(w, [c.target.header])
                found = owner.member("calculation", c.calculation)
                owner.store_from(w, c.target, f"{found}()", 64)
    w.line()


def emit_deparser(
    w: Writer,
    owner: StatementEmitter,
    changing: Collection[str] | None,
    removable: Collection[str] = (),
) -> None:
    """``deparse_to()``: the valid headers in order, then what the parser left.

    ``changing`` are the headers in which copies of a packet may differ (None: there are no
    copies). What leaves behind the last of them is put together for the first copy only, and again
    for a copy that has other headers there than the one before: some may lack the ``removable``.
    """
    layout, program = owner.layout, owner.program
    copied = changing is not None
    ends = [i + 1 for i, name in enumerate(program.deparser) if name in (changing or ())]
    split = max(ends, default=0)
    head, tail = program.deparser[:split], program.deparser[split:]
    shape = " | ".join(
        f"(std::uint64_t{{{layout.place[name]}.valid}} << {n})"
        for n, name in enumerate(name for name in tail if name in removable)
    )

    def lengths(total: str, names: Iterable[str]) -> None:
        for name in names:
            nbytes = program.headers[name].type.bits // 8
            w.line(f"if ({layout.place[name]}.valid) {total} += {nbytes};")

    def headers(names: Iterable[str]) -> None:
        for name in names:
            nbytes = program.headers[name].type.bits // 8
            with w.block(f"if ({layout.place[name]}.valid)"):
                w.line(f"deparse({layout.place[name]}, p);")
                w.line(f"p += {nbytes};")

    w.comment("The deparser: the valid headers in order, then the payload.")
    with w.block("void deparse_to(std::uint16_t port, Emitter& out)"):
        w.line("const auto payload = static_cast<std::size_t>(end_ - cursor_);")
        w.line("std::size_t tail = payload;", "and the headers that are alike in all copies")
        lengths("tail", tail)
        w.line("std::size_t length = tail;")
        lengths("length", head)
        w.line("const std::size_t limit = smaller(length, truncate_);")
        if copied:
            if shape:
                w.line(f"const std::uint64_t shape = {shape};")
            same = "tail_given_ && tail_shape_ == shape" if shape else "tail_given_"
            w.line(f"const bool repeated = {same} && limit == length;")
            w.line("std::uint8_t* const frame =")
            w.line("    repeated ? out.copy(port, length - tail, tail) : out.frame(port, limit);")
        else:
            w.line("std::uint8_t* const frame = out.frame(port, limit);")
        w.line("if (frame == nullptr) return;")
        w.line("++stats_.emitted;")
        w.comment("A frame that is cut short is put together elsewhere first.")
        w.line("std::uint8_t* p = limit == length ? frame : scratch_.get();")
        headers(head)
        if copied:
            w.line("if (repeated) return;")
            w.line("tail_given_ = tail_shared_ && limit == length;")
            if shape:
                w.line("tail_shape_ = shape;")
        headers(tail)
        w.line("if (payload > 0) std::memcpy(p, cursor_, payload);")
        w.line("if (limit != length) std::memcpy(frame, scratch_.get(), limit);")
    w.line()
