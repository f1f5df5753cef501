"""A worker of a group that has not begun, when a rank of the run is gone."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import pytest
import torch.distributed as dist

from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent.face import Call, Finished
from wiresum.host_agent.agent.issued import Issued
from wiresum.host_agent.agent.part import NoWhole, PartAgent
from wiresum.host_agent.agent.peers.member import Gone
from wiresum.host_agent.agent.worker import Part, Worker
from wiresum.host_agent.environment import environment
from wiresum.host_agent.errors import PeerLost


class Group:
    """Notes why it was ended."""

    def __init__(self) -> None:
        self.aborted: list[WiresumError] = []

    def issued(self) -> Sequence[Issued]:
        return ()

    def abort(self, error: WiresumError) -> None:
        self.aborted.append(error)


@pytest.fixture
def agent() -> Iterator[PartAgent]:
    where = environment({"WIRESUM_CARRIER": "ranks"})
    assert where is not None
    part = Part("group-1", (1, 3), NoWhole(), "the group of ranks 1, 3", 0.125)
    worker = Worker(where, dist.HashStore(), 0, 2, timedelta(seconds=60), "0.0", part=part)
    made = PartAgent.of(worker)
    yield made
    made.close()


def waits(agent: PartAgent, memory: np.ndarray) -> None:
    agent.engine.collect([Call(memory.ctypes.data, memory.size, "float32", False, 7)])


def only(batch: Sequence[Finished]) -> Finished:
    (found,) = batch
    return found


@pytest.mark.parametrize("after", [None, 12], ids=["died", "left"])
def test_what_waits_ends_but_the_fallback_goes_on_with_what_a_rank_has_left(
    agent: PartAgent, after: int | None
) -> None:
    group, memory = Group(), np.ones(2000, np.float32)
    agent.watch(group)
    waits(agent, memory)
    agent.rank_is_gone(Gone(3, "there", 0.0, after, 12))
    ended = only(agent.engine.poll(0.0))
    assert (ended.ticket, ended.kind) == (7, "PeerLost")
    assert "the group of ranks 1, 3 cannot begin" in str(ended.error)
    with pytest.raises(PeerLost, match="rank 3 on there"):
        agent.check()
    assert len(group.aborted) == (after is None)


def test_a_rank_of_other_groups_ends_nothing(agent: PartAgent) -> None:
    group = Group()
    agent.watch(group)
    agent.rank_is_gone(Gone(2, "there", 0.0))
    agent.check()
    assert group.aborted == []
