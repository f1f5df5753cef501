"""Tables and control flow → C++."""

from __future__ import annotations

from collections.abc import Callable

from . import ir
from .emit_actions import StatementEmitter
from .walk import statements
from .writer import Writer, bytes_literal, quoted

KINDS = {
    "exact": "kExact",
    "lpm": "kLpm",
    "ternary": "kTernary",
    "range": "kRange",
    "optional": "kOptional",
}


def engine_of(table: ir.Table) -> str:
    """Which lookup a table needs."""
    if not table.key:
        return "kKeyless"
    kinds = {k.match for k in table.key}
    if kinds <= {"exact"}:
        return "kExact"
    if kinds <= {"exact", "lpm"} and sum(k.match == "lpm" for k in table.key) == 1:
        return "kLpm"
    return "kTernary"


def needs_priority(table: ir.Table) -> bool:
    """Whether entries carry a priority (P4Runtime's rule: ternary, range or optional fields)."""
    return any(k.match in ("ternary", "range", "optional") for k in table.key)


def key_slots(table: ir.Table) -> tuple[list[tuple[int, int]], int]:
    """(word, shift) of each key field, and the number of words."""
    slots: list[tuple[int, int]] = []
    word, used = 0, 0
    for k in table.key:
        if k.bits > 64:
            if used:
                word, used = word + 1, 0
            slots.append((word, 0))
            word += (k.bits + 63) // 64
            continue
        if used + k.bits > 64:
            word, used = word + 1, 0
        slots.append((word, used))
        used += k.bits
    return slots, word + (1 if used else 0)


def emit_table_state(w: Writer, owner: StatementEmitter, table: ir.Table) -> None:
    """The table's member, with everything that the control plane wants to know.

    All of it is constant data: the runtime's compiled part makes the strings and lists of it.
    """
    program = owner.program
    slots, words = key_slots(table)
    member = owner.member("table", table.name)
    w.source(table.source)
    arrays: dict[str, str] = {}

    def array(field: str, kind: str, items: list[str]) -> None:
        if items:
            name = f"{member}{field}"
            with w.block(f"static constexpr {kind} {name}[] =", "};"):
                for item in items:
                    w.line(f"{item},")
            arrays[field] = name

    actions = [program.actions[i] for i in table.actions]
    default = program.actions[table.default_action]
    array(
        "key",
        "KeySpec",
        [
            f"{{{quoted(k.name)}, MatchKind::{KINDS[k.match]}, {k.bits}, {{{word}, {shift}}}}}"
            for k, (word, shift) in zip(table.key, slots, strict=True)
        ],
    )
    array(
        "actions",
        "ActionSpec",
        [f"{{{quoted(a.name)}, {a.id}, {len(a.params)}}}" for a in actions],
    )
    array(
        "params",
        "ParamSpec",
        [f"{{{quoted(name)}, {bits}}}" for a in actions for name, bits in a.params],
    )
    array("default_data", "std::string_view", _data(default, table.default_data))
    _const_entries(owner, table, array)
    with w.block(f"static constexpr TableSpec {member}spec =", "};"):
        w.line(f".name = {quoted(table.name)},")
        w.line(f".id = {table.id},")
        w.line(f".max_size = {table.max_size},")
        w.line(f".engine = Engine::{engine_of(table)},")
        w.line(f".key_words = {words},")
        for field in ("key", "actions", "params"):
            if field in arrays:
                w.line(f".{field} = {arrays[field]},")
        w.line(f".needs_priority = {_bool(needs_priority(table))},")
        w.line(f".direct_counter = {_bool(table.direct_counter is not None)},")
        w.line(f".direct_counter_name = {quoted(table.direct_counter or '')},")
        w.line(f".const_entries = {_bool(table.const_entries)},")
        w.line(f".const_default = {_bool(table.const_default)},")
        w.line(f".default_action = {quoted(default.name)},")
        for field in ("default_data", "entries", "fields", "data"):
            if field in arrays:
                w.line(f".{field} = {arrays[field]},")
    w.line(f"MatchTable {member}{{{member}spec}};")


