"""The whole C++ file of a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import ir
from .emit_actions import StatementEmitter
from .emit_checksums import emit_calculations, emit_checksums, emit_deparser
from .emit_parser import emit_parser
from .emit_tables import emit_pipeline, emit_table_state
from .emit_types import emit_types
from .layout import Layout, Names, storage
from .stale import cleared_before_parsing
from .walk import statements, written_place
from .writer import Writer, quoted

STANDARD = "standard_metadata"
REPLICATION = 5  # simple_switch's instance_type of a multicast copy
NORMAL = 0
_MOST_REMOVED = 64  # the bits of ``tail_shape_``


def emit_program(program: ir.Program, layout: Layout, sha256: str) -> str:
    """C++ that defines ``wiresum_program_create``."""
    owner = StatementEmitter(layout, _members(program))
    # What stands first in the file depends on what comes later: a loop in an action becomes a
    # function before the class, a header that an action writes to a bit of a member. So the
    # sections are written in the order of their needs, and put together in the order of the file.
    code = _section(1, _emit_code, owner)
    interface = _section(1, _emit_interface, owner)
    state = _section(1, _emit_state, owner, sha256)
    w = Writer()
    _emit_head(w, program, sha256)
    emit_types(w, layout)
    w.append(owner.loops.functions)
    w.line("class Switch final : public Program {")
    w.line(" public:")
    w.append(interface)
    w.line(" private:")
    w.append(code)
    w.append(state)
    w.line("};")
    w.line()
    _emit_foot(w)
    return w.text()


def _section(depth: int, emit: Callable[..., None], *args: object) -> Writer:
    w = Writer(depth)
    emit(w, *args)
    return w


def _emit_code(w: Writer, owner: StatementEmitter) -> None:
    """Everything that happens to a packet."""
    program = owner.program
    emit_parser(w, owner)
    for action in program.actions.values():
        if action.body or _called_directly(program, action):
            owner.emit_action(w, action)
    emit_calculations(w, owner)
    emit_checksums(w, owner)
    emit_pipeline(w, owner, program.ingress)
    emit_pipeline(w, owner, program.egress)
    copied = _standard(owner, "mcast_grp") is not None
    if copied:
        changes = _changes_of_egress(program)
        emit_deparser(w, owner, changes.written, changes.removed)
    else:
        emit_deparser(w, owner, None)
    _emit_process(w, owner)


def _emit_head(w: Writer, program: ir.Program, sha256: str) -> None:
    w.comment(f"Made by wiresum's translator from {program.name or 'a BMv2 JSON'}; do not edit.")
    w.comment(f"SHA-256 of the JSON: {sha256}")
    w.line("#include <cstring>")
    w.line()
    for name in ("bits", "declared", "hash", "packet", "program", "state", "table"):
        w.line(f'#include "{name}.hpp"')
    w.line()
    w.line("namespace wiresum::softswitch {")
    w.line("namespace {")
    w.line()
    w.line("constexpr std::uint64_t kNoData[1] = {0};")
    w.line()


def _emit_foot(w: Writer) -> None:
    w.line("}", "namespace")
    w.line("}", "namespace wiresum::softswitch")
    w.line()
    with w.block(
        'extern "C" __attribute__((visibility("default"))) '
        "wiresum::softswitch::Program* wiresum_program_create(const char* abi)"
    ):
        w.line("if (std::strcmp(abi, WIRESUM_ABI) != 0) return nullptr;")
        w.line("return new wiresum::softswitch::Switch();")


def _members(program: ir.Program) -> dict[str, str]:
    names = Names()
    members: dict[str, str] = {}
    for kind, arrays in (("register", program.registers), ("counter", program.counters)):
        for name in arrays:
            members[f"{kind} {name}"] = names.new(kind) + "_"
    for name in program.calculations:
        members[f"calculation {name}"] = names.new("calculate")
    for pipeline in (program.ingress, program.egress):
        for name in pipeline.tables:
            members[f"table {name}"] = names.new("table") + "_"
    for number in program.actions:
        members[f"action {number}"] = names.new("action")
    return members


def _arrays(owner: StatementEmitter) -> list[str]:
    """The C++ members of all registers and counters."""
    program = owner.program
    registers = [owner.member("register", name) for name in program.registers]
    return registers + [owner.member("counter", name) for name in program.counters]


def _called_directly(program: ir.Program, action: ir.Action) -> bool:
    return any(
        t.synthesized and t.default_action == action.id
        for p in (program.ingress, program.egress)
        for t in p.tables.values()
    )


def _visible_tables(program: ir.Program) -> list[ir.Table]:
    return [
        t
        for p in (program.ingress, program.egress)
        for t in p.tables.values()
        if not t.synthesized or t.default_data
    ]


def _emit_interface(w: Writer, owner: StatementEmitter) -> None:
    program = owner.program
    arrays = _arrays(owner)
    with w.block("Switch()"):
        w.line("std::memset(static_cast<void*>(&h), 0, sizeof h);")
    w.line("const ProgramInfo& info() const override { return info_; }")
    w.line("std::span<Table* const> tables() override { return tables_; }")
    w.line("std::span<Counter* const> counters() override { return counters_; }")
    w.line("std::span<Register* const> registers() override { return registers_; }")
    w.line("MulticastGroups& multicast() override { return multicast_; }")
    w.line("ProgramStats stats() const override { return stats_; }")
    with w.block("void reset() override"):
        for t in _visible_tables(program):
            w.line(f"{owner.member('table', t.name)}.reset();")
        for name in arrays:
            w.line(f"{name}.reset();")
        w.line("multicast_.reset();")
        w.line("stats_ = {};")
    w.line()
    with w.block(
        "void process(std::uint16_t ingress_port, std::span<const std::uint8_t> frame, "
        "Emitter& out) override"
    ):
        w.line("++stats_.received;")
        w.line("if (frame.size() <= kMaxFrameBytes) run(ingress_port, frame, out);")
    w.line()


def standard_field(program: ir.Program, name: str) -> ir.FieldRef:
    """A field of standard_metadata, wherever the program's aliases say that it is."""
    return program.aliases.get(f"intrinsic_metadata.{name}", ir.FieldRef(STANDARD, name))


