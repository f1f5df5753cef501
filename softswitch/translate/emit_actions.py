"""Actions and statements → C++."""

from __future__ import annotations

from . import ir
from .emit_loops import LoopEmitter
from .layout import Layout, Names, storage
from .stale import written_headers
from .values import Values
from .walk import read_exprs, statements, subexpressions, written_place
from .writer import Writer, quoted

TOUCHED_BITS = 64
MAX_JUMPS = 1 << 20
"""After so many jumps back of one action for one packet, the loop counts as endless."""


class StatementEmitter:
    """Writes statements. ``loops`` collects functions that must stand before the class."""

    def __init__(self, layout: Layout, members: dict[str, str]) -> None:
        self.layout = layout
        self.program = layout.program
        self.members = members  # "register NAME" and so on → C++ member
        self.values = Values(layout)
        self.loops = LoopEmitter(self)
        self.passed: set[int] = set()  # the labels of the action so far
        self.bits: dict[str, int] = {}  # header → its bit of touched_

    def member(self, kind: str, name: str) -> str:
        """The C++ member of a register, counter, calculation or table."""
        return self.members[f"{kind} {name}"]

    # --- actions ---

    def action_name(self, action: ir.Action) -> str:
        """The member function of an action."""
        return self.members[f"action {action.id}"]

    def emit_action(self, w: Writer, action: ir.Action) -> None:
        """One action as a member function taking the entry's parameters."""
        w.source(action.source)
        takes = ", ".join(f"{name}: {bits}" for name, bits in action.params)
        w.comment(f"action {action.name}({takes})")
        self.values.source = action.source
        self.values.param_words = self.param_words(action)
        used = any(
            isinstance(sub, ir.Param)
            for s in statements(action.body)
            for e in read_exprs(s)
            for sub in subexpressions(e)
        )
        head = f"void {self.action_name(action)}([[maybe_unused]] const std::uint64_t* a)"
        if used:
            head = f"void {self.action_name(action)}(const std::uint64_t* a)"
        with w.block(head):
            self.declare_temps(w, action.body)
            self.mark_used(w, action.body)
            self.emit_body(w, action.body)
        w.line()

    @staticmethod
    def param_words(action: ir.Action) -> list[int]:
        """At which word of the entry's data each parameter begins."""
        words, at = [], 0
        for _, bits in action.params:
            words.append(at)
            at += (bits + 63) // 64
        return words

    def declare_temps(self, w: Writer, body: list[ir.Stmt]) -> None:
        """Locals for the temporaries of a body."""
        self.values.temps = {}
        temps: dict[str, ir.Temp] = {}
        for stmt in statements(body):
            place = written_place(stmt)
            if isinstance(place, ir.Temp):
                temps[place.name] = place
        names = Names()
        for name, temp in temps.items():
            local = names.new("t")
            self.values.temps[name] = local
            w.line(f"{storage(temp.bits)} {local}{{}};", name)
        self.passed.clear()
        if any(isinstance(stmt, ir.Label) for stmt in body):
            w.line("[[maybe_unused]] std::uint32_t jumps = 0;")

    def mark_used(self, w: Writer, body: list[ir.Stmt]) -> None:
        """Notes which headers a body writes to: they may hold data from now on, valid or not.

        One bit for each header in one word, which is cheap for actions that write to many headers.
        The elements of stacks, which may move, have flags of their own.
        """
        self.mark(w, written_headers(self.program, body))

    def mark(self, w: Writer, names: list[str]) -> None:
        """The same for headers by name."""
        bits = 0
        for name in names:
            if self.touched_bit(name) is None:
                w.line(f"{self.layout.place[name]}.used = true;")
            bits |= self.touched_bit(name) or 0
        if bits:
            w.line(f"touched_ |= {bits:#x};")

    def touched_bit(self, header: str) -> int | None:
        """The bit of ``touched_`` that stands for a header, if it has one."""
        h = self.program.headers[header]
        if h.metadata or h.stack is not None:
            return None
        if header not in self.bits and len(self.bits) < TOUCHED_BITS:
            self.bits[header] = 1 << len(self.bits)
        return self.bits.get(header)

    # --- statements ---

    def emit_body(self, w: Writer, body: list[ir.Stmt]) -> None:
        """Statements in order."""
        for stmt in body:
            w.source(stmt.source)
            self.values.source = stmt.source
            self.emit(w, stmt)

    def emit(self, w: Writer, stmt: ir.Stmt) -> None:
        """One statement."""
        v = self.values
        match stmt:
            case ir.Assign(place, value):
                bits, _ = v.width(place)
                self.store(w, place, v.assigned(value, bits))
            case ir.RegisterRead(place, register, index):
                self.store_from(
                    w,
                    place,
                    f"{self.member('register', register)}.get({v.index(index)})",
                    self.program.registers[register].bits,
                )
            case ir.RegisterWrite(register, index, value):
                bits = self.program.registers[register].bits
                code = self.stored(v.assigned(value, bits), bits)
                w.line(f"{self.member('register', register)}.set({v.index(index)}, {code});")
            case ir.Count(counter, index):
                w.line(f"{self.member('counter', counter)}.count({v.index(index)}, frame_bytes_);")
            case ir.HashInto(place, base, calculation, size):
                base_code, size_code = v.assigned(base, 64), v.assigned(size, 64)
                hashed = f"{self.member('calculation', calculation)}()"
                code = f"{base_code} + {hashed} % at_least_one({size_code})"
                self.store_from(w, place, f"({code})", 64)
            case ir.RandomInto(place, low, high):
                code = f"random_.between({v.assigned(low, 64)}, {v.assigned(high, 64)})"
                self.store_from(w, place, code, 64)
            case ir.AssignHeader(to, source_header):
                w.line(f"assign_header({v.header(to)}, {v.header(source_header)});")
            case ir.AssignStack(to, source_stack):
                self.assign_stack(w, to, source_stack)
            case ir.SetValid(header):
                self.set_validity(w, "set_valid", header)
            case ir.SetInvalid(header):
                self.set_validity(w, "set_invalid", header)
            case ir.PushFront(stack, count):
                at = self.layout.place[stack]
                w.line(f"push_front({at}, {at}_next, {count});")
            case ir.PopFront(stack, count):
                at = self.layout.place[stack]
                w.line(f"pop_front({at}, {at}_next, {count});")
            case ir.MarkToDrop():
                w.line("mark_to_drop();")
            case ir.Truncate(length):
                w.line(f"truncate_ = smaller(truncate_, {v.assigned(length, 32)});")
            case ir.Exit():
                w.line("exit_ = true;")
                w.line("return;")
            case ir.Check(kind, condition):
                where = stmt.source.where or self.program.name
                with w.block(f"if (!{v.boolean(condition)})"):
                    w.line(f"log_line({quoted(f'{where}: {kind} failed; the packet is dropped')});")
                    w.line("failed_ = exit_ = true;")
                    w.line("return;")
            case ir.Log(text, values):
                args = "".join(f", to_text({v.text(value)})" for value in values)
                w.line(f"log_message({quoted(text)}{args});")
            case ir.If(condition, then, otherwise):
                with w.block(f"if ({v.boolean(condition)})"):
                    self.emit_body(w, then)
                if otherwise:
                    with w.block("else"):
                        self.emit_body(w, otherwise)
            case ir.Loop():
                self.loops.emit(w, stmt)
            case ir.Label(index):
                self.passed.add(index)
                w.line(f"at_{index}:;")
            case ir.Jump(target):
                self.jump(w, target)
            case ir.JumpIfZero(condition, target):
                with w.block(f"if (!{v.boolean(condition)})"):
                    self.jump(w, target)
            case _:
                raise TypeError(f"no C++ for {type(stmt).__name__}")

    def jump(self, w: Writer, target: int) -> None:
        """A jump of an action whose jumps have no structure.

        A jump back is a loop. An endless loop drops the packet: it must not stop the switch, and in
        C++ it would be undefined.
        """
        if target in self.passed:
            where = self.values.source.where or self.program.name
            what = f"{where}: a loop of more than {MAX_JUMPS} rounds; the packet is dropped"
            with w.block(f"if (++jumps > {MAX_JUMPS})"):
                w.line(f"log_line({quoted(what)});")
                w.line("failed_ = exit_ = true;")
                w.line("return;")
        w.line(f"goto at_{target};")

    def set_validity(self, w: Writer, function: str, header: ir.Expr) -> None:
        """``setValid()`` or ``setInvalid()``. An index beyond a stack changes nothing."""
        call = f"{function}({self.values.header(header)}, {self.header_bytes(header)}, length_);"
        if isinstance(header, ir.StackElement):
            size = self.program.stacks[header.stack].size
            call = f"if ({self.values.index(header.index)} < {size}) {call}"
        w.line(call)

    def store(self, w: Writer, place: ir.Place, code: str) -> None:
        """Assigns a value that has the place's width already."""
        bits, _ = self.values.width(place)
        w.line(f"{self.target(place)} = {self.stored(code, bits)};")

    def target(self, place: ir.Place) -> str:
        """The C++ lvalue of a place that is assigned."""
        if isinstance(place, ir.MemberOf):
            access = self.layout.stack_type(place.header.stack).access[place.field]
            return f"touched({self.values.header(place.header)}).{access}"
        return self.values.rvalue(place)

    @staticmethod
    def stored(code: str, bits: int) -> str:
        """``code``, computed in the type for ``bits`` bits, as the type that stores them."""
        return code if bits > 16 else f"static_cast<{storage(bits)}>({code})"

    def store_from(self, w: Writer, place: ir.Place, code: str, have: int) -> None:
        """Assigns an unsigned value of ``have`` bits, cut to the place's width."""
        bits, _ = self.values.width(place)
        if bits > 64 or have > 64:
            words, have_words = (bits + 63) // 64, (have + 63) // 64
            if have <= 64:
                code = f"Wide<{words}>::from_u64({code})"
            elif bits <= 64:
                code = f"{code}.w[0]"
            elif words != have_words:
                code = f"{code}.zext<{words}>()"
        if have > bits:
            code = f"{code}.low({bits})" if bits > 64 else f"({code} & {(1 << bits) - 1:#x})"
        if bits <= 64 and not (have == bits and bits in (8, 16, 32, 64)):
            code = f"static_cast<{storage(bits)}>({code})"
        w.line(f"{self.target(place)} = {code};")

    def assign_stack(self, w: Writer, to: str, source: str) -> None:
        """Copies a stack, element by element."""
        a, b = self.layout.place[to], self.layout.place[source]
        for index in range(self.program.stacks[to].size):
            w.line(f"assign_header({a}[{index}], {b}[{index}]);")
        w.line(f"{a}_next = {b}_next;")

    def header_bytes(self, header: ir.Expr) -> int:
        """The length of a header in a packet."""
        if isinstance(header, ir.HeaderRef):
            return self.program.headers[header.name].type.bits // 8
        assert isinstance(header, ir.StackElement | ir.StackLast)
        return self.program.stacks[header.stack].type.bits // 8
