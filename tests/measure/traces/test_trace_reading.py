"""What the reader finds in traces of the kinds that torch has written since 2.0."""

import os
from pathlib import Path

import pytest

from support.traces import Trace
from wiresum.measure.traces.load import load, read
from wiresum.measure.traces.names import bus_factor, kernel_kind, kind_of, message_bytes
from wiresum.measure.traces.records import RankTrace
from wiresum.measure.traces.summary import shares

HERE = Path("rank0.json")


def reading(trace: Trace) -> RankTrace:
    return read(trace.document(), HERE)


def test_gloo_on_a_cpu_has_the_times_that_were_put_in():
    trace = Trace(0, 2).step(4, 0, 1000).op(100, 500).op(200, 300, "aten::inner")
    trace.op(420, 440, "c10d::allreduce_").gloo(400, 700)
    found = shares(reading(trace))
    assert found.computation_time == pytest.approx(0.380)
    assert found.total_comm_time == pytest.approx(0.300)
    assert found.exposed_comm_time == pytest.approx(0.220)
    assert found.overlapped == pytest.approx(0.080)
    assert found.idle_time == pytest.approx(0.400)
    assert found.total_time == pytest.approx(1.000)


def test_an_operator_that_waits_for_a_collective_is_no_computation():
    trace = Trace(0, 2).step(1, 0, 100).gloo(0, 80)
    trace.op(0, 90, "_c10d_functional::wait_tensor").op(90, 100)
    assert shares(reading(trace)).computation_time == pytest.approx(0.010)


def test_shapes_give_gloos_messages_their_sizes_and_the_only_group_its_name():
    (each,) = reading(Trace(1, 4).step(1, 0, 9).gloo(0, 9, 250)).collectives
    assert (each.kind, each.dtype, each.size) == ("all_reduce", "float32", 1000)
    assert (each.group.size, each.group.ranks) == (4, (0, 1, 2, 3))


def test_gloos_all_reduce_that_carries_a_reduce_scatter_is_told_from_the_others():
    trace = Trace(0, 2).step(1, 0, 900)
    for start in (10, 30):
        trace.event(
            "cpu_op", "c10d::_reduce_scatter_base_", start, start + 5,
            **{"Input Dims": [[500], [1000], []], "Input type": ["float", "float", "Scalar"]},
        )  # fmt: skip
    trace.gloo(5, 9, 1000)  # before the first of them
    for start, elements in ((20, 1000), (50, 700), (60, 1000), (80, 1000)):
        trace.gloo(start, start + 5, elements)
    found = reading(trace).collectives
    assert [each.kind for each in found] == ["all_reduce"] * 5
    called = [None, "reduce_scatter", None, "reduce_scatter", None]
    assert [each.called for each in found] == called


def test_without_shapes_or_with_several_groups_nothing_is_guessed():
    trace = Trace(0, 2, groups=2).step(1, 0, 9).gloo(0, 4, None).gloo(4, 9, kind="all_gather")
    sizeless, gathered = reading(trace).collectives
    assert (sizeless.dtype, sizeless.size) == (None, None)
    assert (gathered.size, gathered.group.size) == (None, None)


@pytest.mark.parametrize("told", ["kernel", "id", "call", "annotation"])
def test_nccls_messages_have_their_sizes_wherever_the_trace_has_them(told):
    trace = Trace(0, 2).step(1, 0, 100).kernel(20, 60, 5).nccl(50, 90, 30, told, 1000)
    (each,) = reading(trace).collectives
    assert (each.kind, each.dtype, each.size) == ("all_reduce", "float32", 4000)
    assert (each.group.size, each.step) == (2, 1)


def test_an_nccl_kernel_that_nothing_describes_has_a_kind_and_no_size():
    trace = Trace(0, 2).kernel(20, 60, 5).nccl(50, 90, 30, "nowhere")
    (each,) = reading(trace).collectives
    assert (each.kind, each.size) == ("all_reduce", None)


def test_a_gpus_steps_go_from_first_kernel_to_first_kernel():
    trace = Trace(0, 2).step(1, 0, 100).step(2, 100, 200)
    for start in (0, 100):  # the GPU runs 50 behind
        trace.kernel(start + 50, start + 90, start + 10).nccl(start + 80, start + 130, start + 30)
    trace.event("gpu_memcpy", "Memcpy HtoD", 235, 240, 20)
    read_back = reading(trace)
    assert [(step.end - step.start) for step in read_back.steps] == [100_000, 80_000]
    found = shares(read_back)
    assert found.computation_time == pytest.approx(0.040)
    assert found.exposed_comm_time == pytest.approx(0.040)
    assert found.total_time == pytest.approx(0.090)


