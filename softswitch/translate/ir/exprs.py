"""Expressions: immutable and comparable, so that repeated code is recognised by comparing it."""

from __future__ import annotations

from dataclasses import dataclass


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
