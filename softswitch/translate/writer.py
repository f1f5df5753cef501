"""Writing indented C++. The names in a program reach C++ through this module alone.

Names are for people: they stand in comments (:func:`comment`) and in string literals
(:func:`quoted`). No identifier is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from . import ir

MAX_COMMENT = 240


def printable(text: str) -> str:
    """``text`` in one line of printable characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def comment(text: str) -> str:
    """A C++ comment to the end of its line, for any ``text``.

    ASCII only, so that nothing looks different from what it is. A backslash at the end would carry
    the comment on into the next line, also as ``??/``: neither of the two is left.
    """
    line = "".join(c if " " <= c <= "~" else " " if c.isspace() else "_" for c in text)
    safe = re.sub(r"\?(?=\?)", "? ", line.replace("\\", "/"))
    return f"// {safe[:MAX_COMMENT]}".rstrip()


class Writer:
    """Collects lines at the current indentation."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth
        self.last_source = ir.NOWHERE

    def line(self, text: str = "", note: str = "") -> None:
        """One line, with a note behind it."""
        if note:
            text = f"{text}  {comment(note)}"
        self.lines.append("  " * self.depth + text if text else "")

    def comment(self, text: str) -> None:
        """A line that is a comment."""
        self.line(comment(text))

    def source(self, source: ir.Source) -> None:
        """A comment that leads back to the P4 source, once per place."""
        if not source.where or source == self.last_source:
            return
        self.last_source = source
        self.comment(f"{source.where}  {' '.join(source.fragment.split())}")

    @contextmanager
    def block(self, head: str, tail: str = "}") -> Iterator[None]:
        """``head {`` … ``tail``, indented."""
        self.line(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self.line(tail)

    def append(self, section: Writer) -> None:
        """All lines of a section that was written on its own."""
        self.lines += section.lines

    def text(self) -> str:
        """Everything so far."""
        return "\n".join(self.lines) + "\n"


def quoted(text: str) -> str:
    """A C++ string literal; a string_view for text with NULs, which keeps what is behind them."""
    data = text.encode("utf-8", "replace")
    out = []
    for byte in data:
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127 and char != "?":
            out.append(char)
        else:
            out.append(f"\\{byte:03o}")
    literal = '"' + "".join(out) + '"'
    return f"std::string_view({literal}, {len(data)})" if 0 in data else literal


def bytes_literal(value: int, bits: int) -> str:
    """A constant std::string_view: ``value`` as big-endian bytes."""
    size = (bits + 7) // 8
    data = value.to_bytes(max(size, (value.bit_length() + 7) // 8), "big")
    body = "".join(f"\\{b:03o}" for b in data)
    return f'{{"{body}", {len(data)}}}'
