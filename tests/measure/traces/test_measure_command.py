"""``wiresum measure --trace``: its table, its JSON, its error lines."""

import gzip
import json
import subprocess
import sys

import pytest

from support.traces import Trace
from wiresum.cli.main import ROOT
from wiresum.common import command_line
from wiresum.measure.traces import load


@pytest.fixture
def measure(capsys):
    """Run the command in this process: its status and what it wrote to stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command_line.main(ROOT, ["measure", *map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def traces(tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    for rank in (0, 1):
        trace = Trace(rank, 2, clock=777.0 * rank)
        for step in range(3):
            at = 1000 * step
            trace.step(step, at, at + 1000).op(at, at + 600)
            trace.gloo(at + 500 + 50 * rank, at + 900, 262144)
        trace.write(folder / f"rank{rank}.json")
    return folder


def test_the_table_and_the_json_have_the_same_figures(measure, traces, tmp_path):
    status, out, err = measure("--trace", traces, "--json", tmp_path / "new" / "report.json")
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["exposed_share"] == pytest.approx(0.3)
    assert report["ranks"][1]["late_share"] == 1
    assert report["median"]["total_time"] == pytest.approx(1.0)
    assert report["collectives"][0]["bytes_per_step"] == 1 << 20
    assert report["verdict"] in out
    for words in ("30.0 %", "1 MiB", "all_reduce", "float32", "group0 of 2 ranks", "median"):
        assert words in out


def test_the_page_is_written_beside_the_table(measure, traces, tmp_path):
    status, out, err = measure("--trace", traces, "--html", tmp_path / "page.html")
    assert (status, err) == (0, "")
    assert "30.0 %" in out
    assert "<strong>30.0 %</strong>" in (tmp_path / "page.html").read_text()


def test_its_own_report_may_lie_beside_the_traces(measure, traces):
    for _ in range(2):
        assert measure("--trace", traces, "--json", traces / "report.json")[0] == 0


def test_it_needs_neither_torch_nor_numpy(traces):
    code = (
        "import sys; sys.modules.update(torch=None, numpy=None)\n"
        "from wiresum.cli.main import main\n"
        f"sys.argv = ['wiresum', 'measure', '--trace', {str(traces)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def broken(folder, name: str, content: bytes):
    (folder / name).write_bytes(content)


def damaged(packed: bytes) -> bytes:
    return packed[:12] + bytes(255 - each for each in packed[12:-8]) + packed[-8:]


BAD = {
    "no trace": (lambda f: [p.unlink() for p in f.iterdir()], "has no *.json or *.json.gz"),
    "text": (lambda f: broken(f, "rank2.json", b"hello"), "it is not JSON"),
    "other json": (lambda f: broken(f, "rank2.json", b"[1, 2]"), "it has no list traceEvents"),
    "a cut gzip": (
        lambda f: broken(f, "rank2.json.gz", gzip.compress(b"[" * 99)[:-12]),
        "its gzip data is damaged",
    ),
    "damaged gzip data": (
        lambda f: broken(f, "rank2.json.gz", damaged(gzip.compress(b'{"traceEvents": []}'))),
        "its gzip data is damaged",
    ),
    "a time out of range": (
        lambda f: Trace(2, 2).gloo(0, 1e300).write(f / "rank2.json"),
        "a value that makes no sense (a time out of range)",
    ),
    "an event without a time": (
        lambda f: broken(f, "rank2.json", b'{"traceEvents": [{"ph": "X"}]}'),
        "an event has no 'ts'",
    ),
    "no collective within a step": (
        lambda f: [
            Trace(rank, 2).step(1, 10, 20).gloo(0, 5).write(f / f"rank{rank}.json")
            for rank in (0, 1)
        ],
        "no collective of nccl, gloo or wiresum in their steps",
    ),
    "a nested bomb": (lambda f: broken(f, "rank2.json", b"[" * 200_000), "rank2.json"),
    "an odd event": (
        lambda f: broken(f, "rank2.json", b'{"traceEvents": [{"ph": "X", "ts": "now"}]}'),
        "an event has",
    ),
    "a rank twice": (lambda f: Trace(1, 2).gloo(0, 9).write(f / "z.json"), "both of rank 1"),
    "another job": (lambda f: Trace(2, 8).gloo(0, 9).write(f / "z.json"), "of one of 8"),
    "no rank": (
        lambda f: broken(f, "z.json", b'{"traceEvents": []}'),
        "name the files rank0.json",
    ),
    "no collective": (
        lambda f: [Trace(rank, 2).op(0, 9).write(f / f"rank{rank}.json") for rank in (0, 1)],
        "no collective of nccl, gloo or wiresum",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_traces_are_one_line(measure, traces, fault):
    spoil, words = BAD[fault]
    spoil(traces)
    status, out, err = measure("--trace", traces)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("wiresum: ")
    assert words in err


def test_a_file_that_unpacks_to_more_than_memory_holds_is_one_line(measure, tmp_path, monkeypatch):
    (tmp_path / "rank0.json.gz").write_bytes(gzip.compress(b" " * (8 << 20)))
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4096}  # 16 MiB; a quarter is the most
    monkeypatch.setattr(load.os, "sysconf", pages.__getitem__)
    status, out, err = measure("--trace", tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "needs more memory than this machine has" in err


def test_names_in_a_trace_are_shown_as_they_are_and_control_nothing(measure, tmp_path):
    name = "[bold red]:smiley: \x1b[2J\u202e\n</table>"
    trace = Trace(0, 1).step(1, 0, 1000).op(0, 600).gloo(100, 900, kind=name)
    trace.extra["distributedInfo"]["pg_config"][0]["pg_desc"] = name
    trace.write(tmp_path / "rank0.json")
    status, out, _ = measure("--trace", tmp_path, "--html", tmp_path / "page.html")
    assert status == 0
    page = (tmp_path / "page.html").read_text()
    for text in (out, page):
        assert "[bold red]:smiley:" in text
        assert not {"\x1b", "\u202e"} & set(text)
    assert "&lt;/table&gt;" in page


def test_a_report_that_cannot_be_written_is_one_line(measure, traces, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = measure("--trace", traces, "--json", tmp_path / "file" / "report.json")
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot write" in err


@pytest.mark.parametrize(
    "arguments", [(), ("--trace", "a", "--", "true"), ("--trace", "a", "--keep", "b")], ids=str
)
def test_neither_a_job_nor_traces_or_both_is_one_line(measure, arguments):
    status, out, err = measure(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "measure needs one job" in err
