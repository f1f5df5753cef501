"""Parser, tables, pipelines, and the program as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from .exprs import Expr, FieldRef, HeaderRef
from .headers import NOWHERE, Field, Header, Source, Stack
from .stmts import Stmt


@dataclass
class Extract:
    """Extracts a header; into the next free element of ``stack`` if that is set."""

    header: str | None
    stack: str | None
    source: Source = NOWHERE


@dataclass
class Verify:
    """Ends parsing with ``error`` unless ``condition`` holds."""

    condition: Expr
    error: Expr
    source: Source = NOWHERE


@dataclass
class Advance:
    """Skips ``bits`` bits."""

    bits: Expr
    source: Source = NOWHERE


ParserOp = Extract | Verify | Advance | Stmt


@dataclass
class Transition:
    """``value`` None is the default. ``value`` and ``mask`` hold one number per key element."""

    value: tuple[int, ...] | None
    mask: tuple[int, ...] | None
    next_state: str | None


@dataclass
class ParserState:
    """One state: its operations, then the select."""

    name: str
    ops: list[ParserOp]
    key: list[tuple[Expr, int]]  # (expression, bits)
    transitions: list[Transition]
    source: Source = NOWHERE


@dataclass
class Action:
    """An action; ``params`` are (name, bits)."""

    name: str
    id: int
    params: list[tuple[str, int]]
    body: list[Stmt]
    source: Source = NOWHERE


@dataclass
class KeyField:
    """One field of a table's key. ``mask`` is the static mask of p4c's slices."""

    name: str
    match: str
    expr: Expr
    bits: int
    mask: int | None
    guard: str | None  # the header that must be valid, else the field counts as 0


@dataclass
class ConstEntry:
    """An entry that the program declares."""

    key: list[dict[str, int]]
    priority: int
    action: int
    data: list[int]


@dataclass
class Table:
    """A match-action table and where control goes after it."""

    name: str
    id: int
    key: list[KeyField]
    max_size: int
    actions: list[int]
    direct_counter: str | None
    default_action: int
    default_data: list[int]
    const_default: bool
    entries: list[ConstEntry]
    const_entries: bool
    next_by_action: dict[int, str | None]  # by action id
    next_hit: str | None
    next_miss: str | None
    by_hit: bool
    source: Source = NOWHERE

    @property
    def synthesized(self) -> bool:
        """Made by p4c for an action call in a control: unknown to the control plane."""
        return not self.key and self.const_default and self.name.startswith("tbl_")


@dataclass
class Conditional:
    """An ``if`` of a control."""

    name: str
    condition: Expr
    true_next: str | None
    false_next: str | None
    source: Source = NOWHERE


@dataclass
class Pipeline:
    """Ingress or egress: a graph of tables and conditionals."""

    name: str
    first: str | None
    tables: dict[str, Table]
    conditionals: dict[str, Conditional]

    def successors(self, name: str) -> list[str | None]:
        """Where control may go from a table or condition."""
        if name in self.tables:
            t = self.tables[name]
            return [t.next_hit, t.next_miss] if t.by_hit else list(t.next_by_action.values())
        c = self.conditionals[name]
        return [c.true_next, c.false_next]


@dataclass
class Calculation:
    """The input of a hash or checksum: expressions with their bits, headers, the payload."""

    name: str
    algorithm: str
    inputs: list[tuple[Expr, int] | HeaderRef]
    payload: bool


@dataclass
class Checksum:
    """A checksum that is verified after parsing or updated before deparsing."""

    name: str
    target: FieldRef
    calculation: str
    condition: Expr | None
    verify: bool
    update: bool
    source: Source = NOWHERE


@dataclass
class Array:
    """A register array or an indirect counter."""

    name: str
    id: int
    size: int
    bits: int = 0


@dataclass
class Program:
    """Everything."""

    name: str
    compiler: str
    headers: dict[str, Header]
    stacks: dict[str, Stack]
    errors: dict[str, int]
    parser_states: dict[str, ParserState]
    parser_start: str | None
    deparser: list[str]
    actions: dict[int, Action]
    ingress: Pipeline
    egress: Pipeline
    registers: dict[str, Array]
    counters: dict[str, Array]
    calculations: dict[str, Calculation]
    checksums: list[Checksum]
    aliases: dict[str, FieldRef]

    def field_of(self, ref: FieldRef) -> Field:
        """The field that ``ref`` names (KeyError)."""
        return self.headers[ref.header].type.field(ref.field)
