"""Programs with one value exchanged for another, and the tokens allowed in their C++."""

import copy
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARK = "EVIL"
"""Every hostile string has it; C++ may have it only in comments and string literals."""

STRINGS = [
    f"x\n#include <{MARK}>\n//",
    f'";{MARK}();//',
    f"*/ {MARK} /*",
    f"{MARK}\\",
    f"{MARK}??/",
    f"{MARK}\\\n{MARK}",
    f"{MARK}\r{MARK}\u2028{MARK}\u0085{MARK}",
    f'R"({MARK})" {MARK}',
    f"{MARK}\0{MARK}",
    f"{MARK}é\u202e\u0661",
    f"{MARK}\ud800",
    f"%s{{}}{MARK}$valid$",
    f"{MARK}::{MARK}<int>",
    f"0x1; {MARK}",
    f"1_0{MARK}",
    MARK * 1000,
    "",
    "default",
    "\\\\",
    "-0x1",
    "0x" + "f" * 5000,
    "٣",
]
NUMBERS: list[Any] = [
    -1, 0, 1, 2, 7, 8, 63, 64, 65, 511, 2048, 2049, 65535, 65536, 1 << 31, (1 << 32) - 1, 1 << 32,
    1 << 63, (1 << 64) - 1, 1 << 64, 1 << 128, 10**4000, -(1 << 63), 1.0, 1.5, float("inf"),
    float("nan"), True, False, None, "1", f"1; {MARK}()", [], {}, [1],
]  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A value in a program; ``kind`` is its path without the numbers of list elements."""

    path: tuple[str | int, ...]
    kind: str


def sites(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Site]:
    """All strings, numbers, flags and nulls of a JSON."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from sites(child, (*path, key))
    elif isinstance(value, list):
        for n, child in enumerate(value):
            yield from sites(child, (*path, n))
    else:
        # The elements of short lists mean different things: [header, field], [name, bits, signed].
        yield Site(path, ".".join("#" if isinstance(p, int) and p > 2 else str(p) for p in path))


def exchanged(program: Any, site: Site, value: Any) -> bytes:
    """The program's JSON with one value exchanged."""
    changed = copy.copy(program)
    node = changed
    for step in site.path[:-1]:
        node[step] = copy.copy(node[step])
        node = node[step]
    node[site.path[-1]] = value
    return json.dumps(changed).encode()


def get(program: Any, site: Site) -> Any:
    """The value at a site."""
    for step in site.path:
        program = program[step]
    return program


def hostile(program: Any, seed: int, per_kind: int) -> Iterator[tuple[Site, Any]]:
    """Sites and values: for each kind of site ``per_kind`` values of each sort, by chance."""
    chance = random.Random(seed)
    kinds: dict[str, list[Site]] = {}
    texts: set[str] = set()
    for site in sites(program):
        kinds.setdefault(site.kind, []).append(site)
        value = get(program, site)
        if isinstance(value, str):
            texts.add(value)
    own = sorted(texts)
    for found in kinds.values():
        for _ in range(per_kind):
            yield chance.choice(found), chance.choice(STRINGS)
            yield chance.choice(found), chance.choice(NUMBERS)
            yield chance.choice(found), chance.choice(own)


_LEXICAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|[A-Za-z_]\w*|[0-9][\w.]*|\S',
    re.DOTALL | re.ASCII,
)
_OURS = re.compile(
    r"(?:Header|action|at_|calculate|counter|f|first_|h|kept_|key_|loop_|m|next_|node_|r|register|run"
    r"|stack|state_|t|table)\d+_?(?:_next)?"
)


def words(cpp: str) -> set[str]:
    """The words of C++ outside of comments and literals, but for numbers and our numbered names."""
    found = set()
    for token in _LEXICAL.findall(cpp):
        if (re.match(r"[A-Za-z_]", token) and not _OURS.fullmatch(token)) or not token.isascii():
            found.add(token)
    return found
