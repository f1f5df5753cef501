"""The translator's entry point."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from . import ir, lines
from .emit_program import emit_program, standard_field
from .errors import ProgramInvalid
from .layout import Layout
from .node import parse
from .reader import read
from .reroll import mark_live, reroll
from .simplify import simplify, used_fields
from .structure import structure


@dataclass(frozen=True)
class Translation:
    """A translated program: the C++ and what the JSON says about itself."""

    cpp: str
    json_sha256: str
    name: str


def json_digest(text: bytes) -> str:
    """SHA-256 of a JSON's content; white space and the order of keys do not count."""
    return _digest(parse(text))


def translate(text: bytes) -> Translation:
    """Translates a BMv2 JSON to C++.

    Raises :class:`ProgramInvalid` for what is not a BMv2 JSON and
    :class:`UnsupportedConstruct` for what lies outside the subset.
    """
    data = parse(text)
    try:
        return _translate(data)
    except RecursionError as e:
        raise ProgramInvalid(lines.TOO_DEEP.of()) from e


def _translate(data: Any) -> Translation:
    digest = _digest(data)
    program = read(data)
    for action in program.actions.values():
        action.body[:] = structure(action.body)
    simplify(program)
    used = used_fields(program)
    used |= {standard_field(program, name) for name in ("egress_spec", "mcast_grp")} & {
        ir.FieldRef(header.name, field.name)
        for header in program.headers.values()
        for field in header.type.fields
    }
    layout = Layout(program, used)
    for action in program.actions.values():
        if not any(isinstance(s, ir.Label) for s in action.body):
            reroll(action.body, layout)
            mark_live(action.body)
    return Translation(emit_program(program, layout, digest), digest, program.name)


def _digest(data: Any) -> str:
    try:
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    except RecursionError as e:
        raise ProgramInvalid(lines.TOO_DEEP.of()) from e
    return hashlib.sha256(canonical).hexdigest()
