"""The C++ structs of a program's headers, with their extraction and deparsing."""

from __future__ import annotations

from . import ir
from .layout import Layout, Member, TypeLayout
from .writer import Writer

HOT_RUN = 16
"""A run of so many fields is copied by a function that is compiled for several CPUs."""


def emit_types(w: Writer, layout: Layout) -> None:
    """All header structs, then the struct of everything that a packet carries."""
    program = layout.program
    done: set[str] = set()
    for header in program.headers.values():
        t = layout.type_of(header.name)
        if t.cxx in done:
            continue
        done.add(t.cxx)
        _emit_struct(w, t, header)
        if not header.metadata:
            _emit_extract(w, t, header.type)
            _emit_deparse(w, t, header.type)
    w.comment("What a packet carries through the pipelines; reused from packet to packet.")
    with w.block("struct Headers", "};"):
        with w.block("struct Meta", "} meta;"):
            for header in program.headers.values():
                if header.metadata:
                    name = layout.place[header.name].rsplit(".", 1)[-1]
                    w.line(f"{layout.type_of(header.name).cxx} {name};", header.name)
        for header in program.headers.values():
            if not header.metadata and header.stack is None:
                w.line(
                    f"{layout.type_of(header.name).cxx} {layout.place[header.name][2:]};",
                    header.name,
                )
        for stack in program.stacks.values():
            name = layout.place[stack.name][2:]
            w.line(f"{layout.stack_type(stack.name).cxx} {name}[{stack.size}];", stack.name)
            w.line(f"std::uint32_t {name}_next;", "elements in use")
    w.line()


def _emit_struct(w: Writer, t: TypeLayout, header: ir.Header) -> None:
    w.comment(header.name if header.metadata else header.type.name)
    with w.block(f"struct {t.cxx}", "};"):
        if not header.metadata:
            w.line("bool valid;")
            w.line("bool used;", "may hold a packet's data, this one's or an earlier one's")
        for m in t.members:
            first, last = m.fields[0], m.fields[-1]
            if m.run:
                align = "alignas(64) " if len(m.fields) >= HOT_RUN else ""
                w.line(
                    f"{align}{m.ctype} {m.name}[{len(m.fields)}];", f"{first.name} .. {last.name}"
                )
            else:
                kind = "int" if first.signed else "bit"
                w.line(f"{m.ctype} {m.name};", f"{first.name}: {kind}<{first.bits}>")
        if not header.metadata:
            w.line(f"bool operator==(const {t.cxx}&) const = default;")
    w.line()


def _chunks(t: TypeLayout) -> list[list[Member]]:
    """Groups of members that begin and end at byte boundaries."""
    groups: list[list[Member]] = []
    current: list[Member] = []
    for m in t.members:
        if m.run:
            groups.append([m])
            continue
        current.append(m)
        end = m.fields[-1].offset + m.fields[-1].bits
        if end % 8 == 0:
            groups.append(current)
            current = []
    return groups


def _emit_extract(w: Writer, t: TypeLayout, header: ir.HeaderType) -> None:
    hot = any(m.run and len(m.fields) >= HOT_RUN for m in t.members)
    w.comment(f"{header.name}: {header.bits // 8} bytes of a packet to fields")
    prefix = "WIRESUM_HOT static" if hot else "static inline"
    with w.block(f"{prefix} void extract({t.cxx}& x, const std::uint8_t* p)"):
        for group in _chunks(t):
            first = group[0].fields[0]
            at = first.offset // 8
            if group[0].run:
                w.line(f"load_run(x.{group[0].name}, p + {at}, {len(group[0].fields)});")
                continue
            bits = sum(m.fields[0].bits for m in group)
            if bits <= 64 and len(group) == 1:
                w.line(f"x.{group[0].name} = {_cut(group[0], f'load_be<{bits // 8}>(p + {at})')};")
            elif bits <= 64:
                with w.block(""):
                    w.line(f"const std::uint64_t v = load_be<{bits // 8}>(p + {at});")
                    left = bits
                    for m in group:
                        left -= m.fields[0].bits
                        mask = (1 << m.fields[0].bits) - 1
                        shifted = f"v >> {left}" if left else "v"
                        w.line(f"x.{m.name} = {_cut(m, f'({shifted}) & {mask:#x}')};")
            else:
                for m in group:
                    f = m.fields[0]
                    if f.bits > 64:
                        words = (f.bits + 63) // 64
                        w.line(f"x.{m.name} = get_wide<{words}>(p, {f.offset}, {f.bits});")
                    else:
                        w.line(f"x.{m.name} = {_cut(m, f'get_bits(p, {f.offset}, {f.bits})')};")
    w.line()


def _cut(m: Member, code: str) -> str:
    return code if m.ctype == "std::uint64_t" else f"static_cast<{m.ctype}>({code})"


def _emit_deparse(w: Writer, t: TypeLayout, header: ir.HeaderType) -> None:
    hot = any(m.run and len(m.fields) >= HOT_RUN for m in t.members)
    prefix = "WIRESUM_HOT static" if hot else "static inline"
    with w.block(f"{prefix} void deparse(const {t.cxx}& x, std::uint8_t* p)"):
        for group in _chunks(t):
            first = group[0].fields[0]
            at = first.offset // 8
            if group[0].run:
                w.line(f"store_run(p + {at}, x.{group[0].name}, {len(group[0].fields)});")
                continue
            bits = sum(m.fields[0].bits for m in group)
            if bits <= 64:
                parts, left = [], bits
                for m in group:
                    left -= m.fields[0].bits
                    value = f"static_cast<std::uint64_t>(x.{m.name})"
                    parts.append(f"{value} << {left}" if left else value)
                w.line(f"store_be<{bits // 8}>(p + {at}, {' | '.join(parts)});")
            else:
                for m in group:
                    f = m.fields[0]
                    put = "put_wide" if f.bits > 64 else "put_bits"
                    w.line(f"{put}(p, {f.offset}, {f.bits}, x.{m.name});")
    w.line()
