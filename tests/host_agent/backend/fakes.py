"""An engine and an agent that the test drives by hand; a world of one rank."""

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from wiresum.host_agent.agent.face import Unit
from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.backend.collective_router import CollectiveRouter, GroupOptions
from wiresum.host_agent.backend.fallback import make_fallback
from wiresum.host_agent.backend.process_group import WiresumProcessGroup, adapt
from wiresum.host_agent.backend.routing import reduce_op


@dataclass(frozen=True)
class Ended:
    ticket: int
    error: str | None = None
    kind: str | None = None
    nonfinite: Sequence[tuple[int, int]] = ()


@dataclass
class FakeEngine:
    """Sums over one rank (so it leaves the data alone); ends tickets at once, or on command."""

    at_once: bool = True
    calls: list[tuple[int, str, bool]] = field(default_factory=list)
    buffers: list[tuple[int, int]] = field(default_factory=list)
    tickets: list[int] = field(default_factory=list)
    ended: "queue.Queue[Ended | None]" = field(default_factory=queue.Queue)
    closed: bool = False
    suspended: str | None = None

    def collect(self, pieces: Unit) -> None:
        for piece in pieces:
            assert piece.data != 0 or piece.count == 0
            self.calls.append((piece.count, piece.dtype, piece.average))
            self.buffers.append((piece.data, piece.count))
            self.tickets.append(piece.ticket)
            if self.at_once:
                self.ended.put(Ended(piece.ticket))

    @property
    def started(self) -> int:
        return len(self.calls)

    def poll(self, timeout_s: float) -> Sequence[Ended]:
        try:
            ended = self.ended.get(timeout=timeout_s)
        except queue.Empty:
            return []
        return [] if ended is None else [ended]

    def stats(self) -> dict[str, int | float]:
        return {"collectives": len(self.calls)}

    def close(self) -> None:
        self.closed = True
        self.ended.put(None)


@dataclass
class FakeAgent:
    engine: FakeEngine = field(default_factory=FakeEngine)
    gone: Exception | None = None
    watched: Group | None = None

    leaves_switch = False
    may_have_switch = True
    collective_s = 60.0
    carrier = "switch"

    def check(self) -> None:
        if self.gone is not None:
            raise self.gone

    def register(self, group: str) -> None:
        pass

    def watch(self, group: Group) -> None:
        self.watched = group

    def describe(self) -> dict[str, Any]:
        return {"switch": "fake (127.0.0.1:1)"}

    def close(self) -> None:
        self.engine.close()


def options(op: object = dist.ReduceOp.SUM) -> dist.AllreduceOptions:
    """Those of an all-reduce with this operation."""
    made = dist.AllreduceOptions()
    made.reduceOp = reduce_op(op)
    return made


def group_of_one(
    agent: FakeAgent | None,
    why: str | None = None,
    timeout_s: float = 60.0,
    *,
    said: bool = False,
    world: CollectiveRouter | None = None,
    members: tuple[int, ...] = (),
) -> WiresumProcessGroup:
    store = dist.HashStore()
    timeout = timedelta(seconds=timeout_s)

    def make(prefix: str) -> dist.ProcessGroup:
        return make_fallback(store, 0, 1, timeout, prefix)

    options = GroupOptions("world", 0, 1, timeout, store, members=members)
    group = adapt(CollectiveRouter(options, make, agent, why, said=said, world=world), store)
    assert isinstance(group, WiresumProcessGroup)
    return group
