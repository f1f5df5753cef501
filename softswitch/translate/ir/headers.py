"""Places in the source; header types, instances and stacks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A place in the P4 source, from the JSON's ``source_info``."""

    filename: str = ""
    line: int = 0
    fragment: str = ""

    @property
    def where(self) -> str:
        """``file:line``, or an empty string where the JSON does not say."""
        return f"{self.filename}:{self.line}" if self.filename else ""

    def __bool__(self) -> bool:
        return bool(self.filename)


NOWHERE = Source()


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
