"""Reads the catalogues of error lines, and the code that uses them."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wiresum.common.errors import Line, WiresumError

ROOT = Path(__file__).parents[2]
GAP = "…"

PACKAGES = ("cli", "common", "controller", "host_agent", "measure", "p4", "softswitch", "testbed")

CATALOGUES = {
    "wiresum.common.lines": "G",
    "wiresum.controller.lines": "C",
    "wiresum.host_agent.lines": "A",
    "wiresum.measure.lines": "M",
    "wiresum.p4.lines": "P",
    "wiresum.softswitch.lines": "S",
    "wiresum.softswitch.translate.lines": "X",
    "wiresum.testbed.lines": "T",
}
"""The modules that declare error lines, and the first letter of their codes."""

NATIVE = {
    "host_agent/engine/lines.hpp": "E",
    "softswitch/native/lines.hpp": "N",
}
"""The same for native code."""

CARRIERS = ("SouthboundError", "GoneError", "abort")
"""Exceptions that are no WiresumErrors, and gRPC's call, whose texts are error lines, too."""

_NATIVE_LINE = re.compile(
    r'Line<"(?P<code>[^"]*)",\s*(?P<template>(?:"(?:[^"\\]|\\.)*"\s*)+)>\s*(?P<name>k\w+);'
)
_NATIVE_USE = re.compile(r"lines::(k\w+)\.of\(")

_FIELD = re.compile(r"\{(\w+)(?:![ras])?(?::[^}]*)?\}")


@dataclass(frozen=True)
class Declared:
    """One declared line: ``name`` is the constant's, ``catalogue`` its module."""

    catalogue: str
    name: str
    code: str
    template: str

    @property
    def pattern(self) -> str:
        """The template as the runbook writes it: ``…`` stands for the fields."""
        text = _FIELD.sub(GAP, self.template.replace("{{", "\0").replace("}}", "\1"))
        return re.sub(f"{GAP}+", GAP, text.replace("\0", "{").replace("\1", "}"))

    @property
    def fields(self) -> frozenset[str]:
        """The names of its fields."""
        return frozenset(_FIELD.findall(self.template.replace("{{", "").replace("}}", "")))


@dataclass(frozen=True)
class Use:
    """A place that names a declared line; ``given``: the values in its call of ``of``."""

    catalogue: str
    name: str
    where: str
    given: frozenset[str] | None


@cache
def declared() -> tuple[Declared, ...]:
    """All lines of all catalogues."""
    python = (
        Declared(catalogue, name, value.code, value.template)
        for catalogue in CATALOGUES
        for name, value in vars(importlib.import_module(catalogue)).items()
        if isinstance(value, Line)
    )
    native = (
        Declared(header, found["name"], found["code"], _joined(found["template"]))
        for header in NATIVE
        for found in _NATIVE_LINE.finditer((ROOT / header).read_text())
    )
    return (*python, *native)


def _joined(literals: str) -> str:
    """Adjacent string literals of C++ as one text."""
    return str(ast.literal_eval(f"({literals})"))


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The modules of all packages, parsed."""
    for folder in PACKAGES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), _parsed(path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def uses() -> list[Use]:
    """Every use of a declared line, and of what looks like one and is not declared."""
    found = []
    for path, tree in sources():
        known = _imported(path, tree)
        calls = {
            call.func.value: frozenset(word.arg or "" for word in call.keywords)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "of"
        }
        found += [
            Use(known[node.value.id], node.attr, f"{path}:{node.lineno}", calls.get(node))
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in known
            and node.attr.isupper()
        ]
    return found + _native_uses()


def _native_uses() -> list[Use]:
    """Those in C++; its compiler checks what is given."""
    return [
        Use(header, name, str(path.relative_to(ROOT)), None)
        for header in NATIVE
        for path in sorted((ROOT / header).parent.rglob("*.[ch]pp"))
        for name in _NATIVE_USE.findall(path.read_text())
    ]


def _imported(path: str, tree: ast.Module) -> dict[str, str]:
    """The catalogues that a module imports, by their names there."""
    package = ["wiresum", *path.split("/")[:-1]]
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for each in node.names:
                if f"{module}.{each.name}" in CATALOGUES:
                    found[each.asname or each.name] = f"{module}.{each.name}"
    return found


def undeclared() -> list[tuple[str, str]]:
    """Where an error gets a text of its own instead of a declared line, and that text."""
    errors = _error_classes()
    return [
        (f"{path}:{call.lineno}", text)
        for path, tree in sources()
        for call, inside in _calls(tree)
        if _name(call.func) in errors or (_name(call.func) == "__init__" and inside in errors)
        for value in [*call.args, *(word.value for word in call.keywords)]
        for text in _texts(value)
        if " " in text and re.search(r"[A-Za-z]{3}", text)
    ]


def _error_classes() -> set[str]:
    """The names of all classes that derive from WiresumError and are given their line."""
    classes = [
        node for _, tree in sources() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    bases = {node.name: {_name(base) for base in node.bases} for node in classes}
    known = {WiresumError.__name__, *CARRIERS}
    while grown := {name for name, above in bases.items() if above & known} - known:
        known |= grown
    return known - {node.name for node in classes if _has_its_line(node)}


def _has_its_line(node: ast.ClassDef) -> bool:
    """Whether the class itself names its line, and its arguments are parts of it."""
    return any(
        _name(call.func) == "__init__"
        and any(isinstance(given, ast.Call) and _name(given.func) == "of" for given in call.args)
        for call, _ in _calls(node)
    )


def _calls(tree: ast.AST, inside: str = "") -> Iterator[tuple[ast.Call, str]]:
    """All calls, each with the class around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield node, inside
        yield from _calls(node, node.name if isinstance(node, ast.ClassDef) else inside)


def _texts(value: ast.expr) -> list[str]:
    """The texts that an expression may be; ``…`` stands for their variable parts."""
    if isinstance(value, ast.JoinedStr):
        return ["".join(_texts(part)[0] for part in value.values)]
    if isinstance(value, ast.BinOp):
        return [left + right for left in _texts(value.left) for right in _texts(value.right)]
    if isinstance(value, ast.IfExp):
        return [*_texts(value.body), *_texts(value.orelse)]
    return [
        value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else GAP
    ]


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
