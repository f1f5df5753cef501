"""A job whose ranks are threads, and choose alike while they train."""

import time
from collections.abc import Sequence

import numpy as np

from support.thread_sums import thread_sums
from wiresum.host_agent.agent.face import Call, Finished
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.tuning.ballot import Tuning
from wiresum.host_agent.agent.tuning.wish import Wish


class Job:
    """Ranks that are threads: with a tuning each, or with one ``field`` for good."""

    def __init__(self, ranks: int, field: int | None = None) -> None:
        wish = Wish(steps=2)
        self.tunings = [Tuning(wish, rank, ranks) for rank in range(ranks) if field is None]
        self.relays = [
            Relay(RanksEngine(sums, ranks, field or 32), None if field else self.tunings[rank])
            for rank, sums in enumerate(thread_sums(ranks))
        ]
        self.ticket = 0
        self.sums: list[list[bytes]] = []

    def sum(self, tensors: list[np.ndarray]) -> list[bytes]:
        self.ticket += 1
        copies = [tensor.copy() for tensor in tensors]
        for relay, copy in zip(self.relays, copies, strict=True):
            relay.collect([Call(copy.ctypes.data, copy.size, "float32", False, self.ticket)])
        for relay in self.relays:
            (ended,) = self._poll(relay)
            assert (ended.ticket, ended.error) == (self.ticket, None)
        self.sums.append([copy.tobytes() for copy in copies])
        return self.sums[-1]

    def _poll(self, relay: Relay) -> Sequence[Finished]:
        """What has ended; an empty answer stands for a word between the ranks."""
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            if ended := relay.poll(60.0):
                return ended
        raise AssertionError("nothing ends")

    def close(self) -> None:
        for relay in self.relays:
            relay.close()
