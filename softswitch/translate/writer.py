"""Writing indented C++."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import ir


class Writer:
    """Collects lines at the current indentation."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth
        self.last_source = ir.NOWHERE

    def line(self, text: str = "") -> None:
        """One line."""
        self.lines.append("  " * self.depth + text if text else "")

    def source(self, source: ir.Source) -> None:
        """A comment that leads back to the P4 source, once per place."""
        if not source.where or source == self.last_source:
            return
        self.last_source = source
        fragment = " ".join(source.fragment.replace("\\", "/").split())
        self.line(f"// {source.where}  {fragment}".rstrip())

    @contextmanager
    def block(self, head: str, tail: str = "}") -> Iterator[None]:
        """``head {`` … ``tail``, indented."""
        self.line(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self.line(tail)

    def text(self) -> str:
        """Everything so far."""
        return "\n".join(self.lines) + "\n"


def quoted(text: str) -> str:
    """A C++ string literal."""
    out = []
    for byte in text.encode():
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127 and char != "?":
            out.append(char)
        else:
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def bytes_literal(value: int, bits: int) -> str:
    """A Bytes value: ``value`` as big-endian bytes."""
    size = (bits + 7) // 8
    data = value.to_bytes(max(size, (value.bit_length() + 7) // 8), "big")
    body = "".join(f"\\{b:03o}" for b in data)
    return f'Bytes("{body}", {len(data)})'
