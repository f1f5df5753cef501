"""Finds the error lines of the packages that have no catalogue of their lines yet.

It reads Python as a syntax tree. An error line is:

- the message of every call of a class that derives from ``WiresumError``, or ``P4RuntimeError`` and
  the like where such a message becomes one, given as a string, an f-string, or a variable that is
  assigned one in the same function;
- the argument of a function that makes such an error of its parameter (``invalid("…")``), found as
  a fixed point, so that helpers of helpers count, too;
- the text of a gRPC status (``context.abort(code, "…")``).

In a template, ``…`` stands for the variable parts. A message that is only another error's text
(``ServeError(str(error))``) has no template of its own: it is opaque.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from catalogues import PACKAGES, WITHOUT

ROOT = Path(__file__).parents[2]
BASES = {"WiresumError"}
GAP = "…"

# Exceptions whose text becomes that of a WiresumError, or of a switch's `reason`, elsewhere.
CARRIERS = {"SouthboundError", "GoneError"}

# Functions that return a line which is raised, or told as a reason, somewhere else.
SOURCES = {
    "host_agent/agent/agent.py": {"_heard"},
    "host_agent/agent/control.py": {"over", "_failed"},
    "host_agent/agent/peers/member.py": {"line", "_waits"},
}

# Functions that keep an argument as the reason why a worker or a switch is gone.
SINKS = {("host_agent", "_lost"): {"why": 0}}

# The folders of C++ whose exceptions become WiresumErrors, and the calls that make them.
CPP = {
    "host_agent/engine": r"\b(?:fail|refuse|give_up|EngineError|CodecError)\s*\(",
}


@dataclass(frozen=True)
class Line:
    """One template and where it is."""

    template: str
    path: str
    function: str
    number: int

    @property
    def where(self) -> str:
        """As a compiler writes it."""
        return f"{self.path}:{self.number}"

    @property
    def opaque(self) -> bool:
        """Whether it has no words of its own: it is another error's line."""
        return re.search(r"[A-Za-z]{3,}", self.template) is None


@dataclass
class Code:
    """All modules, and the classes and helpers that make errors."""

    trees: dict[str, ast.Module] = field(default_factory=dict)
    classes: dict[str, int | None] = field(default_factory=dict)
    """Error classes by name: which argument is the message; None: the class makes its own."""
    helpers: dict[tuple[str, str], dict[str, int]] = field(
        default_factory=lambda: {where: dict(what) for where, what in SINKS.items()}
    )
    """Functions by package and name that make errors of parameters: these, and their positions."""


def read(root: Path = ROOT) -> Code:
    """Parse all packages and find the functions that make errors."""
    code = Code()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            code.trees[str(path.relative_to(root))] = ast.parse(path.read_text())
    _find_classes(code)
    _find_helpers(code)
    return code


def _find_classes(code: Code) -> None:
    bases: dict[str, ast.ClassDef] = {}
    parents: dict[str, set[str]] = {}
    for tree in code.trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = node
                parents.setdefault(node.name, set()).update(_name(base) for base in node.bases)
    known = BASES | CARRIERS
    while grown := {name for name, above in parents.items() if above & known} - known:
        known |= grown
    for name in known:
        code.classes[name] = 0
        for cls in _lineage(name, bases):
            init = next((f for f in cls.body if _is_function(f, "__init__")), None)
            if isinstance(init, ast.FunctionDef):
                code.classes[name] = _passed_on(init)
                break


def _lineage(name: str, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    while name in classes:
        yield classes[name]
        name = _name(classes[name].bases[0]) if classes[name].bases else ""


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _passed_on(init: ast.FunctionDef) -> int | None:
    """Which argument (self apart) ``__init__`` hands to ``super().__init__`` as it is."""
    names = [argument.arg for argument in init.args.args][1:]
    for node in ast.walk(init):
        if isinstance(node, ast.Call) and _name(node.func) == "__init__" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Name) and first.id in names:
                return names.index(first.id)
    return None


def _find_helpers(code: Code) -> None:
    """Functions that hand a parameter to an error as its message; until no more are found."""
    grown = True
    while grown:
        grown = False
        for path, tree in code.trees.items():
            for function in ast.walk(tree):
                if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if function.name == "__init__":
                    continue
                names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
                names = [name for name in names if name not in ("self", "cls")]
                known = code.helpers.setdefault((_package(path), function.name), {})
                for call in ast.walk(function):
                    for message in _messages(code, path, call):
                        for part in _alternatives(message):
                            if isinstance(part, ast.Name) and part.id in names:
                                grown |= part.id not in known
                                known[part.id] = names.index(part.id)


def _alternatives(value: ast.expr) -> list[ast.expr]:
    if isinstance(value, ast.IfExp):
        return [*_alternatives(value.body), *_alternatives(value.orelse)]
    return [value]


def _package(path: str) -> str:
    return path.partition("/")[0]


def _messages(code: Code, path: str, call: ast.AST) -> list[ast.expr]:
    """The expressions that become an error's message through this call, if any do."""
    if not isinstance(call, ast.Call):
        return []
    name = _name(call.func)
    wanted: dict[str, int]
    if name in code.classes:
        position = code.classes[name]
        wanted = {} if position is None else {"message": position}
    elif name == "abort" and _package(path) == "controller":
        wanted = {"details": 1}
    else:
        wanted = code.helpers.get((_package(path), name), {})
    found = []
    for parameter, position in wanted.items():
        keyword = next((given.value for given in call.keywords if given.arg == parameter), None)
        if keyword is not None:
            found.append(keyword)
        elif position < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args):
            found.append(call.args[position])
    return found