def _standard(owner: StatementEmitter, name: str) -> str | None:
    """The C++ place of a field of standard_metadata; None if the program does not use it."""
    ref = standard_field(owner.program, name)
    access = owner.layout.type_of(ref.header).access.get(ref.field)
    return None if access is None else f"{owner.layout.place[ref.header]}.{access}"


def _set(w: Writer, owner: StatementEmitter, name: str, code: str, ctype: str = "") -> None:
    place = _standard(owner, name)
    if place is not None:
        w.line(f"{place} = {f'static_cast<{ctype}>({code})' if ctype else code};")


def _clear(w: Writer, owner: StatementEmitter, header: str) -> None:
    bit = owner.bits.get(header)
    touched = "" if bit is None else f", (touched & {bit:#x}) != 0"
    w.line(f"clear_unused({owner.layout.place[header]}{touched});")


def _emit_process(w: Writer, owner: StatementEmitter) -> None:
    program, layout = owner.program, owner.layout
    spec, group = _standard(owner, "egress_spec"), _standard(owner, "mcast_grp")
    assert spec is not None
    with w.block("void mark_to_drop()"):
        w.line(f"{spec} = kDropPort;")
        _set(w, owner, "mcast_grp", "0")
    w.line()
    if any(_standard(owner, f"{p}_global_timestamp") for p in ("ingress", "egress")) or _standard(
        owner, "enq_timestamp"
    ):
        w.comment("Microseconds since the program was created, in 48 bits.")
        with w.block("std::uint64_t now() const"):
            w.line("return (microseconds() - created_) & 0xffffffffffff;")
        w.line()
    head = "void run(std::uint16_t ingress_port, std::span<const std::uint8_t> frame, Emitter& out)"
    with w.block(head):
        w.line("frame_bytes_ = frame.size();")
        w.line("length_ = static_cast<std::uint32_t>(frame.size());")
        w.line("cursor_ = frame.data();")
        w.line("end_ = cursor_ + frame.size();")
        w.line("truncate_ = ~std::size_t{0};")
        w.line("exit_ = failed_ = false;")
        if group is not None:
            w.line("tail_shared_ = tail_given_ = false;")
        w.line("std::memset(static_cast<void*>(&h.meta), 0, sizeof h.meta);")
        for header in program.headers.values():
            if not header.metadata:
                w.line(f"{layout.place[header.name]}.valid = false;")
        for stack in program.stacks.values():
            w.line(f"{layout.place[stack.name]}_next = 0;")
        _set(w, owner, "ingress_port", "ingress_port")
        _set(w, owner, "packet_length", "length_")
        _set(w, owner, "ingress_global_timestamp", "now()")
        early = cleared_before_parsing(program)
        if owner.bits:
            w.line("const std::uint64_t touched = touched_;", "by the packet before")
            w.line("touched_ = 0;")
        for name in program.headers:
            if name in early:
                _clear(w, owner, name)
        w.line("const std::uint32_t error = parse();")
        w.line("if (error != 0) ++stats_.parser_errors;")
        _set(w, owner, "parser_error", "error")
        for header in program.headers.values():
            if not header.metadata and header.name not in early:
                _clear(w, owner, header.name)
        w.line("verify_checksums();")
        w.line("ingress();")
        w.line("exit_ = false;")
        w.line("if (failed_) return;")
        if group is not None:
            with w.block(f"if ({group} != 0)"):
                w.line(f"replicate({group}, out);")
                w.line("return;")
        w.line(f"if ({spec} == kDropPort) return;")
        _set(w, owner, "instance_type", str(NORMAL))
        w.line(f"leave({spec}, out);")
    w.line()
    with w.block("void leave(std::uint16_t port, Emitter& out)"):
        _set(w, owner, "egress_port", "port")
        w.line(f"{spec} = kDropPort + 1;")
        _set(w, owner, "packet_length", "length_")
        _set(w, owner, "enq_timestamp", "now()", "std::uint32_t")
        _set(w, owner, "egress_global_timestamp", "now()")
        w.line("egress();")
        w.line("exit_ = false;")
        w.line(f"if (failed_ || {spec} == kDropPort) return;")
        w.line("update_checksums();")
        w.line("deparse_to(port, out);")
    w.line()
    if group is None:
        return
    changes = _changes_of_egress(program)
    filled = [
        layout.place[stack.name]
        for stack in program.stacks.values()
        if any(e in changes.written for e in stack.elements)
    ]
    # A header that is only taken away still has its fields: it is enough to keep that it was there.
    saved = [layout.place[name] for name in changes.written]
    saved += [f"{layout.place[name]}.valid" for name in changes.removed]
    with w.block("void replicate(std::uint16_t group, Emitter& out)"):
        w.line("const std::span<const Replica> copies = multicast_.replicas(group);")
        _set(w, owner, "instance_type", str(REPLICATION))
        w.line("tail_shared_ = copies.size() > 1 && out.shares_tails();")
        w.comment("Every copy starts from what ingress left: keep whatever egress may change.")
        w.line("const Headers::Meta meta = h.meta;")
        w.line("const std::uint32_t length = length_;")
        w.line("const std::size_t truncate = truncate_;")
        for n, place in enumerate(saved):
            w.line(f"const auto kept_{n} = {place};")
        # The stacks' fill levels are kept beside their elements.
        for n, place in enumerate(filled):
            w.line(f"const std::uint32_t next_{n} = {place}_next;")
        with w.block("for (const Replica& copy : copies)"):
            _set(w, owner, "egress_rid", "copy.instance")
            w.line("leave(copy.port, out);")
            w.line("h.meta = meta;")
            w.line("length_ = length;")
            w.line("truncate_ = truncate;")
            w.line("failed_ = false;")
            for n, place in enumerate(saved):
                w.line(f"{place} = kept_{n};")
            for n, place in enumerate(filled):
                w.line(f"{place}_next = next_{n};")
    w.line()


