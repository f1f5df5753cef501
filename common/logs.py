"""Logs as text for people or as JSON for machines: one object per line, on stderr.

``--log-format`` of the serving commands and of ``wiresum run`` chooses; ``WIRESUM_LOG_FORMAT`` is
its default, and chooses for workers. Facts travel beside the message: ``log.info("…",
extra={"job": …})`` for one line, :func:`bind` for all lines of this process.
"""

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from wiresum.common import lines
from wiresum.common.errors import WiresumError, code_of

FORMATS = ("text", "json")
VARIABLE = "WIRESUM_LOG_FORMAT"
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# The attributes of every record; all others came from `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = frozenset({"time", "level", "logger", "message", "line_code", "exception"})

# Messages of the libraries inside workers name wiresum: no formatter does it there.
_PREFIX = "wiresum: "

_bound: dict[str, Any] = {}
_format = "text"


class LogFormatError(WiresumError):
    """A log format that does not exist."""

    exit_code = 2


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, then the fields by name.

    ``time`` is UTC in ISO 8601 with microseconds. An exception's traceback is in ``exception``.
    Fields that are no JSON scalars are written as ``str()`` of them; those named like one of
    the four get an underscore. If one of the message's values is an error line with a code, as the
    runbook has them, that code is in ``line_code``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().removeprefix(_PREFIX),
        }
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        for name, value in {**_bound, **given}.items():
            line[f"{name}_" if name in _RESERVED else name] = _scalar(value)
        codes = [code_of(value) for value in record.args] if isinstance(record.args, tuple) else []
        if any(codes):
            line["line_code"] = next(code for code in codes if code)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, allow_nan=False)


def log_format(option: str | None, env: Mapping[str, str] = os.environ) -> str:
    """The format that ``option`` asks for, or else the environment, or else text.

    Raises :class:`LogFormatError`.
    """
    chosen = option or env.get(VARIABLE) or "text"
    if chosen not in FORMATS:
        where = "--log-format" if option else VARIABLE
        raise LogFormatError(lines.UNKNOWN_LOG_FORMAT.of(where=where, chosen=chosen))
    return chosen


def configure(chosen: str, *, level: int, text: str = TEXT) -> None:
    """Send this process's log to stderr, from ``level`` on, in format ``chosen``.

    ``text`` is the layout of text lines, as :class:`logging.Formatter` takes it.
    """
    global _format
    _format = chosen
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if chosen == "json" else logging.Formatter(text))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def configure_library(env: Mapping[str, str] = os.environ) -> None:
    """In a process that is not wiresum's own: show wiresum's log if the environment asks for it.

    Without ``WIRESUM_LOG_FORMAT`` the process's own configuration holds. Raises
    :class:`LogFormatError`.
    """
    if not env.get(VARIABLE):
        return
    chosen = log_format(None, env)
    ours = logging.getLogger("wiresum")
    if any(isinstance(handler, _Ours) for handler in ours.handlers):
        return
    handler = _Ours(sys.stderr)
    handler.setFormatter(JsonFormatter() if chosen == "json" else logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False


class _Ours(logging.StreamHandler[Any]):
    """A class of its own, so that it differs from handlers that the process has set."""


def bind(**fields: Any) -> None:
    """Put these fields into every JSON line of this process from now on; None takes one out."""
    _bound.update(fields)
    for name in [name for name, value in _bound.items() if value is None]:
        del _bound[name]


def say(log: logging.Logger, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Show a message to the user of this command, whatever the log leaves out.

    In text it is ``wiresum: message`` on stderr; in JSON it has that ``level`` at least.
    """
    if _format == "json":
        log.log(max(log.getEffectiveLevel(), level), "%s", message, extra=fields)
    else:
        print(f"wiresum: {message}", file=sys.stderr, flush=True)


def last_words(error: WiresumError) -> str:
    """The line with which a command ends in an error, in the format of its log.

    It is one line even if the message quotes a child's output, a file or an argument.
    """
    if _format != "json":
        return f"wiresum: {one_line(str(error))}"
    record = logging.makeLogRecord(
        {"name": "wiresum", "levelname": "ERROR", "msg": "%s", "args": (str(error),)}
    )
    record.error = type(error).__name__
    record.exit_code = error.exit_code
    return JsonFormatter().format(record)


def one_line(text: str) -> str:
    """``text`` with its line breaks as blanks and all else that would not print as escapes."""
    words = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in words)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)
