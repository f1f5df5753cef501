"""Where fields live in C++: names, storage types, runs of equal fields."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import ir

MIN_RUN = 8
"""So many neighbouring fields of one width become an array."""


class Names:
    """Hands out identifiers, each once: a prefix of the translator's and a number.

    No name of the program is part of them.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def new(self, prefix: str) -> str:
        """The next identifier that begins with ``prefix``."""
        n = self.counts.get(prefix, 0)
        self.counts[prefix] = n + 1
        return f"{prefix}{n}"


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
    fields = [f for f in header_type.fields if only is None or f.name in only]
    i = 0
    while i < len(fields):
        run = _run_at(fields, i)
        if len(run) >= MIN_RUN:
            member = Member(names.new("run"), storage(run[0].bits), run, True)
            for n, f in enumerate(run):
                layout.access[f.name] = f"{member.name}[{n}]"
                layout.run[f.name] = (member, n)
            i += len(run)
        else:
            f = fields[i]
            member = Member(names.new("f"), storage(f.bits), [f], False)
            layout.access[f.name] = member.name
            i += 1
        layout.members.append(member)
    return layout


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


def _metadata_key(header: str) -> str:
    return f"\n{header}"  # no header type has such a name


class Layout:
    """The layout of a whole program."""

    def __init__(self, program: ir.Program, used: set[ir.FieldRef]) -> None:
        self.program = program
        names = Names()
        self.types: dict[str, TypeLayout] = {}
        # Header → C++ expression. No stack is called as a header is.
        self.place: dict[str, str] = {}
        for header in program.headers.values():
            only = None
            key = header.type.name
            if header.metadata:
                # Each metadata instance has a type of its own: it holds what is used of it.
                only = {ref.field for ref in used if ref.header == header.name}
                key = _metadata_key(header.name)
            if key not in self.types:
                self.types[key] = lay_out(header.type, names.new("Header"), only)
        for stack in program.stacks.values():
            name = names.new("stack")
            for index, element in enumerate(stack.elements):
                self.place[element] = f"h.{name}[{index}]"
            self.place[stack.name] = f"h.{name}"
        for header in program.headers.values():
            if header.stack is None:
                name = names.new("m" if header.metadata else "h")
                self.place[header.name] = f"h.meta.{name}" if header.metadata else f"h.{name}"

    def type_of(self, header: str) -> TypeLayout:
        """The struct of a header instance."""
        h = self.program.headers[header]
        return self.types[_metadata_key(h.name) if h.metadata else h.type.name]

    def stack_type(self, stack: str) -> TypeLayout:
        """The struct of a stack's elements."""
        return self.types[self.program.stacks[stack].type.name]

    def field(self, ref: ir.FieldRef) -> str:
        """The C++ lvalue of a field."""
        return f"{self.place[ref.header]}.{self.type_of(ref.header).access[ref.field]}"
