"""What is concluded from the states of all ranks, and what is not."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers_rig import At

from wiresum.host_agent.agent.issued import FALLBACK, SWITCH, Issued, Ledger
from wiresum.host_agent.agent.peers.judge import FRESH_S, ROUNDS, Judge, State, Stream, stream_at
from wiresum.host_agent.errors import CollectiveMismatch, ResultLost

HOSTS = {0: "a", 1: "b", 2: "c"}


def waits(chunk: int, there: int, *, epoch: int = 7, ended: int = 0) -> State:
    return State(epoch, {"data": Stream(chunk, chunk + 4, there)}, (), ended)


def has(below: int, *, epoch: int = 7) -> State:
    return State(epoch, {"data": Stream(below, below)})


def rounds(judge: Judge, states: dict[int, State], count: int) -> list[object]:
    return [judge.hear(states) for _ in range(count)]


def test_a_result_that_the_switch_has_forgotten_is_found_after_some_rounds() -> None:
    states = {0: has(6), 1: waits(5, 0b010)}
    *before, verdict = rounds(Judge(HOSTS), states, ROUNDS)
    assert before == [None] * (ROUNDS - 1)
    assert isinstance(verdict, ResultLost)
    assert "data chunk 5" in str(verdict)
    assert "rank 0 on a has received and rank 1 on b has not" in str(verdict)
    assert "\n" not in str(verdict)


@pytest.mark.parametrize(
    "others",
    [
        {0: has(5)},  # has not come so far
        {0: waits(5, 0b001)},  # waits at the same chunk
        {0: has(6, epoch=8)},  # counts under another lease
        {0: has(0)},
        {},
    ],
)
def test_a_rank_that_waits_for_a_late_one_is_left_alone(others: dict[int, State]) -> None:
    states = others | {1: waits(5, 0b010)}
    assert rounds(Judge(HOSTS), states, 3 * ROUNDS) == [None] * 3 * ROUNDS


def test_a_wait_that_crosses_the_result_convicts_nobody() -> None:
    judge = Judge(HOSTS)
    for chunk in range(20):  # always one behind, and always at another chunk
        assert judge.hear({0: has(chunk + 1), 1: waits(chunk, 0b010)}) is None


def test_what_was_suspected_before_a_pause_does_not_count() -> None:
    judge = Judge(HOSTS)
    states = {0: has(6), 1: waits(5, 0b010)}
    rounds(judge, states, ROUNDS - 1)
    judge.forget()
    assert rounds(judge, states, ROUNDS - 1) == [None] * (ROUNDS - 1)


def test_a_rank_that_left_with_all_results_is_a_witness_too() -> None:
    judge = Judge(HOSTS)
    judge.left[0] = 3
    assert isinstance(rounds(judge, {1: waits(5, 0b010, ended=2)}, ROUNDS)[-1], ResultLost)
    judge.left[0] = 2  # of the third it knows nothing
    judge.forget()
    assert rounds(judge, {1: waits(5, 0b010, ended=2)}, ROUNDS) == [None] * ROUNDS


def issuing(*issued: Issued, there: int | None = None) -> State:
    return State(7, {"data": Stream(5, 6, there)}, issued)


def one(sequence: int, path: str = SWITCH, name: str = "all_reduce", **what: object) -> Issued:
    return Issued(sequence, name, path, **{"op": "SUM", "dtype": "float32", "elements": 8} | what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("its", "others"),
    [
        (one(3), one(3, elements=9)),
        (one(3), one(3, dtype="float16")),
        (one(3), one(3, op="AVG")),
        (one(3), one(3, FALLBACK, dtype="int64")),
        (one(3), one(3, FALLBACK, "broadcast", dtype="", elements=None)),
        (one(3), one(3, FALLBACK, "barrier", dtype="", op="", elements=None)),
    ],
)
def test_different_collectives_in_one_place_are_named_with_both_ranks(
    its: Issued, others: Issued
) -> None:
    states = {
        0: issuing(one(2), its, there=0b001),
        1: issuing(one(2), others, one(4)),
        2: issuing(one(2)),
    }
    verdict = Judge(HOSTS).hear(states)
    assert isinstance(verdict, CollectiveMismatch)
    assert str(verdict).startswith(f"{its} of rank 0 on a disagrees with {others} of rank 1 on b")


def test_the_first_place_is_named() -> None:
    states = {
        0: issuing(one(4, elements=1), there=1),
        1: issuing(one(4, elements=2)),
        2: issuing(one(3, elements=3), one(4, elements=3)),
    }
    states[1] = issuing(one(3, elements=2), one(4, elements=2))
    assert "all_reduce 3 (2 float32 SUM, over the switch)" in str(Judge(HOSTS).hear(states))


def test_ranks_that_do_not_wait_may_differ() -> None:
    """What has no consequence is nobody's business: a gather's sizes, a rank that is far ahead."""
    states = {0: issuing(one(3)), 1: issuing(one(3, elements=9))}
    assert Judge(HOSTS).hear(states) is None


@pytest.mark.parametrize(
    "others", [(), (one(1),), (one(3),), (one(3, dtype=""),), (one(9, elements=9),)]
)
def test_ranks_that_agree_or_have_not_come_so_far_are_left_alone(
    others: tuple[Issued, ...],
) -> None:
    states = {0: issuing(one(2), one(3), there=1), 1: issuing(*others)}
    assert rounds(Judge(HOSTS), states, 5) == [None] * 5


@pytest.mark.parametrize(
    ("at", "there"),
    [
        (At(5, 6, (5, 3), 0.1), 3),
        (At(5, 6, (5, 3), FRESH_S + 0.1), None),  # old
        (At(5, 6, (4, 3), 0.1), None),  # of a chunk whose result has come
        (At(6, 6, (6, 3), 0.1), None),  # nothing is in flight
        (At(5, 6, None, None), None),
    ],
)
def test_only_a_fresh_answer_about_the_oldest_chunk_is_a_wait(at: At, there: int | None) -> None:
    assert stream_at(at).there == there


def test_a_state_survives_its_message() -> None:
    state = State(
        7, {"data": Stream(2**63, 2**63 + 4, 2**64 - 1), "exponent": Stream(1, 1)}, (one(3),), 9
    )
    assert State.from_message(json.loads(json.dumps(state.to_message()))) == State(
        state.epoch, state.streams, [one(3)], 9
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["epoch", "streams", "issued", "ended"]), JSON) | JSON)
def test_any_other_message_is_refused_as_a_value(message: object) -> None:
    with contextlib.suppress(ValueError):
        State.from_message(message)


def test_a_ledger_numbers_and_forgets() -> None:
    ledger = Ledger()
    for number in range(1, 200):
        assert ledger.issue("all_reduce", SWITCH) == number
    latest = [each.sequence for each in ledger.issued()]
    assert latest == list(range(200 - len(latest), 200))
    assert 16 <= len(latest) <= 64
