"""Command lines in the pages: they parse; a test runs each, or a reason says why none does."""

import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import click
import pytest

from support.command_lines import ROOT, Line, lines_of, mentions, shell_lines
from wiresum.cli import main
from wiresum.common.command_line import Command, Group
from wiresum.common.command_line.build import build

LINES = shell_lines()
OURS = [line for line in LINES if line.words[0] == "wiresum"]


def entry_of(words: tuple[str, ...]) -> tuple[Command | Group, list[str]]:
    """The command or group that these words name, and the words behind it."""
    entry: Command | Group = main.ROOT
    left = list(words)
    while isinstance(entry, Group) and left:
        assert left[0] in entry.commands, f"{' '.join(words)}: there is no command {left[0]!r}"
        entry = entry.commands[left.pop(0)]
    return entry, left


def table() -> dict[str, str]:
    """The patterns of command_lines.txt: each with its test, or the reason why there is none."""
    text = Path(__file__).with_name("command_lines.txt").read_text()
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {pattern: told.strip() for pattern, told in zip(rows[::2], rows[1::2], strict=True)}


def parse(line: Line) -> list[str]:
    """What is left over for another program, once wiresum has understood its own words."""
    entry, left = entry_of(line.words[1:])
    assert isinstance(entry, Command), f"{line.page}: {line} names a group"
    try:
        with build(" ".join(line.words[:3]), entry).make_context("wiresum", left) as context:
            return context.args
    except click.ClickException as error:
        pytest.fail(f"{line.page}: {line}: {error.format_message()}")


def test_every_wiresum_command_parses_and_so_does_its_torchrun() -> None:
    from torch.distributed.run import get_args_parser

    assert len(OURS) > 50
    for line in OURS:
        command = parse(line)
        if command and command[0].endswith("torchrun"):
            words = ["0" if word == "K" else word for word in command[1:]]
            known, unknown = get_args_parser().parse_known_args(words)
            assert (unknown, bool(known.training_script)) == ([], True), line


def test_every_command_in_running_text_exists_with_its_options() -> None:
    for line in mentions("wiresum"):
        words = list(line.words[1:])
        words = words[: words.index("--")] if "--" in words else words
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        path = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        if not path:
            continue
        deep = isinstance(main.ROOT.commands.get(path[0]), Group)
        entry, _ = entry_of(tuple(path[: 1 + deep]))
        if isinstance(entry, Command):
            params = build("wiresum", entry).params
            names = {each for param in params for each in (*param.opts, *param.secondary_opts)}
            assert options <= names, f"{line.page}: {line}"


def test_a_test_runs_each_line_or_a_reason_says_why_none_does() -> None:
    known, used = table(), set()
    for line in LINES:
        found = [pattern for pattern in known if fnmatchcase(str(line), pattern)]
        assert found, f"{line.page}: write into command_lines.txt who runs: {line}"
        used.add(found[0])
    assert known.keys() - used == set(), "no page has such a line (any more)"
    for told in known.values():
        file, _, function = told.partition("::")
        if told.startswith("not run: "):
            assert len(told) > len("not run: ")
        else:
            text = (ROOT / file).read_text()
            assert re.search(rf"^(async )?def {function}\(", text, re.M), f"there is no {told}"


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def targets() -> dict[str, str]:
    """What `make help` lists: targets, and what they do."""
    return dict(re.findall(r"^make (\S+) +(\S.*)$", make("help"), re.M))


def test_make_help_lists_every_target_for_users() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    inner = {"help", "build/types", "FORCE"}
    assert set(targets()) == set(phony[1].split()) - inner


def test_every_make_target_in_the_pages_exists_and_the_demos_command_parses() -> None:
    makes = [line for line in [*LINES, *mentions("make")] if line.words[0] == "make"]
    named = {target for line in makes for target in line.words[1:2]}
    assert {"demo", "test", "test-frameworks"} <= named <= {*targets(), "help"}
    (demo,) = [line for line in lines_of(make("-n", "demo")) if line.words[0] == "wiresum"]
    parse(demo)
