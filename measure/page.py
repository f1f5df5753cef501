"""Puts what a command has made between two marks of a page."""

from pathlib import Path

from wiresum.measure import lines
from wiresum.testbed.errors import RackError

END = "<!-- to here -->"
"""The second mark."""


def put(path: Path, made: str, title: str, begin: str) -> None:
    """Write ``made`` between the marks of a page, which is begun if it is not there.

    ``begin``: the first mark, which names the command.

    Raises :class:`RackError` for a page without the marks.
    """
    section = f"{begin}\n\n{made}\n{END}\n"
    try:
        if path.exists():
            page = path.read_text()
            before, mark, rest = page.partition(begin)
            _, other_mark, after = rest.partition(END + "\n")
            if not mark or not other_mark:
                raise RackError(lines.NO_MARKS.of(path=path, begin=begin, end=END))
            path.write_text(before + section + after)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {title}\n\n{section}")
    except OSError as error:
        raise RackError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None
