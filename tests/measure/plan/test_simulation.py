"""The simulations: they agree with the closed forms, and change in the direction that they must."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.phases import shift
from wiresum.measure.plan.simulation.chunks import Rack, allreduce
from wiresum.measure.plan.simulation.jobs import Running, simulate
from wiresum.measure.plan.simulation.sharing import shares
from wiresum.measure.plan.spec import JobSpec
from wiresum.measure.plan.timing import Phase, expected_compute_s, phase, resend_s

REMEDIES = ("gloo", "fp16", "ranks-16", "switch-32", "switch-8")
FABRIC = Fabric(4, 32, uplink_gbit=10.0)

job_specs = st.builds(
    JobSpec,
    name=st.just("job"),
    workers=st.integers(1, 128),
    compute_ms=st.floats(1, 1000),
    gradient_mb=st.floats(0, 1000),
    buckets=st.integers(1, 30),
    hidden_ms=st.floats(0, 1000),
    remedy=st.sampled_from(REMEDIES),
)


def phases(compute=0.1, comm=0.05, hidden=0.0, workers=8, demand=1.25e9):
    return Phase(workers, compute, hidden, 0.0, comm * demand, demand, True)


# ---- jobs


@settings(max_examples=examples(40))
@given(job_specs, st.integers(1, 4))
def test_a_job_alone_takes_what_the_closed_form_says(job, racks):
    step = phase(job, FABRIC, racks)
    path = tuple(range(racks)) if step.crossing else ()
    took = simulate([Running("job", step, path)], FABRIC, 3, seed=1)[0]
    rate = min(step.demand, FABRIC.uplink_bytes) if step.crossing else step.demand
    assert took == pytest.approx([step.step_s(rate)] * 3)


@settings(max_examples=examples(25))
@given(st.lists(st.tuples(st.floats(0.01, 0.2), st.floats(0.01, 0.2)), min_size=2, max_size=5))
def test_company_on_an_uplink_never_makes_a_step_shorter(jobs):
    running = [
        Running(f"j{at}", phases(compute, comm), (0,)) for at, (compute, comm) in enumerate(jobs)
    ]
    together = simulate(running, FABRIC, 5, seed=0)
    for job, took in zip(running, together, strict=True):
        alone = simulate([job], FABRIC, 5, seed=0)[0]
        assert sum(took) >= sum(alone) * (1 - 1e-9)


def test_two_jobs_alike_collide_for_ever_and_shifting_ends_it():
    """Both communicate at half the rate: C + 2m a step; apart it is C + m."""
    running = [Running(name, phases(0.1, 0.05), (0, 1)) for name in "ab"]
    found = shift(running, FABRIC, 20, seed=0)
    assert found.alone == pytest.approx([0.15, 0.15])
    assert found.collided == pytest.approx([0.2, 0.2])
    assert found.shifted == pytest.approx([0.15, 0.15], rel=0.02)
    assert found.gain == pytest.approx(0.25, abs=0.02)


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.floats(0.01, 0.2), st.floats(0.01, 0.2)), min_size=2, max_size=4),
    st.integers(0, 5),
)
def test_shifting_is_never_worse(jobs, seed):
    running = [Running(f"j{at}", phases(*each), (0,)) for at, each in enumerate(jobs)]
    found = shift(running, FABRIC, 6, seed)
    pairs = zip(found.shifted, found.collided, found.alone, strict=True)
    before = after = 0.0
    for shifted, collided, alone in pairs:
        after += shifted / alone
        before += collided / alone
    assert after <= before * (1 + 1e-9)


def test_jobs_that_share_no_uplink_do_not_know_of_each_other():
    running = [Running(str(at), phases(), (at,)) for at in range(3)]
    found = shift(running, FABRIC, 5, seed=0)
    assert found.collided == pytest.approx(found.alone)
    assert found.offsets == [0, 0, 0]


def test_the_seed_decides_everything():
    fabric = replace(FABRIC, jitter=0.1, stragglers=0.05)
    running = [Running(name, phases(), (0,)) for name in "abc"]
    first, same = (simulate(running, fabric, 10, seed=7) for _ in range(2))
    assert first == same
    assert first != simulate(running, fabric, 10, seed=8)


@pytest.mark.parametrize("workers", [1, 8, 10_000])
def test_the_slowest_of_many_workers_takes_as_long_as_its_mean_says(workers):
    fabric = replace(FABRIC, jitter=0.05, stragglers=0.0001)
    step = replace(phases(workers=workers), volume=0.0)
    took = simulate([Running("job", step, ())], fabric, 4000, seed=3)[0]
    assert sum(took) / len(took) == pytest.approx(expected_compute_s(step, fabric), rel=0.02)


# ---- shares


@given(st.lists(st.tuples(st.floats(0.1, 10), st.sets(st.integers(0, 3))), min_size=1, max_size=8))
def test_shares_fill_links_and_overfill_none(flows):
    capacity = dict.fromkeys(range(4), 5.0)
    rates = shares([flow[0] for flow in flows], [sorted(flow[1]) for flow in flows], capacity)
    load = dict.fromkeys(capacity, 0.0)
    for rate, (demand, path) in zip(rates, flows, strict=True):
        assert 0 < rate <= demand * (1 + 1e-9)
        for link in path:
            load[link] += rate
    assert all(each <= 5 * (1 + 1e-6) for each in load.values())
    for rate, (demand, path) in zip(rates, flows, strict=True):
        assert rate == pytest.approx(demand) or any(load[link] > 5 * (1 - 1e-6) for link in path)


# ---- chunks


def rack(**more):
    values = {"workers": 3, "window": 32, "frame": 1000, "beta": 1e8, "alpha_s": 50e-6}
    return Rack(**(values | more))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.sampled_from([1, 4, 16, 64]), st.integers(30, 150))
def test_chunks_take_what_the_window_and_the_link_allow(workers, window, chunks):
    each = rack(workers=workers, window=window, resend_s=10)
    frame_s = each.frame / each.beta
    round_trip = 2 * each.alpha_s + 2 * frame_s
    rate = min(1 / frame_s, window / round_trip)
    found = allreduce(each, chunks)
    assert found.frames == workers * chunks
    wanted = chunks / rate + round_trip
    assert found.seconds == pytest.approx(wanted, abs=1.1 * round_trip + frame_s)


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 5), st.integers(1, 80))
def test_more_slots_are_never_slower(workers, chunks):
    times = [
        allreduce(rack(workers=workers, window=window, resend_s=10), chunks).seconds
        for window in (1, 2, 4, 8, 16, 32, 64)
    ]
    for narrow, wide in pairwise(times):
        assert wide <= narrow * (1 + 1e-9)


@given(job_specs, st.sampled_from([2, 8, 64, 256]))
def test_a_larger_lease_is_never_slower_in_the_closed_form(job, slots):
    job = replace(job, remedy="switch-16", slots=slots)
    wide = replace(job, slots=2 * slots)
    assert phase(wide, FABRIC).step_s() <= phase(job, FABRIC).step_s() * (1 + 1e-9)


def test_loss_takes_the_time_that_the_closed_form_says():
    """The window is the limit here, so that resends show."""
    each = rack(window=8, frame=100, loss=0.01, resend_s=2 * 102e-6 + 102e-6)
    chunks = 1500
    plain = allreduce(replace(each, loss=0.0), chunks).seconds
    lossy = allreduce(each, chunks, seed=5).seconds
    round_trip = 2 * each.alpha_s + 2 * each.frame / each.beta
    wanted = plain * (1 + resend_s(each.loss, each.workers, round_trip) / round_trip)
    assert plain < lossy
    assert lossy == pytest.approx(wanted, rel=0.1)


def test_a_late_worker_delays_all_by_as_much():
    on_time = allreduce(rack(resend_s=10), 100).seconds
    late = allreduce(rack(resend_s=10, late_s=0.5), 100).seconds
    assert late == pytest.approx(on_time + 0.5, rel=1e-3)
