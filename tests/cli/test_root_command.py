"""The root command: its commands, and its error lines."""

import inspect
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from wiresum.cli.main import ROOT
from wiresum.common import command_line
from wiresum.common.command_line import Command, Group
from wiresum.common.command_line.build import build


def wiresum(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wiresum.cli.main", *arguments],
        capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


UDP = "1=udp:127.0.0.1:0"
COMMANDS = [
    ("run",), ("demo",), ("slots",), ("top",), ("controller", "serve"), ("switch", "serve"),
    ("switch", "add"), ("switch", "deploy"), ("switch", "list"), ("switch", "remove"),
    ("switch", "drain"),
    ("switch", "undrain"), ("controller", "certificate"), ("tenant", "add"), ("tenant", "list"),
    ("tenant", "set"), ("tenant", "rotate"), ("tenant", "remove"), ("job", "evict"),
    ("job", "park"), ("job", "unpark"),
    ("job", "list"), ("job", "show"), ("testbed", "up"), ("testbed", "down"), ("testbed", "exec"),
    ("testbed", "doctor"),
    ("testbed", "train"), ("testbed", "soak"), ("testbed", "conformance"), ("bench", "allreduce"),
    ("bench", "flood"),
    ("bench", "switch"), ("bench", "engine"), ("bench", "report"), ("pcap",), ("measure",),
    ("advise",), ("plan",), ("trial",), ("bench", "advise"), ("codec", "list"),
    ("bench", "accuracy"), ("bench", "collectives"), ("bench", "fsdp"), ("bench", "train"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    done = wiresum(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def ended(capsys, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process: for command lines that are refused before they run."""
    with pytest.raises(SystemExit) as end:
        command_line.main(ROOT, arguments)
    out, err = capsys.readouterr()
    return end.value.code, out, err


def entries(entry: Command | Group, *path: str) -> Iterator[tuple[tuple[str, ...], Command]]:
    """All commands, each with its words."""
    if isinstance(entry, Command):
        yield path, entry
        return
    for name, inner in entry.commands.items():
        yield from entries(inner, *path, name)


def test_the_list_of_commands_is_complete():
    assert set(COMMANDS) == {path for path, _ in entries(ROOT)}


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=" ".join(path)) for path, command in entries(ROOT)]
)
def test_the_help_of_a_group_repeats_the_commands_first_line(command: Command):
    first = (inspect.getdoc(command.load()) or "").split("\n\n")[0]
    assert command.help == " ".join(first.split())


# `testbed exec` takes unknown words as the command to run.
STRICT = [command for command in COMMANDS if command != ("testbed", "exec")]


@pytest.mark.parametrize("command", STRICT, ids=" ".join)
def test_an_unknown_option_is_one_line(command, capsys):
    status, out, err = ended(capsys, *command, "--no-such-option")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("wiresum: no such option: --no-such-option")


@pytest.mark.parametrize(
    "command", [("switch", "list"), ("tenant", "list"), ("job", "list"), ("slots",), ("top",)]
)
def test_every_list_can_be_had_as_json(command):
    options = build("wiresum", ROOT)
    for word in command:
        options = options.get_command(click.Context(options), word)
    assert any("--json" in option.opts for option in options.params)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tenant", "add"), "'name'"),
        (("tenant", "add", "x", "--slots", "-1"), "'--slots'"),
        (("tenant", "add", "x", "--slots", "99999999999"), "'--slots'"),
        (("tenant", "add", "x", "--priority", "1001"), "'--priority'"),
        (("tenant", "set", "x"), "nothing to set"),
        (("tenant", "set", "x", "--jobs", "many"), "'--jobs'"),
        (("tenant", "list", "x"), "x"),
        (("switch", "add", "s"), "missing option"),
        (("switch", "add", "s", "--p4runtime", "h:1", "--address", "h", "--host", "x"), "'h'"),
        (("switch", "add", "s", "--device-id", str(1 << 64)), "'--device-id'"),
        (("switch", "add", "s", "--lanes", "99999999999"), "'--lanes'"),
        (("switch", "frobnicate"), "'frobnicate'"),
        (("job", "show"), "'job'"),
        (("job", "list", "--controller", "a\nb:1"), r"'a\nb:1'"),
        (("job", "list", "--controller", "h:" + "1" * 5000), "'h:111"),
        (("job", "list", "--token-file", "/no/file"), "/no/file"),
        (("slots", "--token-file", "/"), "directory"),
        (("top", "--interval", "inf"), "'--interval'"),
        (("top", "--interval", "nan"), "'--interval'"),
        (("run", "--slots", "99999999999", "--", "true"), "'--slots'"),
        (("controller", "serve", "--expiry", "0"), "'--expiry'"),
        (("x\x1b[31m",), "no such command"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(arguments, words, capsys):
    status, out, err = ended(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("wiresum: ")
    assert err.strip().isprintable()
    assert words in err


def test_the_version():
    done = wiresum("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("wiresum ")


# The packages that `wiresum`, its version and its help may load, beside the standard library.
LIGHT = {"wiresum", "click"}

LOADED = """
import sys
from wiresum.common import command_line
from wiresum.cli.main import ROOT, _version

try:
    command_line.main(ROOT, sys.argv[1:], version=_version)
finally:
    print("loaded", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("--help",), *((*command, "--help") for command in COMMANDS)]
    + [(group, "--help") for group, entry in ROOT.commands.items() if isinstance(entry, Group)],
    ids=" ".join,
)
def test_help_and_version_load_no_more_than_they_need(arguments):
    """No package that takes long to import: gRPC, protobuf, rich, cryptography, numpy, torch, …"""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wiresum " if arguments == ("--version",) else "Usage: wiresum")
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    foreign = loaded - {"loaded", *sys.stdlib_module_names, *LIGHT}
    assert {name for name in foreign if not name.startswith(("_", "distutils"))} == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("slots", "--controller", "nowhere"), "nowhere"),
        (("slots", "--controller", "127.0.0.1:1"), "127.0.0.1:1"),
        (("top", "--once", "--controller", "127.0.0.1:1"), "127.0.0.1:1"),
        (("run", "--log-format", "xml", "--", "true"), "xml"),
        (("switch", "serve", "--log-format", "xml"), "xml"),
        (("switch", "serve", "--metrics", "9500", "--p4runtime", "127.0.0.1:0"), "--metrics"),
        (("controller", "serve", "--log-format", "xml"), "xml"),
        (("run", "--field", "7", "--", "true"), "--field"),
        (("run",), "no command"),
        (("measure",), "--trace"),
        (("measure", "--", "true"), "no process of the command"),
        (("measure", "--trace", "/no/folder"), "/no/folder"),
        (("bench", "switch", "--against", "abacus"), "abacus"),
        (("switch", "serve", "--port", "1=carrier-pigeon:x"), "carrier-pigeon"),
        (("switch", "serve", "--port", UDP, "--program", "/no/file.json"), "/no/file.json"),
        (("switch", "serve", "--port", UDP, "--lanes", "96"), "96"),
        (("switch", "serve", "--port", UDP, "--program", "/"), "directory"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_without_a_traceback(arguments, words):
    done = wiresum(*arguments)
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("wiresum: ")
    assert words in lines[0]
