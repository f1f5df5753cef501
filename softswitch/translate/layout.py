"""Where fields live in C++: names, storage types, runs of equal fields."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import ir

MIN_RUN = 8
"""So many neighbouring fields of one width become an array."""

KEYWORDS = frozenset(
    [
        "alignas",
        "alignof",
        "and",
        "asm",
        "auto",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "concept",
        "const",
        "continue",
        "default",
        "delete",
        "do",
        "double",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "final",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "not",
        "nullptr",
        "operator",
        "or",
        "override",
        "private",
        "protected",
        "public",
        "register",
        "requires",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "true",
        "try",
        "typedef",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "xor",
        "valid",
    ]
)


def identifier(name: str) -> str:
    """A C++ identifier that looks like ``name``."""
    text = re.sub(r"\W+", "_", name).strip("_") or "x"
    if text[0].isdigit() or text in KEYWORDS:
        text = "x_" + text
    return text


class Names:
    """Hands out identifiers, each once."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def new(self, name: str) -> str:
        """An unused identifier that looks like ``name``."""
        base = identifier(name)
        candidate, n = base, 1
        while candidate in self.used:
            n += 1
            candidate = f"{base}_{n}"
        self.used.add(candidate)
        return candidate


def storage(bits: int) -> str:
    """The C++ type that holds an unsigned value of ``bits`` bits."""
    for size in (8, 16, 32, 64):
        if bits <= size:
            return f"std::uint{size}_t"
    return f"Wide<{(bits + 63) // 64}>"


@dataclass
class Member:
    """A member of a header's C++ struct: one field, or an array over a run of fields."""

    name: str
    ctype: str
    fields: list[ir.Field]
    run: bool


@dataclass
class TypeLayout:
    """The C++ struct of a header type."""

    cxx: str
    members: list[Member] = field(default_factory=list)
    access: dict[str, str] = field(default_factory=dict)
    run: dict[str, tuple[Member, int]] = field(default_factory=dict)


def lay_out(header_type: ir.HeaderType, cxx: str, only: set[str] | None = None) -> TypeLayout:
    """Lays out a type. ``only``: keep just these fields (unused metadata is left out)."""
    layout = TypeLayout(cxx)
    names = Names()
    names.used.update(("valid", "used"))
    fields = [f for f in header_type.fields if only is None or f.name in only]
    i = 0
    while i < len(fields):
        run = _run_at(fields, i)
        if len(run) >= MIN_RUN:
            prefix = _common_prefix([f.name for f in run]).rstrip("0123456789_") or "run"
            member = Member(names.new(prefix), storage(run[0].bits), run, True)
            for n, f in enumerate(run):
                layout.access[f.name] = f"{member.name}[{n}]"
                layout.run[f.name] = (member, n)
            i += len(run)
        else:
            f = fields[i]
            member = Member(names.new(f.name.rsplit(".", 1)[-1]), storage(f.bits), [f], False)
            layout.access[f.name] = member.name
            i += 1
        layout.members.append(member)
    return layout


def _common_prefix(names: list[str]) -> str:
    first, last = min(names), max(names)
    same = 0
    while same < len(first) and first[same] == last[same]:
        same += 1
    return first[:same]


def _run_at(fields: list[ir.Field], start: int) -> list[ir.Field]:
    first = fields[start]
    if first.bits not in (8, 16, 32, 64) or first.offset % 8 != 0:
        return [first]
    run = [first]
    for f in fields[start + 1 :]:
        follows = f.offset == run[-1].offset + first.bits
        if f.bits != first.bits or f.signed != first.signed or not follows:
            break
        run.append(f)
    return run


class Layout:
    """The layout of a whole program."""

    def __init__(self, program: ir.Program, used: set[ir.FieldRef]) -> None:
        self.program = program
        type_names, member_names = Names(), Names()
        self.types: dict[str, TypeLayout] = {}
        self.place: dict[str, str] = {}  # header → C++ expression
        for header in program.headers.values():
            only = None
            key = header.type.name
            if header.metadata:
                # Each metadata instance has a type of its own: it holds what is used of it.
                only = {ref.field for ref in used if ref.header == header.name}
                key = f"{header.name} (metadata)"
            if key not in self.types:
                self.types[key] = lay_out(
                    header.type, type_names.new(header.type.name + "_h"), only
                )
        for stack in program.stacks.values():
            name = member_names.new(stack.name)
            for index, element in enumerate(stack.elements):
                self.place[element] = f"h.{name}[{index}]"
            self.place[stack.name] = f"h.{name}"
        for header in program.headers.values():
            if header.stack is None:
                name = member_names.new(header.name)
                self.place[header.name] = f"h.meta.{name}" if header.metadata else f"h.{name}"

    def type_of(self, header: str) -> TypeLayout:
        """The struct of a header instance."""
        h = self.program.headers[header]
        return self.types[f"{h.name} (metadata)" if h.metadata else h.type.name]

    def stack_type(self, stack: str) -> TypeLayout:
        """The struct of a stack's elements."""
        return self.types[self.program.stacks[stack].type.name]

    def field(self, ref: ir.FieldRef) -> str:
        """The C++ lvalue of a field."""
        return f"{self.place[ref.header]}.{self.type_of(ref.header).access[ref.field]}"
