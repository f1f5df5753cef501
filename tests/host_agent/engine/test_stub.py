"""The committed type stub against the module as it is built."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wiresum.host_agent
from wiresum.host_agent import _engine


def _stub() -> ast.Module:
    for folder in wiresum.host_agent.__path__:
        path = Path(folder) / "_engine.pyi"
        if path.exists():
            return ast.parse(path.read_text())
    raise AssertionError("_engine.pyi is not beside the package")


def _names(body: list[ast.stmt]) -> set[str]:
    names = set()
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def _public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_stub_has_exactly_the_modules_names() -> None:
    stub = _stub()
    assert _names(stub.body) == _public(_engine)
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            declared = {name for name in _names(node.body) if not name.startswith("_")}
            assert declared == _public(getattr(_engine, node.name))


def _functions(body: list[ast.stmt], owner: Any) -> Iterator[tuple[ast.FunctionDef, Any]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, getattr(owner, node.name))
        elif isinstance(node, ast.FunctionDef) and not node.decorator_list:
            yield node, getattr(owner, node.name)  # properties have no signature


def test_stub_has_the_modules_parameters_and_defaults() -> None:
    for node, function in _functions(_stub().body, _engine):
        made = inspect.getdoc(function) or ""
        arguments = [*node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            assert argument.arg in made, f"{node.name} has no {argument.arg}"
        defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        for argument, default in defaults:
            if default is None:
                assert re.search(rf"\b{argument.arg}: \w+[,)]", made), (
                    f"{argument.arg} has a default"
                )
                continue
            value = ast.literal_eval(default)
            shown = repr(value)
            assert f"{argument.arg}: {type(value).__name__} = {shown}" in made
