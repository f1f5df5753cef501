"""Runs a command line: whatever goes wrong on purpose is one line on stderr, never a traceback."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from wiresum.common import logs
from wiresum.common.errors import WiresumError

log = logging.getLogger("wiresum")

# typer's own complaints about options, commands and arguments; it exports no name for their base.
_Complaint: type[Exception] = typer.BadParameter.__bases__[0]


class UsageError(WiresumError):
    """A command, option or argument that there is not, or whose value makes no sense."""

    exit_code = 2


class SystemRefusal(WiresumError):
    """The system did not do what the command needs."""

    def __init__(self, error: OSError) -> None:
        what = f"{error.filename}: " if error.filename is not None else ""
        why = (error.strerror or str(error)).lower()
        super().__init__(f"the system refuses what this command needs: {what}{why}")


def main(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``app`` and end this process with its status. ``arguments``: this process's own."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_text(given)
        status = _run(app, given)
    except WiresumError as error:
        print(logs.last_words(error), file=sys.stderr)
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader went away (`wiresum job list | head`): not an error of ours. Python would
        # complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except OSError as error:
        # A disk that is full, a working directory that is gone, a file that may not be read.
        log.debug("an error of the system's", exc_info=True)
        refused = SystemRefusal(error)
        print(logs.last_words(refused), file=sys.stderr)
        status = refused.exit_code
    sys.exit(status)


def _run(app: typer.Typer, arguments: list[str]) -> int:
    try:
        status = app(arguments, standalone_mode=False)
    except _Complaint as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # A group without a command: its help has been shown, or is the message.
            print(str(error), end="")
            return UsageError.exit_code
        words, command = _complaint(error)
        raise UsageError(f"{words}; see `{command} --help`") from None
    return status if isinstance(status, int) else 0


def _complaint(error: Exception) -> tuple[str, str]:
    """What typer has to say, as part of a sentence, and the command that it says it of."""
    words = str(getattr(error, "format_message", error.__str__)()).strip().removesuffix(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "wiresum"
    return f"{words[:1].lower()}{words[1:]}", command


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no text; what follows ``--`` is another program's business."""
    for argument in arguments:
        if argument == "--":
            return
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"argument {argument!a} is not UTF-8") from None
