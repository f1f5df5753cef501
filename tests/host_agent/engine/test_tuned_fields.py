"""Fields that change while collectives are in flight, around the reference switch, and over a
death of it."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from engine_rig import LIMIT_S, InThread, Rig, codec_alone
from handover_rig import Death
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference_switch import Faults
from support.examples import examples
from support.thread_sums import thread_sums
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.handover import hand_over
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.tuning.ballot import EVERY, Tuning
from wiresum.host_agent.agent.tuning.wish import Wish

SIZES = (3, 1500, 4000, 9_001)


class Rank:
    """One rank, whose training measures something else than the others'."""

    def __init__(self, number: int, workers: int, engine: Any, seed: int) -> None:
        self.tuning = Tuning(Wish(steps=1), number, workers)
        self.relay = Relay(engine, self.tuning)
        self.fields: dict[int, int] = {}
        self.errors: list[str | None] = []
        self._draw = random.Random(seed + number)
        plain = self.tuning.passing

        def passing(unit: Any) -> Any:
            passed = plain(unit)
            (call,) = [each for each in passed if each.ticket % 2 == 0]
            self.fields[call.ticket // 2] = call.field
            return passed

        self.tuning.passing = passing  # type: ignore[method-assign]
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def issue(self, array: NDArray[np.float32], ticket: int) -> None:
        self.tuning.loss(self._draw.uniform(1.0, 1.1))
        self.tuning.step(1.0, self._draw.choice([0.2, 0.9]))
        self.relay.collect([Call(array.ctypes.data, array.size, "float32", False, ticket)])

    def _poll(self) -> None:
        while not self._enough.is_set():
            self.errors += [each.error for each in self.relay.poll(0.05)]

    def leave_switch(self, sums: Any) -> None:
        """As ``agent.carriers`` does it."""
        engine: Any = self.relay.stand()
        assert engine.suspend("the test has said so")
        rests = hand_over(engine, sums)
        (most,) = sums.largest([len(rests)])
        ranks = RanksEngine(sums, self.tuning.workers, 32, rests=rests, most_rests=most)
        self.relay.take_over(ranks, moved=len(rests))

    def finish(self, count: int) -> None:
        deadline = time.monotonic() + LIMIT_S
        while len(self.errors) < count:
            assert time.monotonic() < deadline, f"only {len(self.errors)} have ended"
            time.sleep(0.002)
        assert self.errors == [None] * count

    def close(self) -> None:
        self.relay.close()
        self._enough.set()
        self._thread.join()


def tensors(rng: np.random.Generator, workers: int, count: int) -> list[list[NDArray[Any]]]:
    return [
        [rng.standard_normal(size).astype(np.float32) for _ in range(workers)]
        for size in rng.choice(SIZES, count)
    ]


def check(ranks: Sequence[Rank], data: list[list[NDArray[Any]]], before: Any) -> set[int]:
    """All ranks have used the same fields, and have the codec's bits; which fields."""
    first = ranks[0].fields
    assert all(rank.fields == first for rank in ranks)
    assert len({tuple(rank.tuning.choices) for rank in ranks}) == 1
    for ticket, (each, plain) in enumerate(zip(data, before, strict=True)):
        bits = codec_alone(plain, first[ticket] or 32, "float32", False)
        assert [array.tobytes() for array in each] == [bits] * len(ranks)
    return set(first.values())


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 4),
    lanes=st.sampled_from([64, 256]),
    loss=st.sampled_from([0.0, 0.05]),
    dies=st.booleans(),
)
def test_all_ranks_change_the_field_after_the_same_collective_and_get_the_same_bits(
    seed: int, workers: int, lanes: int, loss: float, dies: bool
) -> None:
    rng = np.random.default_rng(seed)
    data = tensors(rng, workers, 24)
    before = [[array.copy() for array in each] for each in data]
    death = Death(int(rng.integers(0, 2500)) if dies else 1 << 40, loss, seed)
    faults = Faults(seed=seed, intercept=death)
    with Rig(workers, lanes=lanes, slots=64, rto_min_s=0.002, faults=faults) as rig:
        ranks = [Rank(number, workers, rig.engines[number], seed) for number in range(workers)]
        try:
            for ticket, each in enumerate(data):
                for rank, array in zip(ranks, each, strict=True):
                    rank.issue(array, ticket)
                time.sleep(0.001)
            if dies:
                deadline = time.monotonic() + 0.3
                while not death.dead and time.monotonic() < deadline:
                    time.sleep(0.001)
                moving = [
                    InThread(lambda rank=rank, mine=mine: rank.leave_switch(mine))
                    for rank, mine in zip(ranks, thread_sums(workers), strict=True)
                ]
                for each in moving:
                    each.result()
            for rank in ranks:
                rank.finish(len(data))
            check(ranks, data, before)
        finally:
            for rank in ranks:
                rank.close()


def test_a_switch_gets_narrower_fields_without_another_lease() -> None:
    rng = np.random.default_rng(1)
    data = tensors(rng, 2, 12 * EVERY)
    before = [[array.copy() for array in each] for each in data]
    with Rig(2) as rig:
        ranks = [Rank(number, 2, rig.engines[number], 3) for number in range(2)]
        try:
            for ticket, each in enumerate(data):
                for rank, array in zip(ranks, each, strict=True):
                    rank.issue(array, ticket)
                for rank in ranks:
                    rank.finish(ticket + 1)
            assert check(ranks, data, before) >= {32, 16}
        finally:
            for rank in ranks:
                rank.close()
