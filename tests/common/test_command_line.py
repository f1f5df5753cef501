"""How a command line ends: one line on stderr and a status, whatever it was given."""

import json
import os
from collections.abc import Callable
from typing import Annotated

import pytest
import typer

from wiresum.common import command_line, logs
from wiresum.common.errors import WiresumError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a small program in this process; gives its status, stdout and stderr."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    inner = typer.Typer(no_args_is_help=True)
    app.add_typer(inner, name="inner")

    @app.callback()
    def root() -> None:
        """A program."""

    @inner.command("add")
    def add(
        name: str, count: Annotated[int, typer.Option(min=0, max=9)] = 0, flag: bool = False
    ) -> None:
        print(f"added {name} {count}")

    @app.command("fail")
    def fail(text: str) -> None:
        raise WiresumError(text)

    @app.command("end", context_settings={"allow_extra_args": True})
    def end(how: str) -> None:
        if how == "interrupted":
            raise KeyboardInterrupt
        if how == "aborted":
            raise typer.Abort
        raise typer.Exit(int(how))

    def start(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            command_line.main(app, arguments)
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
def test_what_cannot_be_meant_is_one_line(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("wiresum: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert err.strip().isprintable()
    assert words in err


def test_the_line_says_where_help_is(run: Run) -> None:
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
    assert run("end", "aborted")[0] == 130


def test_arguments_of_other_programs_are_their_business(run: Run) -> None:
    assert run("end", "0", "--", os.fsdecode(b"\xff"))[0] == 0


@pytest.mark.parametrize("text", ["a\nb", "a\r\n\tb", " a  b\n", "a\u2028b"])
def test_an_error_is_one_line_whatever_it_quotes(run: Run, text: str) -> None:
    assert run("fail", text) == (1, "", "wiresum: a b\n")


def test_what_would_not_print_is_shown_as_what_it_is() -> None:
    assert logs.one_line("\x1b[31mred\x07 \udcff é…") == r"\x1b[31mred\x07 \udcff é…"


def test_an_error_in_the_format_of_the_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_format", "json")
    status, _, err = run("inner", "add", "x", "--nope")
    told = json.loads(err)
    assert (status, told["exit_code"], told["error"]) == (2, 2, "UsageError")
    assert "--nope" in told["message"]
