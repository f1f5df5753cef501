"""All ranks of one start have one name for it, and those of an earlier start have another."""

import threading
import time
from typing import Any

import pytest
import torch.distributed as dist

from wiresum.host_agent.agent.generation import generation
from wiresum.host_agent.environment import AgentError

LIMIT_S = 60.0
ELASTIC = {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "2"}


class DictStore:
    """A store in this process; ``threading`` makes its single operations atomic."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self._values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self._values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)


def start(store: Any, delays: list[float], restarts: list[int]) -> list[str]:
    """All ranks start, each after its delay; the name that each has."""
    names: dict[int, str] = {}

    def run(rank: int) -> None:
        time.sleep(delays[rank])
        env = ELASTIC | {"TORCHELASTIC_RESTART_COUNT": str(restarts[rank])}
        names[rank] = generation(store, rank, len(delays), 1, LIMIT_S, env)

    threads = [threading.Thread(target=run, args=[rank]) for rank in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    return [names[rank] for rank in range(len(delays))]


@pytest.mark.parametrize("make", [DictStore, dist.HashStore])
def test_nodes_that_count_their_restarts_differently_agree(make: Any) -> None:
    store, seen = make(), set()
    for delays in ([0.0, 0.0, 0.0], [0.2, 0.0, 0.1], [0.0, 0.2], [0.1, 0.0, 0.0, 0.2]):
        names = start(store, delays, restarts=[3, 0, 1, 0])
        (name,) = set(names)
        assert name not in seen
        seen.add(name)


def test_a_rank_0_that_does_not_answer_is_an_error() -> None:
    store = DictStore()
    start(store, [0.0, 0.0], [0, 0])
    with pytest.raises(AgentError, match=r"rank 0 has not been heard of within 0\.2 s"):
        generation(store, 1, 2, 1, 0.2, ELASTIC)  # type: ignore[arg-type]


def test_a_rank_0_does_not_wait_for_ever() -> None:
    assert generation(DictStore(), 0, 2, 1, 0.2, ELASTIC)  # type: ignore[arg-type]


def test_one_node_counts_its_restarts() -> None:
    one = ELASTIC | {"GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert generation(DictStore(), 1, 4, 3, LIMIT_S, one) == "2.3"  # type: ignore[arg-type]


def test_a_new_store_needs_no_agreement() -> None:
    env = {"TORCHELASTIC_RESTART_COUNT": "2", "GROUP_WORLD_SIZE": "2"}
    assert generation(DictStore(), 1, 4, 3, LIMIT_S, env) == "0.3"  # type: ignore[arg-type]