@dataclass(frozen=True)
class _Changes:
    """What copies of a packet may differ in: headers (not metadata), in the program's order."""

    written: list[str]
    """Their fields, too, may be changed by the egress pipeline or by a checksum update."""
    removed: list[str]
    """Egress does nothing to them but ``setInvalid()``; at most ``_MOST_REMOVED``."""


def _changes_of_egress(program: ir.Program) -> _Changes:
    found: set[str] = set()
    removed: set[str] = set()

    def note(e: ir.Expr) -> None:
        if isinstance(e, ir.HeaderRef):
            found.add(e.name)
        elif isinstance(e, ir.FieldRef | ir.RunRef):
            found.add(e.header)
        elif isinstance(e, ir.MemberOf):
            note(e.header)
        elif isinstance(e, ir.StackElement | ir.StackLast):
            found.update(program.stacks[e.stack].elements)

    for table in program.egress.tables.values():
        for i in table.actions:
            for stmt in statements(program.actions[i].body):
                place = written_place(stmt)
                if place is not None:
                    note(place)
                if isinstance(stmt, ir.AssignHeader):
                    note(stmt.to)
                elif isinstance(stmt, ir.SetInvalid) and isinstance(stmt.header, ir.HeaderRef):
                    removed.add(stmt.header.name)
                elif isinstance(stmt, ir.SetValid | ir.SetInvalid):
                    note(stmt.header)
                elif isinstance(stmt, ir.PushFront | ir.PopFront):
                    found.update(program.stacks[stmt.stack].elements)
                elif isinstance(stmt, ir.AssignStack):
                    found.update(program.stacks[stmt.to].elements)
    for c in program.checksums:
        if c.update:
            found.add(c.target.header)
    headers = [name for name, header in program.headers.items() if not header.metadata]
    alone = [name for name in headers if name in removed - found][:_MOST_REMOVED]
    changed = (found | removed) - set(alone)
    return _Changes(written=[name for name in headers if name in changed], removed=alone)


