"""Runs a command line. An error that wiresum raises on purpose is one line on stderr."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from wiresum.common import lines
from wiresum.common.command_line.declare import Command, Group
from wiresum.common.errors import WiresumError

if TYPE_CHECKING:
    import click


class UsageError(WiresumError):
    """An unknown command, option or argument, or a value that makes no sense."""

    exit_code = 2


class SystemRefusal(WiresumError):
    """An operation of the system that the command needs has failed."""

    def __init__(self, error: OSError) -> None:
        what = f"{error.filename}: " if error.filename is not None else ""
        why = (error.strerror or str(error)).lower()
        super().__init__(lines.SYSTEM_REFUSES.of(what=what, why=why))


def main(
    entry: Command | Group,
    arguments: Sequence[str] | None = None,
    *,
    name: str = "wiresum",
    version: Callable[[], str] | None = None,
) -> NoReturn:
    """Run a command, or one of a group, and end this process with its status.

    ``arguments``: this process's own, if None. ``name`` is the command's name in its help;
    ``version`` gives the line that ``--version`` prints.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_text(given)
        status = _run(entry, given, name, version)
    except WiresumError as error:
        status = _fail(error)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has closed the pipe (`wiresum job list | head`): this is no error. Python would
        # complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except OSError as error:
        # A disk that is full, a working directory that is gone, a file that may not be read.
        import logging

        logging.getLogger("wiresum").debug("an error of the system's", exc_info=True)
        status = _fail(SystemRefusal(error))
    sys.exit(status)


def _fail(error: WiresumError) -> int:
    """Print an error as one line; its exit status."""
    from wiresum.common import logs

    print(logs.last_words(error), file=sys.stderr)
    return error.exit_code


def _run(
    entry: Command | Group,
    arguments: list[str],
    name: str,
    version: Callable[[], str] | None,
) -> int:
    import click

    from wiresum.common.command_line.build import build, version_option

    command = build(name, entry)
    if version is not None:
        command.params.append(version_option(version))
    try:
        with command.make_context(name, arguments) as context:
            status = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        # A group without a command: its help is the message.
        print(error.format_message())
        return UsageError.exit_code
    except click.ClickException as error:
        words, path = _complaint(error, name)
        raise UsageError(lines.WRONG_USAGE.of(fault=words, command=path)) from None
    return status if isinstance(status, int) else 0


def _complaint(error: "click.ClickException", name: str) -> tuple[str, str]:
    """click's message as part of a sentence, and the command that it is about."""
    import click

    words = error.format_message()
    if isinstance(error, click.exceptions.NoSuchOption):
        words = f"No such option: {error.option_name}"
        if error.possibilities:
            words += f" (Possible options: {', '.join(sorted(error.possibilities))})"
    elif isinstance(error, click.exceptions.NoSuchCommand):
        words = error.message
        if error.possibilities:
            words += f" Did you mean {', '.join(map(repr, error.possibilities))}?"
    context: click.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context is not None else name
    return f"{words[:1].lower()}{words[1:]}".strip().removesuffix("."), path


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no text; what follows ``--`` is for another program."""
    for argument in arguments:
        if argument == "--":
            return
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(lines.NOT_UTF8.of(argument=argument)) from None
