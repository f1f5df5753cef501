"""How commands are declared: options in a function's signature, name and help line in a table.

A command is a function whose parameters are annotated::

    def show(
        job: Annotated[str, Argument(help="Its id or name.")],
        lines: Annotated[int, Option(min=1, help="Lines to print.")] = 10,
        as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    ) -> None: ...

A type is ``bool``, ``int``, ``float``, ``str``, ``Path``, an enumeration, any of these ``| None``,
or a list of one of these. A parameter whose type is a dataclass stands for the options that the
dataclass's fields declare in the same way. A command that returns an integer ends with it as its
status.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Union

Function = Callable[..., int | None]


class Option:
    """An option of a command: ``Option("--json", help="…")``.

    Without ``names`` an option is called like its parameter. ``min`` and ``max`` are the limits of
    a number; ``envvar`` is the environment variable that is read where the option is not given. A
    hidden option is not in the help. A name ``--on/--off`` makes a flag with two states.
    """

    def __init__(
        self,
        *names: str,
        help: str = "",
        metavar: str | None = None,
        min: float | None = None,
        max: float | None = None,
        envvar: str | None = None,
        hidden: bool = False,
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.min = min
        self.max = max
        self.envvar = envvar
        self.hidden = hidden


@dataclass(frozen=True)
class Argument:
    """A positional argument of a command. A list takes one or more words."""

    help: str = ""
    metavar: str | None = None


@dataclass(frozen=True)
class Rest:
    """All words that the command's options and arguments leave over, as a list of strings.

    ``unknown_options``: options that the command does not know belong to the rest, wherever they
    are. Otherwise the first word that is no option begins the rest. ``metavar`` stands for them in
    the usage line.
    """

    unknown_options: bool = False
    metavar: str = "-- COMMAND [ARGS]..."


@dataclass(frozen=True)
class Command:
    """A command in a table: its function, as ``package.module:name``, and its line of help.

    The line is the first paragraph of the function's docstring; it is repeated here, so that the
    help of a group imports no command.
    """

    function: str | Function
    help: str = ""

    def load(self) -> Function:
        """Import the function."""
        if not isinstance(self.function, str):
            return self.function
        module, _, name = self.function.partition(":")
        found: Function = getattr(import_module(module), name)
        return found


@dataclass(frozen=True)
class Group:
    """Commands under one word, in the order of the help."""

    help: str
    commands: Mapping[str, Union[Command, "Group"]]


Spec = Option | Argument | Rest


def spec_of(annotation: Any) -> tuple[Any, Spec | None]:
    """Split ``Annotated[type, Option(…)]`` into the type and what is declared of it."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Option | Argument | Rest):
            return annotation.__origin__, extra
    return annotation, None
