"""Admission: no host, no slot twice; who waits, and why."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.placing import place, racks_needed
from wiresum.measure.plan.spec import JobSpec


def spec(name="a", workers=8, remedy="switch-16", slots=0, **more):
    return JobSpec(name, workers, 10.0, 10.0, remedy=remedy, slots=slots, **more)


specs = st.lists(
    st.builds(
        spec,
        workers=st.integers(1, 200),
        remedy=st.sampled_from(["gloo", "ranks-16", "switch-32", "switch-8"]),
        slots=st.sampled_from([0, 64, 1024]),
    ),
    max_size=12,
)


@given(specs, st.integers(1, 8), st.integers(1, 80))
def test_no_host_and_no_slot_is_given_twice(jobs, racks, hosts):
    fabric = Fabric(racks, hosts)
    used, leased, spine = Counter(), Counter(), 0
    for each in place(jobs, fabric):
        if each.waits:
            assert not each.racks
            continue
        assert sum(each.racks.values()) == each.job.workers
        for rack, count in each.racks.items():
            assert count > 0
            used[rack] += count
            leased[rack] += each.slots
        spine += each.slots if each.crossing else 0
    assert all(count <= hosts for count in used.values())
    assert all(count <= fabric.slots for count in [*leased.values(), spine])


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 64))
def test_jobs_without_a_switch_all_fit_into_the_racks_they_need(workers, hosts):
    jobs = [spec(f"j{at}", count, "gloo") for at, count in enumerate(workers)]
    fabric = Fabric(racks_needed(jobs, hosts), hosts)
    assert not any(each.waits for each in place(jobs, fabric))


def test_a_job_stays_in_one_rack_where_it_can():
    places = place([spec("a", 20), spec("b", 10), spec("c", 12)], Fabric(2, 32))
    assert [each.racks for each in places] == [{0: 20}, {0: 10}, {1: 12}]


def test_who_waits_is_told_why():
    fabric = Fabric(2, 8, slots=256)
    places = place(
        [
            spec("narrow", 200, "switch-8"),
            spec("greedy", 4, slots=512),
            spec("first", 8, slots=256),
            spec("second", 8, slots=256),
            spec("third", 2, "gloo"),
        ],
        fabric,
    )
    waits = {each.job.name: each.waits for each in places}
    assert "8-bit fields hold no sum of 200" in waits["narrow"]
    assert "a lease of 512 slots" in waits["greedy"]
    assert waits["first"] == waits["second"] == ""
    assert "0 hosts are free" in waits["third"]


def test_slots_are_the_limit_where_hosts_are_not():
    places = place([spec("a", 4, slots=4096), spec("b", 4)], Fabric(1, 32))
    assert "slots left" in places[1].waits
