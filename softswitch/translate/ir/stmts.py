"""The statements of actions."""

from __future__ import annotations

from dataclasses import dataclass, field

from .exprs import Expr, Place
from .headers import NOWHERE, Source


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
