"""The reader against what this machine's torch writes: two processes over gloo."""

import pytest

from support.torchruns import clean_environment, spawn
from wiresum.measure.traces.load import load
from wiresum.measure.traces.summary import summarize

pytest.importorskip("torch", reason="the extra `torch` is not installed")

JOB = """
import sys
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, schedule

dist.init_process_group("gloo")
folder, rank = sys.argv[1], dist.get_rank()
weights, bucket = torch.ones(256, 256), torch.ones(300_000)
with profile(
    activities=[ProfilerActivity.CPU],
    record_shapes=True,
    schedule=schedule(wait=0, warmup=1, active=3),
    on_trace_ready=lambda made: made.export_chrome_trace(f"{folder}/rank{rank}.json"),
) as profiler:
    for _ in range(4):
        work = dist.all_reduce(bucket, async_op=True)
        weights = weights @ weights / 256
        work.wait()
        dist.broadcast(bucket[:1000], 0)
        profiler.step()
dist.destroy_process_group()
"""


def test_a_trace_of_two_processes_over_gloo(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(JOB)
    ended = spawn(script, str(tmp_path), workers=2, env=clean_environment())
    assert ended.status == 0, ended.output
    traces = load(tmp_path)
    assert [(trace.rank, trace.world_size, trace.device) for trace in traces] == [
        (0, 2, "cpu"), (1, 2, "cpu"),
    ]  # fmt: skip
    report = summarize(traces)
    assert report.notes == []
    assert report.steps == 3
    assert [(row.kind, row.dtype, row.size, row.per_step) for row in report.rows] == [
        ("all_reduce", "float32", 1_200_000, 1), ("broadcast", "float32", 4000, 1),
    ]  # fmt: skip
    assert all(row.group.endswith("of 2 ranks") and row.skew_ms is not None for row in report.rows)
    assert report.bytes_per_step == 1_204_000
    for rank in report.ranks:
        assert 0 < rank.shares.exposed_comm_time <= rank.shares.total_comm_time
        assert rank.shares.computation_time > 0
