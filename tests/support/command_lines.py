"""The command lines in the README and in all other pages: in fenced blocks, and in backticks."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_LAUNCHERS = ("srun", "exec", "nohup", "sudo")


@dataclass(frozen=True)
class Line:
    """A command of a page's block, with the place where it is."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


@cache
def pages() -> tuple[str, ...]:
    """Every page of the repository; the changelog tells of commands as they were."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(name for name in listed.stdout.split() if name != "CHANGELOG.md")


def blocks(page: str, *kinds: str) -> list[str]:
    """The fenced blocks of these kinds; the kind is what follows the backticks."""
    return [text for kind, text in _BLOCK.findall((ROOT / page).read_text()) if kind in kinds]


def lines_of(text: str, page: str = "") -> Iterator[Line]:
    """The commands of a block: without comments, settings before them, and the venv's folder."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in _LAUNCHERS):
                    words.pop(0)
                if words:
                    words[0] = words[0].removeprefix(".venv/bin/")
                    yield Line(page, tuple(words))
                words = []
            else:
                words.append(word)


def shell_lines() -> list[Line]:
    """All commands of all pages: in blocks of shell, and wiresum's own in blocks without a kind."""
    found = []
    for page in pages():
        for text in blocks(page, "sh", "bash", "console"):
            found += lines_of(text, page)
        for text in blocks(page, ""):
            ours = [line for line in text.splitlines() if line.startswith("wiresum ")]
            found += lines_of("\n".join(ours), page)
    return found


def mentions(program: str) -> set[Line]:
    """What stands between single backticks and begins with this program's name."""
    found = set()
    for page in pages():
        text = _BLOCK.sub("", (ROOT / page).read_text())
        for mention in re.findall(rf"(?<!`)`({program}(?: [^`]+)?)`(?!`)", text):
            found.add(Line(page, tuple(" ".join(mention.split()).split())))
    return found
