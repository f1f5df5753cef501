"""Makes click's commands of the declarations; importing this module imports click."""

import dataclasses
import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import click

from wiresum.common.command_line.declare import (
    Argument,
    Command,
    Function,
    Group,
    Option,
    Rest,
    spec_of,
)

Take = Callable[[click.Context, dict[str, Any]], Any]
"""Takes a parameter's value out of the values that click has parsed."""


class Decimal(click.FloatRange):
    """A number within limits; NaN is within none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse one value; fails with click's usual words."""
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class Members(click.Choice[str]):
    """The values of an enumeration; gives its members."""

    def __init__(self, members: type[Enum]) -> None:
        self.members = members
        super().__init__([str(member.value) for member in members])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the member of a value; a member stays itself."""
        if isinstance(value, self.members):
            return value
        return self.members(super().convert(value, param, ctx))


class LazyGroup(click.Group):
    """A group that builds a command when it is asked for it."""

    def __init__(self, name: str, group: Group, params: list[click.Parameter] | None = None):
        super().__init__(name=name, help=group.help, no_args_is_help=True, params=params)
        self._table = group.commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and build one command; None if there is none of this name."""
        entry = self._table.get(cmd_name)
        return None if entry is None else build(cmd_name, entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's own lines of help: no command is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._table.items()])


class CommandWithRest(click.Command):
    """A command; the words that are left over are in its usage line, too."""

    rest = ""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the parts of the usage line behind the command's name."""
        return [*super().collect_usage_pieces(ctx), *filter(None, [self.rest])]


def build(name: str, entry: Command | Group) -> click.Command:
    """The command or group of a table's entry."""
    if isinstance(entry, Group):
        return LazyGroup(name, entry)
    return command(name, entry.load())


def command(name: str, function: Function) -> click.Command:
    """The command that a function declares."""
    takes, params, settings = _parameters(function)

    def run(**values: Any) -> int | None:
        context = click.get_current_context()
        return function(**{name: take(context, values) for name, take in takes.items()})

    rest = settings.pop("rest", "")
    made = CommandWithRest(
        name,
        callback=run,
        params=params,
        help=inspect.getdoc(function),
        context_settings=settings,
    )
    made.rest = rest
    return made


def version_option(text: Callable[[], str]) -> click.Option:
    """``--version``: prints ``text()`` and ends."""

    def show(context: click.Context, _: click.Parameter, asked: bool) -> None:
        if asked:
            click.echo(text())
            context.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        help="Print the version.",
        callback=show,
    )


def _parameters(
    owner: Callable[..., Any],
) -> tuple[dict[str, Take], list[click.Parameter], dict[str, Any]]:
    """How to get each parameter of a function or dataclass, click's parameters, and settings."""
    takes: dict[str, Take] = {}
    params: list[click.Parameter] = []
    settings: dict[str, Any] = {}
    for name, parameter in inspect.signature(owner).parameters.items():
        kind, spec = spec_of(parameter.annotation)
        if spec is None and dataclasses.is_dataclass(kind) and isinstance(kind, type):
            inner, inner_params, inner_settings = _parameters(kind)
            takes[name] = _bundle(kind, inner)
            params += inner_params
            settings |= inner_settings
        elif isinstance(spec, Rest):
            takes[name] = lambda context, _: list(context.args)
            settings["rest"] = spec.metavar
            settings["allow_extra_args"] = True
            if spec.unknown_options:
                settings["ignore_unknown_options"] = True
            else:
                settings["allow_interspersed_args"] = False
        else:
            made, takes[name] = _parameter(name, kind, spec or Option(), parameter.default)
            params.append(made)
    return takes, params, settings


def _bundle(kind: type, takes: dict[str, Take]) -> Take:
    return lambda context, values: kind(
        **{name: take(context, values) for name, take in takes.items()}
    )


def _parameter(
    name: str, kind: Any, spec: Option | Argument, default: Any
) -> tuple[click.Parameter, Take]:
    """click's parameter, and how to get its value."""
    required = default is inspect.Parameter.empty
    initial = None if required else default.value if isinstance(default, Enum) else default
    kind = _not_none(kind)
    many = get_origin(kind) is list
    if many:
        (kind,) = get_args(kind)

    # To click, a default of None is a value like any other, which a flag may have and others not.
    known: dict[str, Any] = {} if initial is None and kind is not bool else {"default": initial}

    def take(_: click.Context, values: dict[str, Any]) -> Any:
        value = values[name]
        if many:
            return list(value) if value else default
        return value

    if isinstance(spec, Argument):
        shown = f"{name}..." if many else name
        return click.Argument(
            [name],
            type=_type(kind, Option()),
            required=required,
            nargs=-1 if many else 1,
            metavar=spec.metavar or (shown if required else f"[{shown}]"),
            help=spec.help,
            **known,
        ), take
    flag = kind is bool
    return click.Option(
        [*(spec.names or (f"--{name.replace('_', '-')}",)), name],
        type=None if flag else _type(kind, spec),
        required=required,
        is_flag=flag,
        multiple=many,
        metavar=spec.metavar,
        help=spec.help,
        envvar=spec.envvar,
        hidden=spec.hidden,
        show_default=not (flag or many or initial is None or initial == ""),
        show_envvar=spec.envvar is not None,
        **known,
    ), take


def _not_none(kind: Any) -> Any:
    """The type without ``| None``."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = [each for each in get_args(kind) if each is not NoneType]
    return kind


def _type(kind: Any, spec: Option) -> click.types.ParamType[Any, Any]:
    if kind is int:
        low, high = (None if limit is None else int(limit) for limit in (spec.min, spec.max))
        return click.INT if low is None and high is None else click.IntRange(low, high)
    if kind is float:
        limits = (spec.min, spec.max)
        return click.FLOAT if limits == (None, None) else Decimal(spec.min, spec.max)
    if kind is Path:
        return click.Path(path_type=Path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Members(kind)
    return click.STRING