def _const_entries(
    owner: StatementEmitter, table: ir.Table, array: Callable[[str, str, list[str]], None]
) -> None:
    """The entries that the program declares."""
    entries, fields, data = [], [], []
    top = max((e.priority for e in table.entries), default=0)
    for e in table.entries:
        for k, given in zip(table.key, e.key, strict=True):
            value = bytes_literal(given["value"], k.bits)
            if k.match == "lpm":
                fields.append(f"{{{value}, {{}}, {given['prefix']}}}")
            elif k.match in ("ternary", "range"):
                fields.append(f"{{{value}, {bytes_literal(given['mask'], k.bits)}}}")
            elif k.match == "optional":
                fields.append(f"{{{value}, {{}}, 0, {_bool(given.get('mask', 1) == 0)}}}")
            else:
                fields.append(f"{{{value}}}")
        # BMv2's small number wins; here, as in P4Runtime, the large one.
        priority = top + 1 - e.priority if needs_priority(table) else 0
        action = owner.program.actions[e.action]
        entries.append(f"{{{priority}, {quoted(action.name)}, {len(e.data)}}}")
        data += _data(action, e.data)
    array("entries", "EntrySpec", entries)
    array("fields", "FieldSpec", fields)
    array("data", "std::string_view", data)


def _data(action: ir.Action, data: list[int]) -> list[str]:
    return [bytes_literal(v, bits) for v, (_, bits) in zip(data, action.params, strict=True)]


def _bool(value: bool) -> str:
    return "true" if value else "false"


def may_exit(action: ir.Action) -> bool:
    """Whether an action can end the pipeline."""
    return any(isinstance(s, ir.Exit | ir.Check) for s in statements(action.body))


def emit_pipeline(w: Writer, owner: StatementEmitter, pipeline: ir.Pipeline) -> None:
    """A pipeline as one function: a label per table and condition."""
    order = _order(pipeline)
    labels = {name: f"node_{n}" for n, name in enumerate(order)}
    body = Writer(w.depth + 1)
    owner.values.temps, owner.values.param_words = {}, []
    for position, name in enumerate(order):
        following = order[position + 1] if position + 1 < len(order) else None
        body.depth -= 1
        body.line(f"{labels[name]}:")
        body.depth += 1
        if name in pipeline.tables:
            _emit_apply(body, owner, pipeline.tables[name], labels, following)
        else:
            _emit_conditional(body, owner, pipeline.conditionals[name], labels, following)
    with w.block(f"void {pipeline.name}()"):
        text = "\n".join(body.lines)
        for line in body.lines:
            stripped = line.strip()
            if stripped.endswith(":") and stripped[:-1] in labels.values():
                if f"goto {stripped[:-1]};" in text:
                    w.lines.append(line)
            else:
                w.lines.append(line)
    w.line()


def _order(pipeline: ir.Pipeline) -> list[str]:
    """The reachable nodes, each before what comes after it."""
    done: set[str] = set()
    out: list[str] = []
    stack: list[tuple[str, bool]] = [(pipeline.first, False)] if pipeline.first else []
    while stack:
        name, finished = stack.pop()
        if finished:
            out.append(name)
            continue
        if name in done:
            continue
        done.add(name)
        stack.append((name, True))
        for successor in pipeline.successors(name):
            if successor is not None and successor not in done:
                stack.append((successor, False))
    return list(reversed(out))


def _go(target: str | None, labels: dict[str, str], following: str | None) -> str:
    if target is None:
        return "return;"
    return "" if target == following else f"goto {labels[target]};"


