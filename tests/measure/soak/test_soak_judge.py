"""A soak's judge finds a wrong bit, a hang, an unasked restart, a skipped step and a leak."""

import dataclasses

import pytest

from wiresum.measure.soak import leaks
from wiresum.measure.soak.judge import Judge, SoakFailed, Step

EXPECTED = ("a", "b", "c")


def step(number: int, *, pid: int = 10, carrier: str = "switch", took_s: float = 0.1) -> Step:
    """The step that a rank has done after ``number`` others."""
    lap, at = divmod(number, len(EXPECTED))
    return Step(pid, lap, at, EXPECTED[at], carrier, took_s)


@pytest.fixture
def judge() -> Judge:
    """Of one job with two ranks, which begins at 0 s."""
    made = Judge(limit_s=10.0)
    made.begins("j", EXPECTED, 2, 0.0)
    return made


def train(judge: Judge, steps: int, **facts: int) -> None:
    for number in range(steps):
        for rank in range(2):
            judge.steps("j", rank, step(number, **facts), number)


def test_laps_that_are_as_they_must_be_are_counted(judge: Judge) -> None:
    train(judge, 6)
    assert judge.totals.steps == 12
    assert judge.totals.restarts == 0
    assert judge.done("j") == 6
    judge.leaves("j")
    judge.ends("j", 0, "", "log")
    assert judge.running == []


def test_one_wrong_digest_of_one_rank_is_found(judge: Judge) -> None:
    train(judge, 4)
    wrong = dataclasses.replace(step(4), digest="x", carrier="ranks")
    with pytest.raises(SoakFailed, match=r"j, rank 1, lap 1, step 1, over the ranks: .* x, .* b"):
        judge.steps("j", 1, wrong, 4)


def test_a_rank_that_does_nothing_for_too_long_is_found(judge: Judge) -> None:
    train(judge, 2)
    judge.steps("j", 0, step(2), 9.0)
    judge.look(11.0)  # rank 1 has done its last step at 1 s
    with pytest.raises(SoakFailed, match=r"rank 1 of j has done no step for 10 s; its last .*0:1"):
        judge.look(11.5)


def test_a_job_that_never_does_a_step_is_found(judge: Judge) -> None:
    judge.look(19.0)
    with pytest.raises(SoakFailed, match="none yet"):
        judge.look(21.0)


def test_a_killed_worker_may_take_as_long_as_a_start(judge: Judge) -> None:
    train(judge, 2)
    judge.kills("j", 5.0)
    judge.look(24.0)
    with pytest.raises(SoakFailed, match="no step for 20 s"):
        judge.look(26.0)


def test_steps_after_a_kill_are_compared_again(judge: Judge) -> None:
    train(judge, 5)
    judge.kills("j", 5.0)
    for rank in range(2):
        judge.steps("j", rank, step(3, pid=20), 9.0)
    assert judge.totals.restarts == 2
    with pytest.raises(SoakFailed, match="the weights are"):
        judge.steps("j", 0, dataclasses.replace(step(4, pid=20), digest="x"), 9.0)


def test_a_restart_that_nobody_caused_is_found(judge: Judge) -> None:
    train(judge, 2)
    with pytest.raises(SoakFailed, match=r"started again once more than workers .* killed .0."):
        judge.steps("j", 0, step(0, pid=20), 2.0)


def test_a_second_restart_after_one_kill_is_found(judge: Judge) -> None:
    train(judge, 2)
    judge.kills("j", 2.0)
    judge.steps("j", 1, step(0, pid=20), 3.0)
    with pytest.raises(SoakFailed, match=r"started again once more than workers .* killed .1."):
        judge.steps("j", 1, step(0, pid=21), 4.0)


@pytest.mark.parametrize("wrong", [1, 3, 5])
def test_a_step_that_is_skipped_or_done_twice_is_found(judge: Judge, wrong: int) -> None:
    train(judge, 2)
    with pytest.raises(SoakFailed, match="after 2 steps"):
        judge.steps("j", 0, step(wrong), 2.0)


def test_a_restart_that_skips_steps_is_found(judge: Judge) -> None:
    train(judge, 2)
    judge.kills("j", 2.0)
    with pytest.raises(SoakFailed, match="after 2 steps"):
        judge.steps("j", 0, step(3, pid=20), 2.0)


