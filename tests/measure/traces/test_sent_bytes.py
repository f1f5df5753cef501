"""What a rank sends for a message, beside what the interface counts."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.torchruns import clean_environment, finish
from support.traces import Trace
from support.training import spawned
from wiresum.measure.traces.load import read
from wiresum.measure.traces.names import sent_factor
from wiresum.measure.traces.summary import summarize

RANKS = 3
ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Runs a command in a network namespace of its own, where nothing else sends."""

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare and ip: a network namespace in which nothing else sends",
)


@pytest.mark.root
@needs_namespaces
def test_the_interface_carries_what_the_factors_of_gloos_collectives_say():
    pytest.importorskip("torch", reason="the extra `torch` is not installed")
    script = Path(__file__).with_name("counted_collectives.py")
    done = finish([*ALONE, *spawned(RANKS, "last"), str(script)], clean_environment())
    assert done.status == 0, done.output
    carried = json.loads(done.output.strip().splitlines()[-1])
    for name, found in carried.items():
        size = 200_000 * RANKS * (2 if "bfloat16" in name else 4)
        if name == "gather":
            size //= RANKS  # its message is what a rank gives
        factor = sent_factor(name.partition(" ")[0], RANKS)
        assert found == pytest.approx(RANKS * factor * size, rel=0.01), name


@given(ranks=st.integers(1, 1 << 20))
def test_no_collective_sends_more_than_an_all_reduce_which_sends_less_than_twice(ranks):
    factors = [sent_factor(kind, ranks) for kind in ("all_reduce", "all_gather", "broadcast")]
    assert all(0 <= factor <= factors[0] < 2 for factor in factors)


def test_a_report_sums_what_is_sent_and_says_when_it_is_not_known():
    def job(*kinds: str) -> float | None:
        traces = [Trace(rank, 4).step(1, 0, 1000).op(0, 500) for rank in range(4)]
        for trace in traces:
            for at, kind in enumerate(kinds):
                trace.gloo(600 + 50 * at, 640 + 50 * at, 1000, kind)
        return summarize(
            [read(each.document(), Path(f"rank{each.rank}.json")) for each in traces]
        ).sent_bytes_per_step

    assert job("all_reduce") == 6000
    assert job("all_reduce", "broadcast", "barrier") == 9000
    assert job("all_reduce", "reduce") is None
