"""The commands of the page on many hosts, and of the README's block, are commands."""

import re
import shlex
from pathlib import Path

import click
import pytest

from wiresum.cli import main
from wiresum.common.command_line import Command, Group
from wiresum.common.command_line.build import build
from wiresum.host_agent.launcher.rendezvous import rendezvous

ROOT = Path(__file__).parents[2]
PLACES = {
    "docs/many-hosts.md": ROOT / "docs" / "many-hosts.md",
    "README.md": ROOT / "README.md",
}


def commands(text: str) -> list[list[str]]:
    """The commands of wiresum in a page's blocks, in words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [each for each in words if each[:1] == ["wiresum"]]


def of_many_hosts(place: str) -> list[list[str]]:
    text = PLACES[place].read_text()
    if place == "README.md":
        text = text.partition("On several hosts")[2].partition("docs/many-hosts.md")[0]
    return commands(text)


@pytest.mark.parametrize("place", PLACES)
def test_every_command_is_one_of_wiresums_with_its_options(place: str) -> None:
    found = of_many_hosts(place)
    assert {tuple(words[1:3])[: 1 + (words[1] != "run")] for words in found} >= {
        ("switch", "serve"), ("controller", "serve"), ("switch", "add"), ("run",),
    }  # fmt: skip
    for words in found:
        entry: Command | Group = main.ROOT
        left = words[1:]
        while not isinstance(entry, Command):
            entry, left = entry.commands[left[0]], left[1:]
        with build(" ".join(words[:2]), entry).make_context("wiresum", list(left)):
            assert click.get_current_context().params


@pytest.mark.parametrize("place", PLACES)
def test_the_launcher_understands_the_torchrun_of_the_page(place: str) -> None:
    (run,) = [words for words in of_many_hosts(place) if words[1] == "run"]
    meeting = rendezvous(run[run.index("--") + 1 :], {})
    assert meeting is not None
    assert meeting.place.endswith(":29500")
