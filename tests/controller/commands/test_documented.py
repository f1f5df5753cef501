"""The commands for operators in the pages, run as they are written there."""

import asyncio
from pathlib import Path

import pytest
from controller_rig import ADMIN_TOKEN, Rig
from fake_switch import FakeSwitch

from support.command_lines import shell_lines
from wiresum.cli.main import ROOT
from wiresum.common import command_line

KINDS = (
    ("switch", "add"),
    ("switch", "list"),
    ("switch", "drain"),
    ("tenant",),
    ("job",),
    ("slots",),
)


def of_operators(page: str) -> list[list[str]]:
    """The page's commands that ask a controller, in their order, as words."""
    lines = [
        line.words[1:] for line in shell_lines() if line.page == page and line.words[0] == "wiresum"
    ]
    return [list(words) for words in lines if any(words[: len(kind)] == kind for kind in KINDS)]


def run(words: list[str]) -> int | str | None:
    try:
        command_line.main(ROOT, words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("page", ["README.md", "docs/many-hosts.md", "docs/operations.md"])
async def test_the_operators_commands_run_as_written(
    page: str, rig: Rig, fake: FakeSwitch, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Except for three names: the job, the switch that is added, and where its P4Runtime is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WIRESUM_CONTROLLER", rig.address)
    monkeypatch.setenv("WIRESUM_TOKEN", ADMIN_TOKEN)
    job = await rig.create("demo", slots=64, switch="s1")
    commands = of_operators(page)
    assert len(commands) >= 2
    for words in commands:
        if words[:3] == ["switch", "add", "s1"]:
            words[2] = f"s{len(rig.office.store.switches()) + 1}"
            words[words.index("--p4runtime") + 1] = f"{fake.address}-{words[2]}"
        words = [job.id if word in ("ID", "JOB") else word for word in words]
        status = await asyncio.to_thread(run, words)
        said = capsys.readouterr()
        assert (status, said.err) == (0, ""), words
        if "--save" in words:
            assert (tmp_path / words[words.index("--save") + 1]).read_text().strip()
        if words[:2] == ["job", "evict"]:
            assert (await rig.get(job)).reason
