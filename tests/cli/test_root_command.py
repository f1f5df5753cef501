"""The root command: what it mounts, and how errors look from outside."""

import subprocess
import sys

import pytest


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
    ("job", "list"), ("job", "show"), ("testbed", "up"), ("testbed", "down"), ("testbed", "exec"),
    ("testbed", "train"), ("bench", "switch"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    done = wiresum(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_version():
    done = wiresum("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("wiresum ")


def test_help_starts_without_torch():
    code = (
        "import sys, wiresum.cli.main as m; m.build(); "
        "sys.exit(', '.join({'torch', 'matplotlib'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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
        (("bench", "switch", "--against", "abacus"), "abacus"),
        (("switch", "serve", "--port", "1=carrier-pigeon:x"), "carrier-pigeon"),
        (("switch", "serve", "--port", UDP, "--program", "/no/file.json"), "/no/file.json"),
        (("switch", "serve", "--port", UDP, "--lanes", "96"), "96"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_without_a_traceback(arguments, words):
    done = wiresum(*arguments)
    assert done.returncode != 0
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("wiresum: ")
    assert words in lines[0]
