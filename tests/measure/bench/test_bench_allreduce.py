"""``wiresum bench allreduce`` from end to end, on links of its own."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.rack_process import LIMIT_S, namespaces, wait_for
from wiresum.measure.model import limits
from wiresum.testbed import state

pytestmark = pytest.mark.root

TINY = ("--workers", "2", "--sizes", "64KiB", "--repeat", "1", "--quiet")


@pytest.fixture
def bench_name(cli: Commands) -> Iterator[str]:
    """The name of the benchmark's network, which is gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [tool for tool in ("ip", "tc", "ethtool", "sysctl") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on PATH")
    chosen = f"test-{os.getpid()}"
    yield chosen
    cli.run("testbed", "down", "--name", chosen)
    assert namespaces(chosen) == []


@pytest.mark.slow
def test_both_sides_on_the_same_links(cli: Commands, bench_name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "bench.json"
    done = cli.run(
        "bench", "allreduce", "--name", bench_name, "--workers", "2,3", "--sizes", "64KiB",
        "--rate", "100mbit,none", "--field", "32,8", "--repeat", "2", "--json", str(file),
        limit_s=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "round 2 of 2" in done.stderr
    assert "reached" in done.stdout
    assert namespaces(bench_name) == []
    content = json.loads(file.read_text())
    (tcp,) = content["options"]["tcp"]
    assert len(content["cases"]) == 4
    for case in content["cases"]:
        assert set(case["samples"]) == {"32", "8", f"gloo-{tcp}"}
        for key, samples in case["samples"].items():
            assert len(samples) == 2
            for sample in samples:
                check_sample(case, key, sample)


def check_sample(case: dict[str, Any], key: str, sample: dict[str, Any]) -> None:
    """All links were used, all bytes were counted, and no link was faster than its rate."""
    size, workers = case["size"], case["workers"]
    if key.startswith("gloo"):
        least = 2 * (workers - 1) / workers * size
    else:
        least = limits.wiresum_bytes(size, int(key))
    assert len(sample["sent"]) == len(sample["received"]) == workers
    for sent, received in zip(sample["sent"], sample["received"], strict=True):
        assert least * 0.99 <= sent <= least * 1.6, (key, case)
        assert least * 0.99 <= received <= least * 1.6, (key, case)
    assert sample["seconds"] > 0
    if case["rate_mbit"] is not None:
        ahead = 64 * 1024 / sample["ops"]
        assert sample["seconds"] * 1.005 >= limits.seconds(
            max(sample["sent"]) - ahead, case["rate_mbit"]
        )
    assert len(sample["cpu"]["workers"]) == workers
    assert sum(sample["cpu"]["workers"]) > 0


def test_loss_of_single_frames(cli: Commands, bench_name: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = cli.run(
        "bench", "allreduce", "--name", bench_name, *TINY, "--rate", "none", "--field", "16",
        "--loss", "none,0,2%", "--against", "none", "--json", str(file),
    )  # fmt: skip
    if "runs XDP programs" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    whole, cut, lossy = (case["samples"]["16"][0] for case in json.loads(file.read_text())["cases"])
    assert whole["lost"] == cut["lost"] == 0
    assert lossy["lost"] > 0
    assert lossy["retransmissions"] > 0
    chunks = 2 * 2 * 64 * 1024 / 2 / 1024  # both ways, on both links
    assert 0.3 * 0.02 < lossy["lost"] / chunks < 3 * 0.02


@pytest.mark.slow
def test_rounds_are_added(cli: Commands, bench_name: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    common = (
        "bench", "allreduce", "--name", bench_name, *TINY, "--rate", "none", "--against", "none",
        "--json", str(file), "--append",
    )  # fmt: skip
    for rounds in (1, 2):
        done = cli.run(*common, "--field", "8")
        assert done.returncode == 0, done.stderr
        (case,) = json.loads(file.read_text())["cases"]
        assert len(case["samples"]["8"]) == rounds
    other = cli.run(*common, "--field", "16")
    assert other.returncode == 1
    assert "other options" in other.stderr


def test_a_wrong_result_fails_the_command(cli: Commands, bench_name: str) -> None:
    done = cli.run(
        "bench", "allreduce", "--name", bench_name, *TINY, "--rate", "none", "--field", "32",
        "--against", "none", "--spoil",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("have different results")
    assert len(done.stderr.splitlines()) == 1


def test_after_a_crash(cli: Commands, bench_name: str) -> None:
    process = cli.start(
        "bench", "allreduce", "--name", bench_name, *TINY[:-3], "--repeat", "1000",
        "--rate", "none", "--against", "none",
    )  # fmt: skip
    wait_for(lambda: "controller" in processes_of(bench_name), "the start", LIMIT_S)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    assert len(namespaces(bench_name)) == 3  # what a crash leaves
    done = cli.run("testbed", "down", "--name", bench_name)
    assert done.returncode == 0, done.stderr
    assert namespaces(bench_name) == []
    assert not cli.left_behind()


def processes_of(name: str) -> dict[str, Any]:
    """What is on record; tests share the machine's records, which the commands use."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((state.folder_of(name) / "rack.json").read_text())["processes"])
    time.sleep(0.05)
    return {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rate", "fast"), "--rate"),
        (("--against", "nccl"), "gloo or none"),
        (("--transport", "pigeon"), "--transport"),
        (("--lanes", "63"), "lanes"),
    ],
)
def test_unusable_options_are_refused(options: tuple[str, str], words: str, cli: Commands) -> None:
    done = cli.run("bench", "allreduce", *options)
    assert done.returncode != 0
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