def lines(code: Code) -> list[Line]:
    """All templates of the Python code, those that are opaque included."""
    found = []
    for path, tree in code.trees.items():
        if not path.startswith(WITHOUT):
            continue
        for function in _functions(tree):
            variables = _assigned(function)
            name = getattr(function, "name", "")
            for call in _calls_outside_inner_functions(function):
                for message in _messages(code, path, call):
                    for text in _texts(message, variables):
                        found.append(Line(text, path, name, call.lineno))
            if name in SOURCES.get(path, ()):
                found += _returned(function, path, variables)
        found += [
            Line(text, path, node.name, node.lineno)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and code.classes.get(node.name, 0) is None
            for text in _super_texts(node)
        ]
    return found


def _returned(function: ast.AST, path: str, variables: dict[str, list[ast.expr]]) -> list[Line]:
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            for text in _texts(node.value, variables):
                line = Line(text, path, getattr(function, "name", ""), node.lineno)
                if not line.opaque:
                    found.append(line)
    return found


_CPP_FIRST = re.compile(r"^\s*(?:\{?(?:ErrorKind|Code)::\w+\s*,\s*)?(?:std::string\()?")
_CPP_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def cpp_lines(root: Path = ROOT) -> list[Line]:
    """The templates of C++ code: the strings in calls that make errors."""
    found = []
    for folder, calls in CPP.items():
        for path in sorted((root / folder).rglob("*.cpp")):
            found += _cpp_file(path, root, calls)
    return found


def _cpp_file(path: Path, root: Path, calls: str) -> list[Line]:
    found = []
    source = re.sub(r"//[^\n]*", "", path.read_text())
    for match in re.finditer(calls, source):
        arguments = _CPP_FIRST.sub("", _balanced(source, match.end()))
        texts = _CPP_TEXT.findall(arguments)
        joined = GAP.join(re.sub(r"\\(.)", r"\1", text) for text in _adjacent(texts, arguments))
        if not arguments.rstrip().endswith('"'):
            joined += GAP
        number = source.count("\n", 0, match.start()) + 1
        if not arguments.startswith('"'):
            joined = GAP + joined
        line = Line(_squeezed(joined), str(path.relative_to(root)), "", number)
        if not line.opaque:
            found.append(line)
    return found


def _adjacent(texts: list[str], arguments: str) -> list[str]:
    """Strings that stand side by side are one."""
    joined: list[str] = []
    position = 0
    for text in texts:
        start = arguments.index(f'"{text}"', position)
        if joined and not arguments[position:start].strip():
            joined[-1] += text
        else:
            joined.append(text)
        position = start + len(text) + 2
    return joined


def _balanced(source: str, start: int) -> str:
    depth, position = 1, start
    while depth and position < len(source):
        if source[position] == '"':
            match = _CPP_TEXT.match(source, position)
            assert match is not None
            position = match.end()
            continue
        depth += {"(": 1, ")": -1}.get(source[position], 0)
        position += 1
    return source[start : position - 1]


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    yield tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


def _calls_outside_inner_functions(function: ast.AST) -> Iterator[ast.Call]:
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting += ast.iter_child_nodes(node)


def _assigned(function: ast.AST) -> dict[str, list[ast.expr]]:
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
        elif (
            isinstance(node, ast.AugAssign | ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.value is not None
        ):
            values.setdefault(node.target.id, []).append(node.value)
    return values


def _super_texts(node: ast.ClassDef) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and _name(call.func) == "__init__" and call.args:
            yield from _texts(call.args[0], {})


def _texts(value: ast.expr, variables: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """The templates that an expression can have."""
    if isinstance(value, ast.Constant):
        return [value.value] if isinstance(value.value, str) else [GAP]
    if isinstance(value, ast.JoinedStr):
        return [_squeezed("".join(_part(part, variables, depth) for part in value.values))]
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return [
            _squeezed(left + right)
            for left in _texts(value.left, variables, depth)
            for right in _texts(value.right, variables, depth)
        ]
    if isinstance(value, ast.IfExp):
        return [*_texts(value.body, variables, depth), *_texts(value.orelse, variables, depth)]
    if isinstance(value, ast.BoolOp):
        return [text for part in value.values for text in _texts(part, variables, depth)]
    if isinstance(value, ast.Name) and depth < 3:
        texts = [
            text
            for given in variables.get(value.id, ())
            for text in _texts(given, variables, depth + 1)
        ]
        return texts or [GAP]
    return [GAP]


def _part(part: ast.expr, variables: dict[str, list[ast.expr]], depth: int) -> str:
    """A piece of an f-string; a variable that is always the same words is these words."""
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return part.value
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and depth < 3:
        given = variables.get(part.value.id, [])
        if len(given) == 1 and isinstance(given[0], ast.JoinedStr | ast.Constant):
            return _texts(given[0], variables, depth + 1)[0]
    return GAP


def _squeezed(text: str) -> str:
    return re.sub(f"{GAP}+", GAP, text)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.id if isinstance(node, ast.Name) else ""
