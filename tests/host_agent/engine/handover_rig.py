"""A switch that dies, and ranks that go on without it."""

import random
import time
from collections.abc import Sequence
from typing import Any

from engine_rig import LIMIT_S, InThread, Rig

from support.thread_sums import thread_sums
from wiresum.host_agent.agent.handover import hand_over
from wiresum.host_agent.agent.ranks import RanksEngine


class Death:
    """Loses every packet once ``packets`` have passed, and some before."""

    def __init__(self, packets: int, loss: float, seed: int) -> None:
        self._left = packets
        self._loss = loss
        self._random = random.Random(seed)

    def __call__(self, _payload: bytes, _address: object, _direction: str) -> bool:
        self._left -= 1
        return self._left < 0 or self._random.random() < self._loss

    @property
    def dead(self) -> bool:
        return self._left < 0


class Ranks:
    """The ranks of a rig, from one carrier to the other."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.sums = thread_sums(rig.workers)
        self.ranks: list[RanksEngine] = []
        self.over: list[dict[int, Any]] = [{} for _ in rig.engines]

    def hand_over(self) -> None:
        threads = [InThread(lambda rank=rank: self._one(rank)) for rank in range(self.rig.workers)]
        self.ranks = [thread.result() for thread in threads]

    def _one(self, rank: int) -> RanksEngine:
        engine = self.rig.engines[rank]
        assert engine.suspend("the test has said so")
        rests = hand_over(engine, self.sums[rank])
        for each in engine.poll(0.0):
            self.over[rank][each.ticket] = each
        sums = self.sums[rank]
        (most,) = sums.largest([len(rests)])
        workers, field = self.rig.workers, self.rig.field
        return RanksEngine(sums, workers, field, rests=rests, most_rests=most)

    def finish(self, tickets: Sequence[int]) -> None:
        deadline = time.monotonic() + LIMIT_S
        for rank, engine in enumerate(self.ranks):
            while not self.over[rank].keys() >= set(tickets):
                assert time.monotonic() < deadline, f"rank {rank} has {sorted(self.over[rank])}"
                for each in engine.poll(0.1):
                    self.over[rank][each.ticket] = each
            assert [self.over[rank][t].error for t in tickets] == [None] * len(tickets)

    def close(self) -> None:
        for engine in self.ranks:
            engine.close()
