"""The base of every error that wiresum raises on purpose, and how error lines are declared.

Each package declares its lines in a module ``lines``, each with a code that never changes and is
never used again. The runbook in docs/operations.md has the cures by code. A call site raises an
error with a declared line and its values::

    NO_NODE = Line("T002", "rack {name} has no node {node!r}; it has {nodes}")
    ...
    raise RackUsageError(lines.NO_NODE.of(name=name, node=node, nodes=", ".join(nodes)))
"""


class LineText(str):
    """The text of an error line, with the code of that line; an empty code if it has none.

    ``str()`` of one keeps the code, so that an error which repeats another's line has its code.
    """

    code: str

    def __new__(cls, text: str, code: str) -> "LineText":
        """``text`` is the whole line, ``code`` its declaration's."""
        line = super().__new__(cls, text)
        line.code = code
        return line

    def __str__(self) -> str:
        return self

    def __reduce__(self) -> "tuple[type[LineText], tuple[str, str]]":
        return (LineText, (super().__str__(), self.code))


class Line:
    """The declaration of one error line.

    ``code``: a letter for the catalogue and three digits. ``template``: the text, with fields as
    ``str.format`` takes them.
    """

    __slots__ = ("code", "template")

    def __init__(self, code: str, template: str) -> None:
        self.code = code
        self.template = template

    def of(self, **fields: object) -> LineText:
        """The line with these values in its fields."""
        return LineText(self.template.format(**fields), self.code)


class _Base(RuntimeError):
    """Stands where torch's ``DistBackendError`` stands in a process that uses torch."""


class WiresumError(_Base):
    """An error whose message is one complete line: what was wrong, where, and what to do.

    The command line prints that line on stderr and exits with ``exit_code``; no traceback.
    """

    exit_code: int = 1

    @property
    def line_code(self) -> str | None:
        """The code of the line in the runbook; None if the message is no declared line."""
        return code_of(self)


def code_of(value: object) -> str | None:
    """The code of an error line that is given as a text or as an exception; None if it has none."""
    text = value.args[0] if isinstance(value, Exception) and value.args else value
    return (text.code or None) if isinstance(text, LineText) else None


def derive_errors_from(base: type[RuntimeError]) -> None:
    """Let ``except base`` catch all errors of wiresum: scripts expect torch's own classes.

    Only processes that use torch do that; the command line has no reason to import it.
    """
    if not issubclass(WiresumError, base):
        WiresumError.__bases__ = (base,)
