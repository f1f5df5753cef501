"""Process groups whose ranks are threads of this process, and carry everything themselves."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from fakes import FakeAgent

from support.thread_sums import thread_sums
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.backend.collective_router import CollectiveRouter, GroupOptions
from wiresum.host_agent.backend.fallback import make_fallback
from wiresum.host_agent.backend.process_group import WiresumProcessGroup, adapt

LIMIT = timedelta(seconds=60)


class Threads:
    """``size`` ranks; ``groups`` are theirs, ``agents`` too."""

    def __init__(self, size: int, field: int = 32) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(size)
        self.agents = [
            FakeAgent(engine=RanksEngine(sums, size, field))  # type: ignore[arg-type]
            for sums in thread_sums(size)
        ]
        store = dist.HashStore()

        def made(rank: int) -> WiresumProcessGroup:
            def make(prefix: str) -> dist.ProcessGroup:
                return make_fallback(store, rank, size, LIMIT, prefix)

            options = GroupOptions("world", rank, size, LIMIT, store)
            group = adapt(CollectiveRouter(options, make, self.agents[rank]), store)
            assert isinstance(group, WiresumProcessGroup)
            return group

        self.groups = list(self._threads.map(made, range(size)))

    def all(self, do: Callable[[Any, int], Any]) -> list[Any]:
        """What ``do(group, rank)`` returns on each rank, all ranks at a time."""
        return list(self._threads.map(do, self.groups, range(self.size)))

    def close(self) -> None:
        for group in self.groups:
            group.shutdown()
        self._threads.shutdown()


def bits(tensor: torch.Tensor) -> bytes:
    """The elements in their order, whatever they are."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
