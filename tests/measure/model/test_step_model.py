"""Predicted steps: what every prediction must keep, whatever the job."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.model.costs import Costs, Range
from wiresum.measure.model.growth import more_workers, with_workers
from wiresum.measure.model.job import Job, Message
from wiresum.measure.model.links import PROTECTIONS, Link
from wiresum.measure.model.step import Setting, all_remedies, exposed_s, predict, why_not
from wiresum.measure.remedies import PLAIN, REMEDIES

MIB = 1 << 20
FREE = Range(1e15, 1e15, 1e15)
FREE_COSTS = Costs(
    encode={32: FREE, 16: FREE, 8: FREE}, decode={32: FREE, 16: FREE, 8: FREE}, fp16=FREE,
    powersgd=FREE, switch=Range(1, 1, 1), ranks=Range(1, 1, 1),
)  # fmt: skip


def job(
    workers=4, compute=0.1, comm=0.3, hidden=0.05, wait=0.0, sizes=(25 * MIB,), dtype="float32"
):
    messages = tuple(Message("all_reduce", "gloo", dtype, size, workers, 1.0) for size in sizes)
    exposed = comm - hidden
    return Job(workers, compute + exposed, comm, exposed, wait, messages)


@st.composite
def jobs(draw):
    comm = draw(st.floats(1e-3, 10))
    sizes = draw(st.lists(st.integers(8192, 100 * MIB), min_size=1, max_size=6))
    return job(
        workers=draw(st.integers(2, 64)),
        compute=draw(st.floats(1e-3, 10)),
        comm=comm,
        hidden=comm * draw(st.floats(0, 1)),
        wait=comm * draw(st.floats(0, 1)),
        sizes=tuple(sizes),
    )


settings = st.builds(
    Setting, st.builds(Link.of, st.floats(0.1, 2000), st.floats(0.05, 100)), st.just(1500)
)


@given(jobs(), settings)
def test_the_plain_run_on_its_own_links_is_predicted_to_be_what_it_is(each, setting):
    found = predict(each, REMEDIES[PLAIN], setting)
    assert found.step_s == pytest.approx(each.step_s)
    assert found.exposed_s == pytest.approx(each.exposed_s, abs=1e-12)
    assert found.comm_s == pytest.approx(each.comm_s)


@given(jobs(), settings)
def test_no_remedy_saves_more_than_the_exposed_communication(each, setting):
    computing = each.step_s - each.exposed_s
    for found in all_remedies(each, setting)[0]:
        assert found.low_s <= found.step_s <= found.high_s
        assert found.step_s >= computing * (1 - 1e-9)
        assert found.exposed_s <= found.comm_s * (1 + 1e-9)


@given(jobs(), settings, st.floats(1, 100))
def test_faster_links_are_never_slower(each, setting, times):
    link = Link(setting.link.alpha_s, setting.link.beta * times)
    for remedy in REMEDIES.values():
        now = predict(each, remedy, setting)
        then = predict(each, remedy, setting, replace(setting, link=link))
        assert then.step_s <= now.step_s * (1 + 1e-6)


@given(jobs(), settings)
def test_fewer_bits_are_never_slower_where_the_codec_is_free(each, setting):
    for carrier in ("ranks", "switch"):
        steps = [
            predict(each, REMEDIES[f"{carrier}-{field}"], setting, costs=FREE_COSTS).step_s
            for field in (8, 16, 32)
        ]
        assert steps == sorted(steps)


@given(jobs(), st.floats(0, 20), st.floats(0, 20))
def test_more_communication_is_never_less_exposed(each, one, other):
    low, high = sorted((one, other))
    assert exposed_s(each, low) <= exposed_s(each, high) + 1e-12


@given(jobs())
def test_waiting_for_late_ranks_is_not_saved(each):
    left = exposed_s(each, 0.0)
    assert left >= each.waiting_s - each.overlapped_s - 1e-12


def test_half_the_bytes_save_half_the_exposed_time_where_nothing_overlaps():
    each = job(compute=0.1, comm=0.4, hidden=0.0)
    found = predict(each, REMEDIES["fp16"], Setting(Link.of(0, 0.8)), costs=FREE_COSTS)
    assert found.step_s == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("name", [name for name, each in REMEDIES.items() if each.field])
def test_the_predicted_bytes_are_those_of_the_table_of_remedies(name):
    each = job(workers=8)
    setting = Setting(Link.of(10, 1))
    plain = predict(each, REMEDIES[PLAIN], setting).sent_bytes
    factor = REMEDIES[name].bytes_factor(8)
    assert predict(each, REMEDIES[name], setting).sent_bytes == pytest.approx(factor * plain)


def test_steps_without_a_synchronization_hide_nothing_of_the_one_that_comes():
    each = job(compute=0.1, comm=0.4, hidden=0.4, sizes=(MIB,) * 10)
    found = predict(each, REMEDIES["local-steps"], Setting(Link.of(0, 0.1)), costs=FREE_COSTS)
    assert found.exposed_s == pytest.approx(found.comm_s)
    assert found.comm_s == pytest.approx(0.4 / 8, rel=0.01)


def test_compression_saves_nothing_but_of_the_last_bucket_where_overlap_is_healthy():
    each = job(compute=1.0, comm=0.4, hidden=0.36, sizes=(MIB,) * 10)
    found = predict(each, REMEDIES["ranks-8"], Setting(Link.of(50, 0.3)))
    assert each.step_s - found.step_s < 0.04
    assert found.step_s > 0.999


def test_twice_the_communication_of_a_bound_step_is_all_exposed():
    each = job(compute=0.2, comm=0.4, hidden=0.1, sizes=(MIB,) * 10)
    assert exposed_s(each, 0.8) == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["fp16", "top-k", "powersgd"])
def test_what_a_hook_computes_is_exposed_though_all_communication_hides(name):
    each = job(compute=1.0, comm=0.4, hidden=0.4, sizes=(MIB,) * 10)
    slow = Range(0.1e9, 0.1e9, 0.1e9)
    costs = replace(FREE_COSTS, fp16=slow, powersgd=slow, blocks=slow)
    setting = Setting(Link.of(50, 0.3))
    found = predict(each, REMEDIES[name], setting, costs=costs)
    assert found.step_s > each.step_s + 10 * MIB / 0.1e9 - 1e-9
    crowded = predict(replace(each, ranks_per_core=3.0), REMEDIES[name], setting, costs=costs)
    assert crowded.step_s > each.step_s + 3 * 10 * MIB / 0.1e9 - 1e-9
    on_gpu = predict(replace(each, device="cuda"), REMEDIES[name], setting, costs=costs)
    assert on_gpu.step_s == pytest.approx(each.step_s, rel=0.05)


@pytest.mark.parametrize(
    ("name", "calls"), [("ranks-32", 1), ("top-k", 2), ("powersgd", 3), ("fp16", 0), ("gloo", 0)]
)
def test_calls_wait_for_cores_only_where_a_rank_has_less_than_two(name, calls):
    each, setting = job(comm=0.4, hidden=0.0, sizes=(MIB,)), Setting(Link.of(50, 0.1))
    free, slow = Range(0, 0, 0), Range(0.1, 0.1, 0.1)
    for share, waits in ((0.25, 0), (0.5, 0), (1.0, 0.5), (4.0, 3.5)):
        shared = replace(each, ranks_per_core=share)
        without, with_ = (
            predict(shared, REMEDIES[name], setting, costs=replace(FREE_COSTS, call=one, hook=one))
            for one in (free, slow)
        )
        assert with_.comm_s - without.comm_s == pytest.approx(waits * calls * 0.1, abs=1e-9)


def test_a_slow_codec_eats_what_the_links_save():
    each = job(compute=0.01, comm=0.005, hidden=0.0, sizes=(4 * MIB,))
    slow = Range(0.3e9, 0.3e9, 0.3e9)
    costs = Costs(encode={8: slow}, decode={8: slow})
    found = predict(each, REMEDIES["ranks-8"], Setting(Link.of(10, 25)), costs=costs)
    assert found.step_s > each.step_s


def test_encryption_between_hosts_shuts_the_switch_out_and_macsec_does_not():
    each = job()
    for name, impossible in (("none", False), ("macsec", False), ("wireguard", True)):
        reason = why_not(each, REMEDIES["switch-16"], PROTECTIONS[name])
        assert (reason is not None) == impossible
        assert why_not(each, REMEDIES["ranks-16"], PROTECTIONS[name]) is None
    setting = Setting(Link.of(50, 1))
    plain = predict(each, REMEDIES[PLAIN], setting).step_s
    steps = [
        predict(each, REMEDIES[PLAIN], setting, replace(setting, protection=PROTECTIONS[name]))
        for name in ("macsec", "wireguard")
    ]
    assert plain < steps[0].step_s < steps[1].step_s


def test_cuda_tensors_16_bit_gradients_and_too_many_workers_have_their_reasons():
    cuda = replace(job(), device="cuda")
    assert "CUDA" in why_not(cuda, REMEDIES["ranks-8"])
    assert why_not(cuda, REMEDIES["fp16"]) is None
    half = job(dtype="bfloat16")
    assert "16 bits" in why_not(half, REMEDIES["fp16"])
    many = job(workers=65)
    assert "64 workers" in why_not(many, REMEDIES["switch-8"])
    sharded = replace(job(), messages=(Message("all_gather", "gloo", "float32", MIB, 4, 1),))
    assert "no gradients" in why_not(sharded, REMEDIES["fp16"])
    scattered = replace(job(), messages=(replace(job().messages[0], called="reduce_scatter"),))
    assert "no gradients" in why_not(scattered, REMEDIES["switch-8"])


@given(jobs(), settings)
def test_more_workers_on_a_ring_never_make_a_step_shorter(each, setting):
    grown = with_workers(each, 2 * each.workers, setting)
    assert grown.step_s >= each.step_s * (1 - 1e-6)
    base = predict(each, REMEDIES[PLAIN], setting)
    assert more_workers(each, 2, setting, base).step_s >= base.step_s / 2 * (1 - 1e-6)


@given(jobs(), settings)
def test_ranks_that_share_a_core_pay_more_for_codecs_and_calls_than_ranks_with_more_cores(
    each, setting
):
    own, shared = (replace(each, ranks_per_core=share) for share in (0.25, 4.0))
    for name in ("ranks-32", "switch-8"):
        alone, together = (predict(one, REMEDIES[name], setting) for one in (own, shared))
        assert alone.comm_s <= together.comm_s * (1 + 1e-9)
    assert predict(own, REMEDIES["ranks-8"], setting) == predict(each, REMEDIES["ranks-8"], setting)
    assert predict(own, REMEDIES[PLAIN], setting) == predict(shared, REMEDIES[PLAIN], setting)