def test_copies_count_where_nothing_else_runs_and_a_memset_is_computation():
    trace = Trace(0, 2).step(1, 0, 100).kernel(0, 50, 0).nccl(40, 100, 30)
    trace.event("gpu_memcpy", "Memcpy HtoD", 30, 45, 20)
    trace.event("gpu_memcpy", "Memcpy DtoH", 110, 120, 20)
    trace.kernel(150, 160, 90).event("gpu_memset", "Memset", 125, 130, 20)
    found = shares(reading(trace))
    assert found.exposed_memcpy_time == pytest.approx(0.010)
    assert found.computation_time == pytest.approx(0.065)
    assert found.idle_time == pytest.approx(0.035)


def test_a_trace_without_steps_is_one_span():
    read_back = reading(Trace(0, 2).op(10, 40).gloo(20, 110))
    assert read_back.whole
    assert shares(read_back).total_time == pytest.approx(0.100)


@pytest.mark.parametrize("value", [-1, 1 << 60, 1.5, True, "many", None, [1]])
def test_sizes_that_make_no_sense_are_not_known(value):
    trace = Trace(0, 2).nccl(0, 9, 3)
    trace.events[-1]["args"] |= {"In msg nelems": value, "Group size": value}
    (each,) = reading(trace.gloo(10, 20)).collectives[:1]
    assert each.size is None
    odd = Trace(0, 2).gloo(0, 9)
    odd.events[-1]["args"]["Input Dims"] = [[value]]
    assert reading(odd).collectives[0].size is None


def test_a_stride_of_more_ranks_than_any_job_has_is_not_followed():
    trace = Trace(0, 2, groups=0).nccl(0, 9, 3)
    trace.events[-1]["args"] |= {
        "Process Group Ranks": "[0, 2, ...]", "Global rank start": 0,
        "Global rank stride": 2, "Group size": 1 << 50,
    }  # fmt: skip
    assert reading(trace).collectives[0].group.ranks is None


def test_times_since_1970_keep_their_microseconds():
    trace = Trace(0, 2, clock=1.66e15).step(1, 0, 1000).gloo(250, 500)
    assert shares(reading(trace)).total_comm_time == pytest.approx(0.250)


def test_packed_files_and_names_with_ranks_are_read(tmp_path):
    first, second = Trace(0, 2).gloo(0, 9), Trace(1, 2).gloo(0, 9)
    del second.extra["distributedInfo"]
    first.write(tmp_path / "a.pt.trace.json.gz")
    second.write(tmp_path / "worker_rank-1.json")
    (tmp_path / "notes.txt").write_text("not a trace")
    assert [trace.rank for trace in load(tmp_path)] == [0, 1]


def test_a_pipe_between_the_traces_is_not_waited_for(tmp_path):
    Trace(0, 2).gloo(0, 9).write(tmp_path / "rank0.json")
    os.mkfifo(tmp_path / "rank1.json")
    assert [trace.rank for trace in load(tmp_path)] == [0]


def test_a_list_of_ranks_that_torch_has_cut_short_is_made_of_its_stride():
    trace = Trace(0, 64, groups=0).nccl(0, 9, 3)
    trace.events[-1]["args"] |= {
        "Process Group Ranks": "[0, 2, 4, ...]", "Global rank start": 0,
        "Global rank stride": 2, "Group size": 32,
    }  # fmt: skip
    (each,) = reading(trace).collectives
    assert each.group.ranks == tuple(range(0, 64, 2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_allgather_base", "all_gather"), ("allgather_into_tensor_coalesced", "all_gather"),
        ("allreduce", "all_reduce"), ("all_reduce", "all_reduce"),
        ("_reduce_scatter_base", "reduce_scatter"), ("reduce_scatter_tensor", "reduce_scatter"),
        ("all_to_allv", "all_to_all"), ("alltoall_base", "all_to_all"),
        ("reduce", "reduce"), ("something new", "something new"),
    ],
)  # fmt: skip
def test_collectives_have_one_name_whatever_the_backend_calls_them(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "all_reduce"),
        ("ncclKernel_ReduceScatter_RING_LL_Sum_float(ncclWorkElem)", "reduce_scatter"),
        ("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)", "send_recv"),
        ("ncclAllGatherRingLLKernel_copy_i8(ncclColl)", "all_gather"),
    ],
)
def test_kernels_say_their_collective(name, kind):
    assert kernel_kind(name) == kind


def test_sizes_and_bus_factors_are_those_of_nccl_tests():
    assert message_bytes("all_gather", "float16", 10, None, 4) == 80
    assert message_bytes("all_gather", "float16", 10, 40, None) == 80
    assert message_bytes("reduce_scatter", "bfloat16", 40, 10, 4) == 80
    assert message_bytes("all_reduce", "strange", 10, 10, 4) is None
    assert [bus_factor(kind, 4) for kind in ("all_reduce", "all_gather", "broadcast")] == [
        1.5, 0.75, 1.0,
    ]  # fmt: skip
    assert bus_factor("all_reduce", None) is None