def test_a_job_that_ends_by_itself_or_badly_or_unevenly_is_found(judge: Judge) -> None:
    train(judge, 3)
    with pytest.raises(SoakFailed, match="j has ended with status 0"):
        judge.ends("j", 0, "", "log")
    judge.begins("k", EXPECTED, 2, 0.0)
    judge.leaves("k")
    with pytest.raises(SoakFailed, match=r"k has ended with status 1: PeerLost; .* its.log"):
        judge.ends("k", 1, ": PeerLost", "its.log")
    judge.begins("l", EXPECTED, 2, 0.0)
    judge.leaves("l")
    for number in range(6):
        judge.steps("l", 0, step(number), number)
        if number < 3:
            judge.steps("l", 1, step(number), number)
    with pytest.raises(SoakFailed, match="the ranks of l have ended after different steps"):
        judge.ends("l", 0, "", "log")


def test_changes_of_the_carrier_and_long_steps_are_told(judge: Judge) -> None:
    for number, carrier in enumerate(["switch", "ranks", "ranks", "switch"]):
        for rank in range(2):
            judge.steps("j", rank, step(number, carrier=carrier, took_s=number), number)
    assert judge.news() == "j switch → ranks → switch, longest step 3.0 s"
    assert (judge.totals.to_ranks, judge.totals.to_switch) == (1, 1)
    assert judge.news() == "j no step, longest step 0.0 s"


def test_a_job_is_fresh_once_each_rank_has_done_a_step_since(judge: Judge) -> None:
    train(judge, 2)
    assert not judge.fresh("j", 1.0)
    judge.steps("j", 0, step(2), 2.0)
    assert not judge.fresh("j", 1.0)
    judge.steps("j", 1, step(2), 2.5)
    assert judge.fresh("j", 1.0)
    assert judge.fresh("gone", 1.0)


def test_a_job_with_a_killed_worker_is_fresh_once_all_its_ranks_have_started_again(
    judge: Judge,
) -> None:
    train(judge, 2)
    judge.kills("j", 2.0)
    judge.steps("j", 0, step(2), 2.5)  # done before the kill, read after it
    judge.steps("j", 1, step(2), 2.5)
    judge.steps("j", 0, step(0, pid=20), 5.0)
    assert not judge.fresh("j", 2.1)
    judge.steps("j", 1, step(0, pid=20), 6.0)
    assert judge.fresh("j", 2.1)


def test_a_step_that_began_before_the_fault_ended_is_not_fresh(judge: Judge) -> None:
    train(judge, 2)
    judge.steps("j", 0, step(2, took_s=1.5), 3.0)
    judge.steps("j", 1, step(2, took_s=0.5), 3.0)
    assert not judge.fresh("j", 2.0)
    assert judge.fresh("j", 1.4)


def test_a_kill_without_a_restart_is_found_though_the_ranks_do_steps(judge: Judge) -> None:
    train(judge, 2)
    judge.kills("j", 2.0)
    for rank in range(2):
        judge.steps("j", rank, step(0, pid=20), 3.0)
    for now in (12.0, 22.0):  # nothing is late within 20 s after a kill
        judge.look(now)
        for rank in range(2):
            judge.steps("j", rank, step(int(now) // 10, pid=20), now)
    judge.kills("j", 22.0)
    for number, now in enumerate((31.0, 40.0), start=3):
        judge.look(now)
        for rank in range(2):
            judge.steps("j", rank, step(number, pid=20), now)
    with pytest.raises(SoakFailed, match=r"rank 0 of j was not started again within 20 s after"):
        judge.look(42.5)


def test_what_is_left_behind_is_told() -> None:
    with pytest.raises(SoakFailed, match=r"left behind after 0\.5 s: job a, 512 slots"):
        leaks.none_left(lambda: ["job a", "512 slots"], limit_s=0.5)


def test_what_goes_away_in_time_is_no_leak() -> None:
    found = [["process 1"], ["process 1"], []]
    leaks.none_left(lambda: found.pop(0), limit_s=60)
    assert found == []
