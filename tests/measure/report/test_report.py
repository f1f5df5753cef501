"""Pages and plots from the benchmarks' JSON."""

import json
import shutil
from pathlib import Path

import pytest

from support.command_lines import ROOT, shell_lines
from wiresum.cli.main import ROOT as wiresum
from wiresum.common import command_line
from wiresum.measure.page import END, put
from wiresum.measure.report import markdown, plot
from wiresum.measure.report.load import load
from wiresum.measure.report.markdown import BEGIN
from wiresum.testbed.errors import RackError

DOCS = Path(__file__).parents[3] / "docs"
MACHINE = {"cores": 2, "model": "a processor", "kernel": "6.0", "python": "3.11"}


def sample(seconds: float, sent: float = 1e6) -> dict[str, object]:
    return {
        "ops": 1, "seconds": seconds, "sent": [sent], "received": [sent],
        "cpu": {"workers": [0.1, 0.1], "switch": 0.2, "machine": 1.0},
        "retransmissions": 0, "lost": 0, "now": {},
    }  # fmt: skip


def entry(rate: float | None, loss: float | None, workers: int, narrow: float) -> dict[str, object]:
    return {
        "rate_mbit": rate, "loss": loss, "workers": workers, "size": 25 << 20,
        "samples": {
            "32": [sample(0.30), sample(0.32), sample(0.31)],
            "8": [sample(narrow)] * 3,
            "gloo-bbr": [sample(0.25, 2e6)] * 3,
        },
    }  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    head = {"version": "0", "machine": MACHINE}
    cases = [
        entry(1000.0, None, 2, 0.1),
        entry(1000.0, 0.0, 2, 0.125),
        entry(1000.0, None, 8, 0.105),
        entry(1000.0, 0.01, 2, 0.15625),
        entry(None, None, 2, 0.05),
    ]
    alone = {
        "memory": [9e6, 8e6, 10e6],
        "sockets": {
            "switch": [{"rate": 3e6, "cpu_target": 0.3, "cpu_load": 0.2}],
            "kernel": [{"rate": 4e6, "cpu_target": 0.2, "cpu_load": 0.2}],
        },
    }
    racks = {"switches": {"softswitch": {}, "BMv2": {}}, "ratios": [40.0, 42.0, 41.0]}
    parts = ("exponents", "quantize", "encode", "dequantize", "copy_in", "copy_out", "copy")
    timed = {part: [2.0, 4.0] for part in parts} | {"copy_in": [1.0, 1.0]}
    contents = {
        "allreduce": {"options": {"mtu": 1500, "tcp": ["bbr"]}, "cases": cases},
        "switch": {"lanes": 256, "workers": 4, "alone": alone, "racks": racks},
        "engine": {
            "size": 25 << 20,
            "workers": 4,
            "entries": [{"isa": "avx2", "field": 8, "dtype": "float32", "seconds": timed}],
        },
    }
    paths = []
    for kind, content in contents.items():
        path = tmp_path / f"{kind}.json"
        path.write_text(json.dumps({"kind": kind, **head, **content}))
        paths.append(path)
    return paths


def test_tables(files: list[Path]) -> None:
    page = markdown.page(load(files))
    rows = {tuple(map(str.strip, line.strip("|").split("|"))) for line in page.splitlines()}

    def row(*cells: str) -> tuple[str, ...]:
        (found,) = (each for each in rows if each[: len(cells)] == cells)
        return found[len(cells) :]

    assert "2 cores of a processor" in page
    assert "gloo over TCP with bbr" in page
    # The case that is lost is there, and marked.
    assert row("2", "25 MiB", "**0.81 (0.78–0.83)**", "2.50 (2.50–2.50)")[-1] == "88 %"
    assert row("2", "25 MiB", "**0.81 (0.78–0.83)**", "5.00 (5.00–5.00)") == ()
    assert row("1 Gbit/s", "2", "25 MiB", "0.50") == ("0.50", "1.00", "1.00")
    # What loss costs, and what cutting trains costs before any frame is lost.
    for lost in ("0 %", "1 %"):
        assert row("1 Gbit/s", "2", "25 MiB", lost)[:3] == ("100 %", "80 %", "100 %")
    assert row("1 Gbit/s", "25 MiB", "2 → 8") == ("+0 %", "+5 %", "+0 %")
    assert row("over sockets, share of what a reflector moves") == ("75 % (75–75)",)
    assert row("on raw ports, times as many chunks as BMv2") == ("41.0 (40.0–42.0)",)
    assert row("avx2", "8", "float32") == ("38 % (25 %)", "38 % (25 %)", "100 % (100 %)")
    assert " ms" not in page


def test_a_page_keeps_what_others_have_written(files: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    put(page, "old tables\n", "Title", BEGIN)
    page.write_text("Before.\n" + page.read_text() + "After.\n")
    put(page, "new tables\n", "Title", BEGIN)
    text = page.read_text()
    assert text.startswith("Before.\n# Title\n")
    assert text.endswith(END + "\nAfter.\n")
    assert "new tables" in text
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(RackError, match="has no line"):
        put(page, "tables", "Title", BEGIN)
    assert page.read_text() == "no marks"


def test_files_that_are_no_results(files: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for content in ("{", "[]", '{"kind": 1}', files[0].read_text().replace("cases", "cake")):
        other.write_text(content)
        with pytest.raises(RackError, match="is not from"):
            load([*files, other])
    with pytest.raises(RackError, match="cannot read"):
        load([tmp_path / "nowhere.json"])
    other.write_text(files[0].read_text())
    with pytest.raises(RackError, match="leave one of them out"):
        load([*files, other])


def test_a_plot(files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    measured = load(files)
    first, again = tmp_path / "one.png", tmp_path / "two.png"
    plot.plot(measured, first)
    plot.plot(measured, again)
    assert first.read_bytes().startswith(b"\x89PNG")
    assert first.read_bytes() == again.read_bytes()
    with pytest.raises(RackError, match="none of the files"):
        plot.plot(load(files[1:]), first)


def commands(page: Path, name: str) -> list[list[str]]:
    """The page's commands of ``bench NAME``, in words; a pattern is the files that it matches."""
    found = []
    for line in shell_lines():
        if ROOT / line.page == page and line.words[:3] == ("wiresum", "bench", name):
            words = []
            for word in line.words[1:]:
                words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
            found.append(words)
    return found


@pytest.mark.parametrize(
    "name", ["performance.md", "performance-ranks.md", "performance-collectives.md"]
)
def test_the_documented_commands_make_the_pages_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "docs" / name
    text = page.read_text()
    page.write_text(text.partition(BEGIN)[0] + BEGIN + "\n" + END + text.partition(END)[2])
    (words,) = commands(DOCS / name, "report")
    with pytest.raises(SystemExit) as end:
        command_line.main(wiresum, words)
    assert end.value.code == 0
    assert page.read_text() == text
    for words in commands(DOCS / name, "engine"):
        with pytest.raises(SystemExit) as end:
            command_line.main(wiresum, [*words, "--size", "64KiB", "--repeat", "2"])
        assert end.value.code == 0
        assert load([tmp_path / words[-1]])
