"""The closed forms: what they say where only latency, or only bandwidth counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.host_agent.backend import gloo_sums
from wiresum.measure.model import collectives
from wiresum.measure.model.links import NONE, PROTECTIONS, Link
from wiresum.measure.traces.names import bus_factor

sizes = st.integers(4, 1 << 30)
ranks = st.integers(2, 1000)
links = st.builds(Link.of, st.floats(0, 1e4), st.floats(0.01, 800))


def test_a_link_is_what_its_units_say():
    link = Link.of(15, 10)
    assert link.seconds(1.25e9) == pytest.approx(1 + 15e-6)
    assert link.beta_gbit == pytest.approx(10)


@given(ranks)
def test_a_ring_of_nothing_costs_its_messages_alone(workers):
    link = Link.of(100, 1)
    assert collectives.ring_s(0, workers, link) == pytest.approx(2 * (workers - 1) * 1e-4)


def test_exponents_go_to_all_ranks_at_once_as_far_as_the_ranks_send_them_so():
    assert collectives.MOST_DIRECT == gloo_sums.DIRECT
    link = Link.of(100, 1)
    for workers in (2, collectives.MOST_DIRECT):
        assert collectives.maximum_s(0, workers, link) == pytest.approx(1e-4)
    more = collectives.MOST_DIRECT + 1
    assert collectives.maximum_s(4096, more, link) == collectives.ring_s(4096, more, link)


@given(st.integers(1 << 24, 1 << 30), st.integers(2, 64))
def test_a_ring_moves_the_bus_factor_of_the_tensor_over_each_link(size, workers):
    link = Link.of(0, 10)
    wire = size * 1514 / 1448  # bytes of a frame, and of the payload in it
    wanted = bus_factor("all_reduce", workers) * wire / link.beta
    assert collectives.ring_s(size, workers, link) == pytest.approx(wanted, rel=2e-3)


@given(st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "broadcast"]), ranks)
def test_the_bytes_on_a_link_are_those_of_nccl_tests(kind, workers):
    assert collectives.steps(kind, workers)[1] == pytest.approx(bus_factor(kind, workers))


@given(st.integers(1 << 24, 1 << 28), st.integers(2, 64))
def test_a_switch_gains_at_most_its_cap_where_links_are_the_limit(size, workers):
    link = Link.of(0, 1)
    gain = collectives.ring_s(size, workers, link) / collectives.switch_s(size, link)
    cap = bus_factor("all_reduce", workers)
    assert 0.95 * cap < gain <= cap


@given(sizes, links, st.sampled_from([32, 16, 8]))
def test_a_narrower_field_and_a_wider_window_are_never_slower(size, link, field):
    whole = collectives.switch_s(size, link, 32)
    assert collectives.switch_s(size, link, field) <= whole * (1 + 1e-9)
    narrow = collectives.switch_s(size, link, field, window_bytes=1 << 14)
    wide = collectives.switch_s(size, link, field, window_bytes=1 << 20)
    assert narrow >= wide >= collectives.switch_s(size, link, field)


@given(sizes, ranks, links, st.sampled_from([p for p in PROTECTIONS.values() if p is not NONE]))
def test_protection_costs_time_on_every_path(size, workers, link, protection):
    plain = collectives.ring_s(size, workers, link)
    assert collectives.ring_s(size, workers, link, protection=protection) > plain
    plain = collectives.switch_s(size, link)
    assert collectives.switch_s(size, link, protection=protection) > plain
