"""The end of a command line: one line on stderr and a status, for any arguments."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import pytest

from wiresum.common import command_line, logs
from wiresum.common.command_line import Argument, Command, Group, Option, Rest
from wiresum.common.errors import WiresumError

Run = Callable[..., tuple[int, str, str]]


def add(
    name: Annotated[str, Argument()],
    count: Annotated[int, Option(min=0, max=9)] = 0,
    flag: Annotated[bool, Option()] = False,
) -> None:
    print(f"added {name} {count}")


def fail(text: Annotated[str, Argument()]) -> None:
    raise WiresumError(text)


def end(how: Annotated[str, Argument()], rest: Annotated[list[str], Rest()]) -> int:
    if how == "interrupted":
        raise KeyboardInterrupt
    return int(how)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Paint:
    """Options that several commands share."""

    colour: Annotated[Colour, Option(help="Which.", envvar="TEST_COLOUR")] = Colour.RED
    coats: Annotated[float, Option(min=0.5, max=3)] = 1.0


def paint(
    things: Annotated[list[str], Argument(help="What to paint.")],
    how: Paint = Paint(),
    over: Annotated[list[Path] | None, Option(help="What is under it.")] = None,
    wet: Annotated[bool | None, Option("--wet/--dry")] = None,
    fast: Annotated[bool, Option("--fast", "-f")] = False,
    secret: Annotated[int, Option("--secret", hidden=True)] = 0,
) -> None:
    """Paint things.

    In one colour.
    """
    print(things, how.colour, how.coats, over, wet, fast, secret)


def beyond(
    words: Annotated[list[str], Rest(unknown_options=True)],
    node: Annotated[str, Argument()],
    name: Annotated[str, Option()] = "n",
) -> None:
    print(node, name, words)


ROOT = Group(
    "A program.",
    {
        "inner": Group("A group.", {"add": Command(add, "Add.")}),
        "fail": Command(fail),
        "end": Command(end),
        "paint": Command(paint, "Paint things."),
        "beyond": Command(beyond),
        "elsewhere": Command("no_such_module:command", "A command that cannot be imported."),
    },
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a small program in this process; gives its status, stdout and stderr."""

    def start(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            command_line.main(ROOT, arguments, version=lambda: "one 1.0")
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return start


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inner", "add"], "missing argument 'name'"),
        (["inner", "add", "x", "--count", "-1"], "'--count'"),
        (["inner", "add", "x", "--count", "10"], "'--count'"),
        (["inner", "add", "x", "--count", "many"], "'--count'"),
        (["inner", "add", "x", "--count"], "'--count'"),
        (["inner", "add", "x", "y"], "y"),
        (["inner", "add", "x", "--nope"], "--nope"),
        (["inner", "add", "x", "--flag=yes"], "--flag"),
        (["inner", "take"], "'take'"),
        (["outer"], "'outer'"),
        ([""], "''"),
        (["a\nb\x1b[31m"], "no such command"),
        (["inner", "add", "x", "--no\npe"], "no such option"),
        ([os.fsdecode(b"\xff\xfe")], "is not UTF-8"),
        (["inner", "add", os.fsdecode(b"caf\xe9")], r"'caf\udce9' is not UTF-8"),
    ],
)
def test_a_wrong_command_line_is_one_line(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("wiresum: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert err.strip().isprintable()
    assert words in err


def test_the_error_line_names_the_help_command(run: Run) -> None:
    _, _, err = run("inner", "add", "x", "--nope")
    assert "inner add --help`" in err


def test_a_group_alone_shows_its_help(run: Run) -> None:
    status, out, err = run("inner")
    assert (status, err) == (2, "")
    assert "add" in out
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    assert "inner" in out


def test_statuses(run: Run) -> None:
    assert run("inner", "add", "x", "--count", "3") == (0, "added x 3\n", "")
    assert run("end", "7") == (7, "", "")
    assert run("end", "0") == (0, "", "")
    assert run("end", "interrupted")[0] == 130


def test_options_become_values_of_their_types(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("paint", "wall") == (0, "['wall'] Colour.RED 1.0 None None False 0\n", "")
    given = ["--colour", "blue", "--coats=2", "--over", "a", "--over", "b", "--dry", "-f"]
    status, out, _ = run("paint", *given, "door", "gate", "--secret", "3")
    assert status == 0
    over = f"[{Path('a')!r}, {Path('b')!r}]"
    assert out == f"['door', 'gate'] Colour.BLUE 2.0 {over} False True 3\n"
    monkeypatch.setenv("TEST_COLOUR", "blue")
    assert "Colour.BLUE" in run("paint", "wall")[1]
    assert "Colour.RED" in run("paint", "wall", "--colour", "red")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], "missing argument 'things...'"),
        (["paint", "x", "--colour", "green"], "'--colour'"),
        (["paint", "x", "--coats", "nan"], "nan is not in the range 0.5<=x<=3"),
        (["paint", "x", "--coats", "inf"], "inf is not in the range 0.5<=x<=3"),
    ],
)
def test_wrong_option_values_are_refused(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_the_usage_line_shows_where_the_rest_goes(run: Run) -> None:
    for name, usage in (
        ("end", "wiresum end [OPTIONS] how -- COMMAND [ARGS]..."),
        ("beyond", "wiresum beyond [OPTIONS] node -- COMMAND [ARGS]..."),
        ("fail", "wiresum fail [OPTIONS] text"),
    ):
        _, out, _ = run(name, "--help")
        assert out.splitlines()[0] == f"Usage: {usage}"


def test_help(run: Run) -> None:
    status, out, err = run("paint", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("Usage: wiresum paint [OPTIONS] things...\n\n  Paint things.\n")
    assert "In one colour." in out
    assert "[env var: TEST_COLOUR; default: red]" in " ".join(out.split())
    assert "--wet / --dry" in out
    assert "secret" not in out
    # A group's help needs none of its commands.
    assert "A command that cannot be imported." in run("--help")[1]
    assert run("--version") == (0, "one 1.0\n", "")


def test_words_that_belong_to_another_program(run: Run) -> None:
    assert run("beyond", "w0", "--name", "x", "--", "ls", "-l") == (
        0, "w0 x ['ls', '-l']\n", "",
    )  # fmt: skip
    assert run("beyond", "w0", "ls", "-l") == (0, "w0 n ['ls', '-l']\n", "")


def test_arguments_of_other_programs_are_not_checked(run: Run) -> None:
    assert run("end", "0", "--", os.fsdecode(b"\xff"))[0] == 0


@pytest.mark.parametrize("text", ["a\nb", "a\r\n\tb", " a  b\n", "a\u2028b"])
def test_an_error_is_one_line_whatever_it_quotes(run: Run, text: str) -> None:
    assert run("fail", text) == (1, "", "wiresum: a b\n")


def test_unprintable_characters_are_escaped() -> None:
    assert logs.one_line("\x1b[31mred\x07 \udcff é…") == r"\x1b[31mred\x07 \udcff é…"


def test_an_error_in_the_format_of_the_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_format", "json")
    status, _, err = run("inner", "add", "x", "--nope")
    told = json.loads(err)
    assert (status, told["exit_code"], told["error"]) == (2, 2, "UsageError")
    assert "--nope" in told["message"]