def _emit_state(w: Writer, owner: StatementEmitter, sha256: str) -> None:
    program = owner.program
    w.comment("--- state ---")
    w.line("Headers h;")
    w.line("const std::uint8_t* cursor_ = nullptr;", "the parser's place in the frame")
    w.line("const std::uint8_t* end_ = nullptr;")
    w.line("std::size_t frame_bytes_ = 0;", "what counters count")
    w.line("std::uint32_t length_ = 0;", "packet_length of egress")
    w.line("std::size_t truncate_ = 0;")
    if owner.bits:
        w.line("std::uint64_t touched_ = 0;", "headers that code has written to, valid or not")
    w.line("bool exit_ = false;", "an action has ended the pipeline")
    w.line("bool failed_ = false;", "an assert has dropped the packet")
    if _standard(owner, "mcast_grp") is not None:
        w.line("bool tail_shared_ = false;", "between the copies of this packet")
        w.line("bool tail_given_ = false;", "the first copy has left")
        w.line("[[maybe_unused]] std::uint64_t tail_shape_ = 0;", "which removable headers it had")
    w.line("ProgramStats stats_;")
    w.line("Random random_;")
    w.line("MulticastEngine multicast_;")
    w.line(
        "std::unique_ptr<std::uint8_t[]> scratch_ = "
        f"std::make_unique<std::uint8_t[]>(kMaxFrameBytes + {_scratch_bytes(program)});"
    )
    w.line("[[maybe_unused]] const std::uint64_t created_ = microseconds();")
    for r in program.registers.values():
        w.line(
            f"RegisterArray<{storage(r.bits)}> {owner.member('register', r.name)}"
            f"{{{quoted(r.name)}, {r.id}, {r.size}, {r.bits}}};"
        )
    for c in program.counters.values():
        info = f"{quoted(c.name)}, {c.id}, {c.size}"
        w.line(f"CounterArray {owner.member('counter', c.name)}{{{info}}};")
    tables = _visible_tables(program)
    for t in tables:
        emit_table_state(w, owner, t)
    lists = {
        "Table": ("tables_", [owner.member("table", t.name) for t in tables]),
        "Counter": ("counters_", [owner.member("counter", name) for name in program.counters]),
        "Register": ("registers_", [owner.member("register", name) for name in program.registers]),
    }
    for kind, (name, items) in lists.items():
        if items:
            refs = ", ".join("&" + i for i in items)
            w.line(f"{kind}* const {name}[{len(items)}] = {{{refs}}};")
        else:
            w.line(f"const std::span<{kind}* const> {name};")
    spec = f"{quoted(program.name)}, {quoted(sha256)}, {quoted(program.compiler)}"
    if program.errors:
        errors = ", ".join(f"{{{quoted(n)}, {v}}}" for n, v in program.errors.items())
        w.line(f"static constexpr ErrorSpec error_specs[] = {{{errors}}};")
        spec += ", error_specs"
    w.line(f"static constexpr ProgramSpec program_spec{{{spec}}};")
    w.line("const ProgramInfo info_ = info_of(program_spec);")


def _scratch_bytes(program: ir.Program) -> int:
    """The bytes that an assembled frame, or a calculation, needs beside the payload."""
    emitted = sum(program.headers[name].type.bits // 8 for name in program.deparser)
    covered = [
        sum(i[1] if isinstance(i, tuple) else program.headers[i.name].type.bits for i in c.inputs)
        for c in program.calculations.values()
    ]
    return max(emitted, *((bits + 7) // 8 + 1 for bits in covered), 0)