def _emit_conditional(
    w: Writer,
    owner: StatementEmitter,
    c: ir.Conditional,
    labels: dict[str, str],
    following: str | None,
) -> None:
    w.source(c.source)
    owner.values.source = c.source
    test = owner.values.boolean(c.condition)
    yes, no = _go(c.true_next, labels, following), _go(c.false_next, labels, following)
    if yes:
        w.line(f"if ({test}) {yes}")
        if no:
            w.line(no)
    elif no:
        w.line(f"if (!({test})) {no}")


def _emit_apply(
    w: Writer,
    owner: StatementEmitter,
    t: ir.Table,
    labels: dict[str, str],
    following: str | None,
) -> None:
    program = owner.program
    exits = any(may_exit(program.actions[i]) for i in t.actions)
    if t.synthesized and not t.default_data:
        action = program.actions[t.default_action]
        w.line(f"{owner.action_name(action)}(kNoData);")
        if exits:
            w.line("if (exit_) return;")
        target = t.next_miss if t.by_hit else t.next_by_action.get(t.default_action)
        if go := _go(target, labels, following):
            w.line(go)
        return
    w.source(t.source)
    w.comment(f"table {t.name}")
    member = owner.member("table", t.name)
    with w.block(""):
        engine = engine_of(t)
        if engine == "kKeyless":
            w.line(f"Row& row = {member}.default_row();")
        else:
            _emit_key(w, owner, t)
            lookup = engine[1:].lower()
            w.line(f"Row* const found = {member}.lookup_{lookup}(key);")
            w.line(f"Row& row = found != nullptr ? *found : {member}.default_row();")
        if t.direct_counter is not None:
            w.line("++row.counter.packets;")
            w.line("row.counter.bytes += frame_bytes_;")
        nexts = {} if t.by_hit else {i: t.next_by_action.get(i) for i in t.actions}
        same = len(set(nexts.values())) <= 1
        with w.block("switch (row.action)"):
            for n, i in enumerate(t.actions):
                action = program.actions[i]
                call = f"{owner.action_name(action)}(row.data.data());" if action.body else ""
                if t.by_hit or same:
                    if call:
                        w.line(f"case {n}: {call} break;", action.name)
                    continue
                go = _go(nexts[i], labels, following) or "break;"
                check = "if (exit_) return; " if may_exit(action) else ""
                w.line(f"case {n}: {' '.join(x for x in (call, check + go) if x)}", action.name)
            w.line("default: break;")
        if exits and (t.by_hit or same):
            w.line("if (exit_) return;")
        if t.by_hit:
            miss = _go(t.next_miss, labels, following)
            if engine == "kKeyless":
                if miss:
                    w.line(miss)
                return
            hit = _go(t.next_hit, labels, following)
            if hit:
                w.line(f"if (found != nullptr) {hit}")
            if miss:
                w.line(miss if hit else f"if (found == nullptr) {miss}")
        elif same:
            target = next(iter(nexts.values()), None)
            if go := _go(target, labels, following):
                w.line(go)


def _emit_key(w: Writer, owner: StatementEmitter, t: ir.Table) -> None:
    values = owner.values
    values.source = t.source
    slots, words = key_slots(t)
    w.line(f"std::uint64_t key[{words}] = {{}};")
    for k, (word, shift) in zip(t.key, slots, strict=True):
        expr = k.expr if k.mask is None else ir.Binary("&", k.expr, ir.Const(k.mask))
        guard = f"if ({owner.layout.place[k.guard]}.valid) " if k.guard is not None else ""
        if k.bits > 64:
            count = (k.bits + 63) // 64
            with w.block(guard.rstrip()):
                w.line(f"const Wide<{count}> v = {values.assigned(expr, k.bits)};")
                w.line(f"std::memcpy(key + {word}, v.w, sizeof v.w);")
            continue
        code = f"static_cast<std::uint64_t>({values.assigned(expr, k.bits)})"
        w.line(f"{guard}key[{word}] |= {code}{f' << {shift}' if shift else ''};", k.name)
