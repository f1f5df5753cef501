"""A P4 JSON as the readers see it: each value is checked when it is read.

A program's author chooses every byte of the JSON. What leaves this module as a name is
printable, what leaves it as a number is an ``int`` within the bounds that the reader gave; anything
else is refused with its place in the JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import lines
from .errors import ProgramInvalid

MAX_NAME = 1024
"""Characters of a name, at most."""

MAX_NUMBER_BITS = 8192
"""Bits of a number that a program writes, and of an intermediate result, at most."""

U16, U31, U32 = (1 << 16) - 1, (1 << 31) - 1, (1 << 32) - 1

_HEX = re.compile(r"([+-]?)(?:0[xX])?([0-9a-fA-F]+)", re.ASCII)
_KINDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number with a fraction",
    int: "a number",
    list: "a list",
    str: "a string",
    type(None): "null",
}


def parse(text: bytes) -> Any:
    """Reads a P4 JSON. Raises :class:`ProgramInvalid`.

    Until 2026 p4c wrote line ends into strings unescaped: they are accepted, too.
    """
    try:
        return json.loads(text, strict=False)
    except UnicodeDecodeError as e:
        raise ProgramInvalid(lines.NOT_TEXT.of(offset=e.start, encoding=e.encoding)) from e
    except ValueError as e:
        raise ProgramInvalid(lines.NOT_JSON.of(why=e)) from e
    except RecursionError as e:
        raise ProgramInvalid(lines.TOO_DEEP.of()) from e


def shown(text: str, limit: int = 80) -> str:
    """A string of the program for a message: one line, printable, not long."""
    return ascii(text[:limit]) + ("…" if len(text) > limit else "")


class Node:
    """A value of the JSON and its place in it."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self.path = path

    # --- parts ---

    def __getitem__(self, key: str | int) -> Node:
        """A member of an object, or an element of a list; it must be there."""
        if isinstance(key, int):
            elements = self._must(list)
            if not 0 <= key < len(elements):
                raise self.fault(f"{len(elements)} elements, {key + 1} are needed")
            return Node(elements[key], f"{self.path}[{key}]")
        members = self._must(dict)
        if key not in members:
            raise self.fault(f"{key!r} is missing")
        return Node(members[key], f"{self.path}.{key}" if self.path else key)

    def get(self, key: str) -> Node | None:
        """A member of an object; None where it is absent or null."""
        return None if self._must(dict).get(key) is None else self[key]

    def member(self, name: str) -> Node | None:
        """The same for a key that the program chose: the place does not repeat it."""
        value = self._must(dict).get(name)
        return None if value is None else Node(value, f"{self.path}[…]")

    def each(self, key: str) -> list[Node]:
        """The elements of a list that is a member; none where it is absent or null."""
        found = self.get(key)
        return [] if found is None else found.items()

    def items(self) -> list[Node]:
        """The elements of a list."""
        return [Node(v, f"{self.path}[{n}]") for n, v in enumerate(self._must(list))]

    def pair(self) -> tuple[Node, Node]:
        """The elements of a list of two."""
        if len(self._must(list)) != 2:
            raise self.fault(f"{len(self.value)} elements instead of 2")
        return self[0], self[1]

    def is_object(self) -> bool:
        """Whether it is an object."""
        return isinstance(self.value, dict)

    # --- values ---

    def name(self, limit: int = MAX_NAME) -> str:
        """A name: a string that is not empty, not long, and can be printed in one line."""
        text: str = self._must(str)
        if not text:
            raise self.fault("an empty name")
        if len(text) > limit:
            raise self.fault(f"a name of {len(text)} characters, at most {limit} are possible")
        if not text.isprintable():
            raise self.fault(f"a name with characters that cannot be printed: {shown(text)}")
        return text

    def text(self) -> str:
        """Any text, for people; half characters are replaced."""
        text: str = self._must(str)
        return text.encode("utf-8", "replace").decode()

    def whole(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``; neither true nor 1.0 is one."""
        value: int = self._must(int)
        if not low <= value <= high:
            raise self.fault(f"{_digits(value)} is not from {low} to {high}")
        return value

    def flag(self) -> bool:
        """``true`` or ``false``."""
        value: bool = self._must(bool)
        return value

    def hexstr(self) -> int:
        """A number as p4c writes it in a string: hexadecimal digits, perhaps with a sign."""
        text: str = self._must(str)
        found = _HEX.fullmatch(text)
        if found is None:
            raise self.fault(f"{shown(text)} is not a hexadecimal number")
        if 4 * len(found[2].lstrip("0")) > MAX_NUMBER_BITS:
            raise self.fault(f"a number of more than {MAX_NUMBER_BITS} bits")
        value = int(found[2], 16)
        return -value if found[1] == "-" else value

    def bits(self, width: int) -> int:
        """The same for a value of ``width`` bits, modulo 2^width."""
        value = self.hexstr()
        if not -(1 << width >> 1) <= value < 1 << width:
            raise self.fault(f"{_digits(value)} does not fit in {width} bits")
        return value & ((1 << width) - 1)

    # --- faults ---

    def _must(self, kind: type) -> Any:
        # bool is an int in Python, and in no JSON.
        if type(self.value) is not kind:
            found = _KINDS.get(type(self.value), "something else")
            raise self.fault(f"{found} instead of {_KINDS[kind]}")
        return self.value

    def fault(self, what: str) -> ProgramInvalid:
        """The error that says what is wrong at this place."""
        return ProgramInvalid(lines.INVALID_AT.of(place=self.path or "the whole", fault=what))


def _digits(value: int) -> str:
    return str(value) if value.bit_length() <= 64 else f"a number of {value.bit_length()} bits"


def unique(nodes: list[Node], key: str, what: str) -> dict[str, Node]:
    """Objects by the name that they have in ``key``. No name may be there twice."""
    found: dict[str, Node] = {}
    for node in nodes:
        name = node[key].name()
        if name in found:
            raise node.fault(f"there are two {what}s called {shown(name)}")
        found[name] = node
    return found
