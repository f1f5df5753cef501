"""``wiresum bench collectives``: from end to end on links of its own, and its parts without any."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.processes import Commands
from support.rack_process import namespaces
from wiresum.measure.bench import data
from wiresum.measure.bench.collectives import bench, options, results
from wiresum.measure.bench.collectives.kinds import KINDS
from wiresum.measure.bench.collectives.options import Case, Options
from wiresum.measure.model import limits
from wiresum.measure.report.load import load
from wiresum.measure.report.markdown import page
from wiresum.testbed.errors import RackError, RackUsageError

MIB = 1 << 20


@pytest.fixture
def bench_name(cli: Commands) -> Iterator[str]:
    """The name of the benchmark's network, which is gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [tool for tool in ("ip", "tc", "ethtool", "sysctl") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on PATH")
    pytest.importorskip("torch")
    chosen = f"testc-{os.getpid()}"
    yield chosen
    cli.run("testbed", "down", "--name", chosen)
    assert namespaces(chosen) == []


@pytest.mark.root
@pytest.mark.slow
def test_every_collective_is_right_on_every_side(
    cli: Commands, bench_name: str, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    done = cli.run(
        "bench", "collectives", "--name", bench_name, "--workers", "3", "--sizes", "48KiB",
        "--rate", "none", "--field", "32,8", "--repeat", "1", "--ops", "2", "--json", str(file),
        "--quiet", limit_s=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert namespaces(bench_name) == []
    content = json.loads(file.read_text())
    (tcp,) = content["options"]["tcp"]
    assert [case["collective"] for case in content["cases"]] == list(KINDS)
    for case in content["cases"]:
        kind = KINDS[case["collective"]]
        own = {"32", "8", "32-ranks", "8-ranks"} if kind.sums else {"32"}
        assert set(case["samples"]) == own | {f"gloo-{tcp}"}
        size = case["size"] // 12 * 12
        for key, (sample,) in case["samples"].items():
            assert sample["wrong"] == 0
            if key == "32":
                least = kind.switch_bytes(size, 3, 32, 1500)
                most = max(*sample["sent"], *sample["received"])
                assert 0.99 * least <= most <= 1.5 * least + 4096, case
    text = page(load([file]))
    assert "| reduce_scatter_tensor | 48 KiB |" in text
    assert "| both | 48 KiB | F = 8, the ranks |" in text


@pytest.mark.root
def test_a_wrong_result_is_counted_and_fails_the_command(cli: Commands, bench_name: str) -> None:
    done = cli.run(
        "bench", "collectives", "--name", bench_name, "--workers", "2", "--sizes", "8B",
        "--rate", "none", "--field", "16", "--carrier", "switch", "--collectives",
        "all_reduce,broadcast,barrier", "--latency", "--ops", "3", "--repeat", "1", "--spoil",
        "--against", "none", "--quiet",
    )  # fmt: skip
    assert done.returncode == 1
    assert "element 1 of 2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "p99" in done.stdout
    wrong = [
        line.rstrip("│┃ \n").split()[-1] for line in done.stdout.splitlines() if "F = 16" in line
    ]
    assert wrong == ["1", "1", "0"]


@pytest.mark.root
@pytest.mark.slow
def test_a_step_under_fsdp_costs_what_its_bytes_say(
    cli: Commands, bench_name: str, tmp_path: Path
) -> None:
    file = tmp_path / "fsdp.json"
    done = cli.run(
        "bench", "fsdp", "--name", bench_name, "--workers", "2", "--rate", "none", "--field", "16",
        "--repeat", "1", "--json", str(file), "--quiet", limit_s=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert content["parameters"] == pytest.approx(25e6, rel=0.05)
    tensor = 4 * content["parameters"]
    own, gloo = ({key: each for key, (each,) in content["samples"].items()}[key]
                 for key in sorted(content["samples"]))  # fmt: skip
    # Two all-gathers of a half each, and a reduce-scatter: half a tensor of narrow fields.
    assert 1.4 * tensor < max(own["sent"]) < 1.8 * tensor
    assert max(gloo["sent"]) > 1.15 * max(own["sent"])
    assert own["loss"] == pytest.approx(gloo["loss"], rel=0.01)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--collectives", "all_gossip"), "--collectives"),
        (("--against", "nccl"), "gloo or none"),
        (("--carrier", "ranks", "--against", "none"), "nothing is left"),
        (("--sizes", "3B"), "--sizes"),
    ],
)
def test_unusable_options_are_refused_in_one_line(
    given: tuple[str, ...], words: str, cli: Commands
) -> None:
    done = cli.run("bench", "collectives", *given)
    assert done.returncode != 0
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


_WITHOUT = """
import sys
sys.modules["numpy"] = sys.modules["torch"] = None
from wiresum.cli.main import main
main()
"""


@pytest.mark.parametrize("name", ["collectives", "fsdp", "train", "allreduce"])
def test_without_torch_the_benchmarks_say_what_they_need(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _WITHOUT, "bench", name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    needed = "the benchmark needs numpy and torch: pip install 'wiresum[torch]'"
    assert done.stderr == f"wiresum: {needed}\n"


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "fsdp", "machine": {}},
        {"kind": "collectives", "machine": {}, "options": {"tcp": []}, "cases": [{"samples": []}]},
    ],
)
def test_a_file_that_says_too_little_is_refused_by_the_report(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(content))
    with pytest.raises(RackError, match="is not from `wiresum bench"):
        load([file])


