"""The committed type stub against the module as it is built."""

import ast
import inspect
from pathlib import Path

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


def test_stub_has_the_modules_parameters_and_defaults() -> None:
    for node in ast.walk(_stub()):
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue  # properties have no signature
        owner = _engine.Engine if hasattr(_engine.Engine, node.name) else _engine
        made = inspect.getdoc(getattr(owner, node.name)) or ""
        arguments = [*node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            assert argument.arg in made, f"{node.name} has no {argument.arg}"
        defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        for argument, default in defaults:
            assert default is not None
            value = ast.literal_eval(default)
            assert f"{argument.arg}: {type(value).__name__} = {value}" in made
