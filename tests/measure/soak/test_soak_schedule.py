"""A soak's schedule depends on its seed alone, has all kinds of faults, and is fair."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wiresum.measure.soak.schedule import LASTS_S, MAY_MEET, Fault, Kind, Schedule, make

SEEDS = st.integers(0, 2**32)
JOBS = st.integers(1, 5)
WORKERS = st.integers(2, 12)


def running(schedule: Schedule) -> list[tuple[Fault, set[str]]]:
    """Each fault, and the jobs that run when it begins."""
    jobs = {job.name for job in schedule.jobs}
    found = []
    for fault in schedule.faults:
        found.append((fault, set(jobs)))
        if fault.kind == Kind.JOB_JOINS:
            assert fault.job is not None
            jobs.add(fault.job.name)
        if fault.kind == Kind.JOB_LEAVES:
            assert fault.job is not None
            jobs.remove(fault.job.name)
    return found


@given(SEEDS, st.floats(0, 3000), JOBS, WORKERS)
def test_a_seed_has_one_schedule(seed: int, seconds: float, jobs: int, workers: int) -> None:
    assert make(seed, seconds, jobs, workers) == make(seed, seconds, jobs, workers)


@given(SEEDS, JOBS, WORKERS)
def test_a_longer_soak_begins_like_a_shorter_one(seed: int, jobs: int, workers: int) -> None:
    short, long = make(seed, 100, jobs, workers), make(seed, 900, jobs, workers)
    assert long.faults[: len(short.faults)] == short.faults
    assert long.jobs == short.jobs


def test_other_seeds_have_other_schedules() -> None:
    assert len({make(seed, 300, 3, 4) for seed in range(50)}) == 50


@given(SEEDS, JOBS, WORKERS)
def test_every_kind_occurs_within_five_minutes(seed: int, jobs: int, workers: int) -> None:
    assert {fault.kind for fault in make(seed, 300, jobs, workers).faults} == set(Kind)


@given(SEEDS, JOBS, WORKERS)
def test_only_faults_that_jobs_survive_together_meet(seed: int, jobs: int, workers: int) -> None:
    faults = make(seed, 1800, jobs, workers).faults
    for i, first in enumerate(faults):
        for second in faults[i + 1 : i + 20]:
            if second.at_s <= first.ends_s:
                assert frozenset({first.kind, second.kind}) in MAY_MEET, (first, second)


@given(SEEDS, JOBS, WORKERS)
def test_faults_come_in_order_and_last_as_long_as_their_kind_allows(
    seed: int, jobs: int, workers: int
) -> None:
    faults = make(seed, 900, jobs, workers).faults
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    for fault in faults:
        least, most = LASTS_S.get(fault.kind, (0, 0))
        assert least <= fault.lasts_s <= most
        assert fault.ends_s <= 900


@given(SEEDS, JOBS, WORKERS)
def test_faults_hit_jobs_that_run_and_workers_that_exist(
    seed: int, jobs: int, workers: int
) -> None:
    for fault, there in running(make(seed, 900, jobs, workers)):
        assert 1 <= len(there) <= jobs + 1
        assert fault.worker is None or 0 <= fault.worker < workers
        if fault.job is not None:
            assert (fault.job.name in there) != (fault.kind == Kind.JOB_JOINS)
            assert fault.rank is None or 0 <= fault.rank < fault.job.recipe.workers
            assert len(set(fault.job.hosts)) == fault.job.recipe.workers
            assert max(fault.job.hosts) < workers


def test_some_faults_meet_and_both_are_told_in_words() -> None:
    faults = make(1, 3600, 3, 4).faults
    meets = [b for a, b in pairwise(faults) if b.at_s <= a.ends_s]
    assert len(meets) > 5
    assert len({fault.says() for fault in faults}) > 100