def test_a_size_gives_each_rank_at_least_one_element() -> None:
    assert KINDS["all_gather_into_tensor"].elements(8, 4) == 4
    assert KINDS["all_gather_into_tensor"].elements(25 * MIB + 4, 4) * 4 == 25 * MIB
    assert KINDS["all_reduce"].elements(8, 4) == 2
    assert KINDS["barrier"].elements(8, 4) == 0


def test_limits_are_those_of_the_fuller_direction() -> None:
    size, mtu = 4 * MIB, 1500

    def tensors(kind: str, field: int) -> float:
        whole = limits.wiresum_bytes(size, 32)
        return KINDS[kind].switch_bytes(size, 4, field, mtu) / whole

    assert tensors("all_reduce", 16) == pytest.approx(0.5, rel=1e-3)
    assert tensors("reduce_scatter_tensor", 32) == pytest.approx(1, rel=1e-3)
    assert tensors("reduce_scatter_tensor", 8) == pytest.approx(0.25, rel=1e-3)
    for field in (32, 8):
        assert tensors("all_gather_into_tensor", field) == pytest.approx(0.75, rel=1e-3)
        assert tensors("broadcast", field) == pytest.approx(1, rel=1e-3)
    assert tensors("both", 32) == pytest.approx(1.25, rel=1e-3)  # up
    assert tensors("both", 16) == pytest.approx(0.875, rel=1e-3)  # down
    ring = KINDS["both"].ring_bytes(size, 4, mtu)
    assert ring == pytest.approx(limits.ring_bytes(size, 4), rel=1e-3)
    assert 2 * KINDS["reduce_scatter_tensor"].ring_bytes(size, 4, mtu) == pytest.approx(ring, 1e-3)


def test_copies_are_measured_on_one_side_of_the_switch_alone() -> None:
    chosen = Options(fields=(32, 8), tcp=("bbr",))
    summed, copied = Case("reduce", None, 4, MIB), Case("broadcast", None, 4, MIB)
    assert [side.key for side in chosen.sides_of(summed)] == [
        "32", "gloo-bbr", "8", "32-ranks", "8-ranks"
    ]  # fmt: skip
    assert [side.key for side in chosen.sides_of(copied)] == ["32", "gloo-bbr"]
    assert options.parse_kinds("both, barrier") == ("both", "barrier")
    for text in ("", "both,both", "all"):
        with pytest.raises(RackUsageError):
            options.parse_kinds(text)


def sample(seconds: float, wrong: int = 0) -> dict[str, Any]:
    return {
        "ops": 1, "seconds": seconds, "sent": [1e6, 5e5], "received": [1e6, 2e6], "wrong": wrong,
        "cpu": {"workers": [0.1, 0.3], "switch": 0.2, "machine": 1.0}, "retransmissions": 0,
    }  # fmt: skip


def test_bandwidths_and_ratios_are_those_of_nccl_tests() -> None:
    entry = {
        "collective": "reduce_scatter_tensor", "rate_mbit": 1000.0, "workers": 4, "size": 4 * MIB,
        "samples": {
            "16": [sample(0.02), sample(0.03, wrong=2), sample(0.025)],
            "gloo-bbr": [sample(0.1), sample(0.05), sample(0.075)],
        },
    }  # fmt: skip
    own, gloo = results.lines_of(entry, 1500)
    assert own.ratio is not None
    assert (own.ratio.median, own.ratio.low, own.ratio.high) == pytest.approx((3, 0.05 / 0.03, 5))
    assert gloo.ratio is None
    assert own.algbw == pytest.approx(4 * MIB / 0.025 / 1e9)
    assert own.busbw == pytest.approx(own.algbw * 3 / 4)
    assert own.wrong == 2
    half = limits.seconds(limits.wiresum_bytes(2 * MIB, 32), 1000)
    assert own.share == pytest.approx(half / 0.025, rel=1e-3)
    assert own.against_ring == pytest.approx(1.5 * own.share, rel=0.02)
    assert (own.sent, own.received) == (1e6, 2e6)


def test_percentiles_and_moments() -> None:
    assert results.percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert results.percentile(list(map(float, range(200))), 99) == 197.0
    times = [[(0.0, 1.0), (2.0, 3.0)], [(0.4, 0.9), (3.5, 3.6)]]
    assert bench._latencies(times) == pytest.approx([0.6, 0.1])
    assert bench._left_early(times) == 1  # rank 0 left the second before rank 1 came


def test_parts_and_copies_are_checked_from_their_first_element(tmp_path: Path) -> None:
    data.make(tmp_path / "data", 10_000, seed=3)
    made = data.Data(tmp_path / "data")
    key = (4, 0)
    mine = np.empty(3000, np.float32)
    total = np.zeros(3000, np.float32)
    for rank in range(3):
        made.contribution(key, rank, 0, mine, True)
        total += mine
    part = total[1000:2000].copy()
    assert list(made.wrong_sums(key, 3, part, True, 32, base=1000)) == []
    assert [each.elements for each in made.wrong_sums(key, 3, part, True, 32, base=999)] != []
    assert list(made.wrong_copies(key, 2, mine[500:], True, base=500)) == []
    spoilt = mine[500:].copy()
    spoilt[[3, 7]] += 1
    (wrong,) = made.wrong_copies(key, 2, spoilt, True, base=500)
    assert wrong.elements == 2
    assert "element 3 of 2500" in wrong.line
