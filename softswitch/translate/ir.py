"""A program as the translator sees it: typed, with names resolved.

Expressions are immutable and comparable, so that repeated code can be recognised by comparing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """A place in the P4 source, from the JSON's ``source_info``."""

    filename: str = ""
    line: int = 0
    fragment: str = ""

    @property
    def where(self) -> str:
        """``file:line``, or an empty string where the JSON does not tell."""
        return f"{self.filename}:{self.line}" if self.filename else ""

    def __bool__(self) -> bool:
        return bool(self.filename)


NOWHERE = Source()


# --- headers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """One field of a header type; ``offset`` is in bits from the start of the header."""

    name: str
    bits: int
    signed: bool
    offset: int


@dataclass(frozen=True)
class HeaderType:
    """A header (or metadata) type."""

    name: str
    fields: tuple[Field, ...]

    @property
    def bits(self) -> int:
        """The length of the whole header."""
        return sum(f.bits for f in self.fields)

    def field(self, name: str) -> Field:
        """The field called ``name`` (KeyError)."""
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(name)


@dataclass(frozen=True)
class Header:
    """A header instance. ``stack`` and ``index`` are set for an element of a stack."""

    name: str
    type: HeaderType
    metadata: bool
    stack: str | None = None
    index: int = 0


@dataclass(frozen=True)
class Stack:
    """A header stack."""

    name: str
    type: HeaderType
    size: int
    elements: tuple[str, ...]


# --- expressions -------------------------------------------------------------------------------


class Expr:
    """Any expression. Arithmetic has no width: only assignment cuts a value to a field's bits."""

    __slots__ = ()


@dataclass(frozen=True)
class Const(Expr):
    """A number, possibly negative."""

    value: int


@dataclass(frozen=True)
class BoolConst(Expr):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True)
class FieldRef(Expr):
    """A field of a named header instance."""

    header: str
    field: str


@dataclass(frozen=True)
class Temp(Expr):
    """A temporary that one action alone uses: a local variable in C++."""

    name: str
    bits: int
    signed: bool


@dataclass(frozen=True)
class Param(Expr):
    """The action's parameter number ``index``."""

    index: int
    bits: int


@dataclass(frozen=True)
class HeaderRef(Expr):
    """A named header instance."""

    name: str


@dataclass(frozen=True)
class StackElement(Expr):
    """A header stack's element, picked at run time."""

    stack: str
    index: Expr


@dataclass(frozen=True)
class StackLast(Expr):
    """The header that was last extracted into a stack (``stack.last``)."""

    stack: str


@dataclass(frozen=True)
class MemberOf(Expr):
    """A field of a header that is only known at run time."""

    header: StackElement | StackLast
    field: str


@dataclass(frozen=True)
class Valid(Expr):
    """Whether a header is valid (boolean)."""

    header: HeaderRef | StackElement | StackLast


@dataclass(frozen=True)
class HeadersEqual(Expr):
    """Whether two headers are both valid and equal in every field (boolean)."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class StackSize(Expr):
    """How many elements of a stack are in use, minus ``minus``."""

    stack: str
    minus: int


@dataclass(frozen=True)
class Lookahead(Expr):
    """Bits of the packet ahead of the parser's cursor."""

    offset: int
    bits: int


@dataclass(frozen=True)
class Unary(Expr):
    """``~``, ``not``, ``b2d``, ``d2b``."""

    op: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Expr):
    """Arithmetic, bitwise, comparison, ``and``/``or``; ``bool==``/``bool!=`` compare booleans."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Cast(Expr):
    """``two_comp_mod``, ``sat_cast`` or ``usat_cast`` to ``bits`` bits."""

    op: str
    operand: Expr
    bits: int


@dataclass(frozen=True)
class Select(Expr):
    """``condition ? yes : no``."""

    condition: Expr
    yes: Expr
    no: Expr


@dataclass(frozen=True)
class RunRef(Expr):
    """In a rolled loop: field number ``start + step * round`` of a run of equal fields."""

    header: str
    field: str  # the field of round 0
    step: int


Place = FieldRef | Temp | MemberOf | RunRef
"""What can be assigned to."""


# --- statements --------------------------------------------------------------------------------


@dataclass
class Stmt:
    """A statement of an action; ``source`` leads back to the P4 line."""

    source: Source = field(default=NOWHERE, kw_only=True, compare=False)


@dataclass
class Assign(Stmt):
    """``place = value``, cut to the place's width."""

    place: Place
    value: Expr


@dataclass
class RegisterRead(Stmt):
    """``place = register[index]``; 0 beyond the array."""

    place: Place
    register: str
    index: Expr


@dataclass
class RegisterWrite(Stmt):
    """``register[index] = value``; nothing beyond the array."""

    register: str
    index: Expr
    value: Expr


@dataclass
class Count(Stmt):
    """Counts this packet in an indirect counter."""

    counter: str
    index: Expr


@dataclass
class HashInto(Stmt):
    """``place = base + calculation() mod size``."""

    place: Place
    base: Expr
    calculation: str
    size: Expr


@dataclass
class RandomInto(Stmt):
    """``place`` = a uniform random number from ``low`` to ``high``."""

    place: Place
    low: Expr
    high: Expr


@dataclass
class AssignHeader(Stmt):
    """Copies a header with its validity."""

    to: Expr
    source_header: Expr


@dataclass
class AssignStack(Stmt):
    """Copies a whole header stack."""

    to: str
    source_stack: str


@dataclass
class SetValid(Stmt):
    """``setValid()``: a header that was not valid becomes all zero."""

    header: Expr


@dataclass
class SetInvalid(Stmt):
    """``setInvalid()``."""

    header: Expr


@dataclass
class PushFront(Stmt):
    """``stack.push_front(count)``."""

    stack: str
    count: int


@dataclass
class PopFront(Stmt):
    """``stack.pop_front(count)``."""

    stack: str
    count: int


@dataclass
class MarkToDrop(Stmt):
    """``mark_to_drop()``: egress_spec = 511, no multicast."""


@dataclass
class Truncate(Stmt):
    """The frame leaves with at most ``length`` bytes."""

    length: Expr


@dataclass
class Exit(Stmt):
    """``exit``."""


@dataclass
class Check(Stmt):
    """``assert`` or ``assume``: a packet for which it is false is dropped and logged."""

    kind: str
    condition: Expr


@dataclass
class Log(Stmt):
    """``log_msg``."""

    format: str
    values: tuple[Expr, ...]


@dataclass
class If(Stmt):
    """A structured conditional, made from jumps."""

    condition: Expr
    then: list[Stmt]
    otherwise: list[Stmt]


@dataclass
class JumpIfZero(Stmt):
    """Goes on at primitive ``target`` if the condition is 0."""

    condition: Expr
    target: int


@dataclass
class Jump(Stmt):
    """Goes on at primitive ``target``."""

    target: int


@dataclass
class Label(Stmt):
    """The place of primitive ``index`` in an action whose jumps have no structure (loops)."""

    index: int


@dataclass(frozen=True)
class Step(Expr):
    """In a rolled loop: a number that grows by ``step`` with each round, from ``start``."""

    start: int
    step: int
    last: int


@dataclass
class Loop(Stmt):
    """``count`` rounds of ``body``, in which Step and RunRef depend on the round.

    ``live_after``: the temporaries that the action reads outside of this loop.
    """

    count: int
    body: list[Stmt]
    live_after: set[Expr] = field(default_factory=set, compare=False)


# --- parser, tables, program -------------------------------------------------------------------


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
    match_type: str
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


@dataclass
class Calculation:
    """What a hash or checksum covers: expressions with their bits, headers, the payload."""

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
