"""Figures of a job from the traces of its ranks: known intervals give known figures."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.traces import Trace
from wiresum.measure.traces.errors import TraceError
from wiresum.measure.traces.load import read
from wiresum.measure.traces.summary import Report, summarize

LENGTH = 1000


def job(*traces: Trace) -> Report:
    return summarize([read(each.document(), Path(f"rank{each.rank}.json")) for each in traces])


def late(behind: float, clocks: tuple[float, float] = (0, 0)) -> Report:
    """Two ranks, four collectives that end together; rank 1 begins ``behind`` after rank 0."""
    traces = [Trace(rank, 2, clock=clocks[rank]) for rank in (0, 1)]
    for step in range(4):
        at = 1000 * step
        for trace in traces:
            trace.step(step, at, at + LENGTH).op(at, at + 300)
            trace.gloo(at + 400 + behind * trace.rank, at + 900, 1_000_000)
    return job(*traces)


def test_the_figures_are_those_of_the_intervals():
    report = late(250)
    assert report.exposed_share == pytest.approx(0.375)  # the median of 0.5 and 0.25
    assert report.bytes_per_step == 4_000_000
    (row,) = report.rows
    assert (row.kind, row.per_step, row.size, row.group) == (
        "all_reduce", 1, 4_000_000, "group0 of 2 ranks",
    )  # fmt: skip
    assert row.latency_ms == pytest.approx(0.250), "that of the rank that came last"
    assert row.algbw == pytest.approx(16.0)
    assert row.busbw == pytest.approx(16.0), "2(n-1)/n is 1 for two ranks"
    assert (row.skew_ms, row.most_late) == (pytest.approx(0.250), 1)
    first, second = report.ranks
    assert (first.late, second.late, second.behind_ms) == (0, 1, pytest.approx(0.250))
    assert (first.waiting_ms, second.waiting_ms) == (pytest.approx(0.250), 0)
    assert report.notes == []


offsets = st.integers(-(10**9), 10**9)


@given(st.integers(-300, 300), st.tuples(offsets, offsets))
def test_clocks_of_hosts_change_nothing(behind, clocks):
    """A clock is off by up to 1,000 s; the figures are the same to a microsecond."""
    apart, together = late(behind, clocks), late(behind)
    assert [row.most_late for row in apart.rows] == [row.most_late for row in together.rows]
    assert apart.rows[0].skew_ms == pytest.approx(together.rows[0].skew_ms, abs=2e-3)
    assert apart.verdict == together.verdict
    for one, other in zip(apart.ranks, together.ranks, strict=True):
        assert (one.late, one.behind_ms) == (other.late, pytest.approx(other.behind_ms, abs=2e-3))


def apart(comp: int, idle: int, exposed: int, hidden: int, added: int, noise: int) -> Trace:
    """Steps in which communication begins behind computation and outlasts it: three with operators,
    whose recording makes computation longer, and four without; ``noise`` more in one of these."""
    trace = Trace(0, 1)
    at = 0
    for number in range(7):
        slower = added if number < 3 else 0
        took = comp + idle + exposed + slower + (noise if number == 5 else 0)
        trace.step(number, at, at + took)
        if number < 3:
            trace.op(at, at + comp + slower)
        behind = at + comp + slower
        trace.gloo(behind - hidden, behind + exposed, 1000)
        at += took + 5
    trace.extra["wiresum"] = {"operators": [0, 1, 2], "added_us": added}
    return trace


parts = st.integers(0, 1000)


@given(st.integers(1, 1000), parts, parts, parts, parts, st.integers(0, 50))
def test_steps_without_operators_have_the_computation_of_those_with_them_without_its_recording(
    comp, idle, exposed, hidden, added, noise
):
    hidden = min(hidden, comp)
    report = job(apart(comp, idle, exposed, hidden, added, noise))
    found = report.ranks[0].shares
    assert report.ranks[0].steps == 4
    total = comp + idle + exposed + noise / 4
    assert found.total_time == pytest.approx(total / 1000)
    assert found.total_comm_time == pytest.approx((hidden + exposed) / 1000)
    # What one step takes longer, for whatever reason, may be exposed: its communication at most.
    assert exposed / 1000 - 1e-9 <= found.exposed_comm_time
    assert found.exposed_comm_time <= (exposed + min(noise, hidden) / 4) / 1000 + 1e-9
    sums = found.computation_time + found.exposed_comm_time + found.idle_time
    assert sums == pytest.approx(found.total_time)
    assert report.bytes_per_step == 4000


NONSENSE = [
    {"operators": [0]},
    {"operators": ["x"], "added_us": 1},
    {"operators": 3, "added_us": 1},
    {"operators": [0], "added_us": -5},
    {"operators": [0], "added_us": float("nan")},
]


@pytest.mark.parametrize("said", NONSENSE)
def test_a_trace_that_says_nonsense_of_its_steps_is_refused_in_one_line(said):
    trace = apart(5, 5, 5, 5, 5, 0)
    trace.extra["wiresum"] = said
    with pytest.raises(TraceError, match="is no Chrome trace"):
        job(trace)


def test_a_reduce_scatter_is_known_by_that_of_a_step_with_operators():
    trace = Trace(0, 1)
    for number in range(3):
        at = 1000 * number
        trace.step(number, at, at + 900)
        if number == 0:
            shapes = {"Input Dims": [[10], [1000]], "Input type": ["float", "float"]}
            trace.event("cpu_op", "c10d::_reduce_scatter_base_", at + 10, at + 20, **shapes)
        trace.gloo(at + 20, at + 90, 1000).gloo(at + 100, at + 200, 77)
    trace.extra["wiresum"] = {"operators": [0], "added_us": 0}
    called = {row.size: row.called for row in job(trace).rows}
    assert called == {4000: "reduce_scatter", 308: None}


spans = st.lists(st.tuples(st.integers(0, LENGTH), st.integers(1, 300)), max_size=8)


@given(spans, spans, st.integers(0, 700), st.integers(1, 300))
def test_the_parts_add_up_and_exposed_is_a_part_of_communication(computing, talking, cut, more):
    trace = Trace(0, 1).step(1, 0, LENGTH - cut).step(2, LENGTH - cut, LENGTH + more)
    for start, took in computing:
        trace.op(start, start + took)
    for start, took in talking:
        trace.gloo(start, start + took)
    found = job(trace).ranks[0].shares
    parts = (found.computation_time, found.exposed_comm_time, found.exposed_memcpy_time)
    assert sum(parts) + found.idle_time == pytest.approx(found.total_time)
    assert 0 <= found.exposed_comm_time <= found.total_comm_time + 1e-12
    assert found.idle_time >= -1e-12
    assert found.total_time == pytest.approx((LENGTH + more) / 2 / 1000)


def test_hidden_communication_is_not_worth_it():
    trace = [Trace(rank, 2).step(1, 0, 1000).op(0, 990).gloo(100, 999) for rank in (0, 1)]
    report = job(*trace)
    assert report.exposed_share == pytest.approx(0.009)
    assert report.verdict.startswith("Not worth it: 0.9 % of a step is exposed communication")


def test_exposed_communication_is_worth_a_look_but_not_what_is_waiting():
    sending = late(0).verdict
    assert sending.startswith("Worth a closer look: 50.0 % of a step is exposed")
    assert "0 % of the communication is waiting" in sending
    traces = [Trace(rank, 3).step(1, 0, 1000).op(0, 100) for rank in range(3)]
    for trace in traces:
        trace.gloo(800 if trace.rank == 2 else 200, 900)
    assert "which no faster network shortens" in job(*traces).verdict


def test_one_rank_of_many_gives_its_shares_and_says_who_is_missing():
    report = job(Trace(2, 4).step(1, 0, 1000).op(0, 300).gloo(200, 900, 500))
    assert report.exposed_share == pytest.approx(0.6)
    assert (report.rows[0].skew_ms, report.ranks[0].late, report.waiting_share) == (None,) * 3
    assert "the traces do not show how much of it is waiting" in report.verdict
    assert report.notes == [
        "1 of 4 ranks have a trace; missing: 0-1, 3: all figures are of the others"
    ]


def test_steps_that_only_one_rank_has_are_not_compared():
    """The profilers of two ranks began one step apart."""
    traces = [Trace(rank, 2) for rank in (0, 1)]
    for trace in traces:
        for step in range(trace.rank, trace.rank + 3):
            trace.step(step, 1000 * step, 1000 * step + 1000)
            trace.gloo(1000 * step + 100 * trace.rank, 1000 * step + 500)
        trace.op(0, 3000)
    report = job(*traces)
    assert report.ranks[1].behind_ms == pytest.approx(0.1)
    assert report.notes == [
        "2 collectives are missing or different on some rank: they are not compared"
    ]


def test_groups_of_some_ranks_are_compared_within_the_group_and_shown_together():
    """Ranks 0 and 1, 2 and 3 reduce in pairs; a group of all connects their clocks."""
    traces = [Trace(rank, 4, clock=5000 * rank, groups=0) for rank in range(4)]
    for trace in traces:
        pair = (trace.rank // 2 * 2, trace.rank // 2 * 2 + 1)
        for at, ranks, name in ((10, (0, 1, 2, 3), "world"), (200, pair, "pair")):
            start = at + (20 if trace.rank == 3 else 0)
            trace.nccl(start, at + 100, at - 5)
            trace.events[-1]["args"] |= {
                "Process Group Ranks": str(list(ranks)), "Group size": len(ranks),
                "Process Group Description": name,
            }  # fmt: skip
        trace.step(1, 0, 400)
    report = job(*traces)
    assert [(row.group, row.ranks, row.per_step) for row in report.rows] == [
        ("world of 4 ranks", 4, 1), ("pair of 2 ranks", 4, 1),
    ]  # fmt: skip
    assert [rank.late for rank in report.ranks] == [0, 0, 0, 1]


def test_collectives_without_sizes_say_what_to_switch_on():
    report = job(Trace(0, 1).step(1, 0, 100).op(0, 10).gloo(20, 90, None))
    assert report.bytes_per_step is None
    assert "record_shapes=True" in report.notes[0]
    assert report.rows[0].algbw is None


def incomplete(exposed: float) -> Report:
    """Half of the communication is over gloo; of the other half the traces have the calls."""
    traces = [Trace(rank, 2).step(0, 0, LENGTH).op(0, LENGTH - exposed) for rank in (0, 1)]
    for trace in traces:
        trace.gloo(LENGTH - exposed, LENGTH)
        trace.event("user_annotation", "nccl:all_reduce", 0, 10)
    return job(*traces)


def test_incomplete_traces_are_noted_and_never_called_not_worth_it():
    for exposed, verdict in (
        (10, "Not known: 1.0 % of a step"),
        (500, "Worth a closer look: at least 50.0 % of a step"),
    ):
        report = incomplete(exposed)
        assert report.verdict.startswith(verdict)
        assert "some communication is missing" in report.verdict
        assert any("2 collectives of NCCL have no kernel" in each for each in report.notes)


def test_the_verdict_shows_on_which_side_of_the_threshold_it_is():
    traces = [Trace(rank, 2).step(0, 0, 1e6).op(0, 949_990).gloo(0, 1e6) for rank in (0, 1)]
    assert job(*traces).verdict.startswith("Worth a closer look: 5.001 %")
