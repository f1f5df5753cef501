"""Ranks that come, go and die between the steps of a training, on a real switch and controller.

Each rank is a thread of this process with an agent of its own, so that what it leaves behind can be
counted here. A training step adds the all-reduced gradients, small integers, to the weights: its
result follows from the number of ranks, exactly. A rank that dies closes its sockets, as a killed
process does, and says nothing to anybody.
"""

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from support.thread_sums import ThreadSums, thread_sums
from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent.agent import Agent
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.environment import Environment

LIMIT_S = 200.0
SILENT_S = 60.0
"""How long the switch may be silent: a busy machine alone makes no rank leave it."""
SIZE = 3000
Weights = NDArray[np.float32]


def gradients(seed: int, rank: int) -> Weights:
    """Of one rank in the step of that seed; integers, so that sums are exact."""
    return np.random.default_rng([seed, rank]).integers(-50, 50, SIZE).astype(np.float32)


def stepped(weights: Weights, seed: int, ranks: int) -> Weights:
    """The weights after a step of so many ranks."""
    total = np.zeros(SIZE, np.int64)
    for rank in range(ranks):
        total += gradients(seed, rank).astype(np.int64)
    return (weights + total).astype(np.float32)


class Job:
    """A call on a rank's thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._ended = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error
        self._ended.set()

    def result(self) -> Any:
        assert self._ended.wait(LIMIT_S), "it hangs"
        if self._error is not None:
            raise self._error
        return self._value


class Member:
    """One rank, over all groups that it is in."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights.copy()
        self.agent: Agent | None = None
        self._rank = 0
        self._tickets = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="churn-rank", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()

    def do(self, call: Callable[..., Any], *arguments: Any) -> Job:
        """Begin a call on the rank's thread."""
        job = Job(lambda: call(*arguments))
        self._jobs.put(job)
        return job

    def end(self) -> None:
        """End the thread."""
        self._jobs.put(None)
        self._thread.join(LIMIT_S)

    # -- on the thread ------------------------------------------------------------------------

    def join(self, worker: Worker, sums: ThreadSums, weights: Weights) -> int:
        """Join a group with the weights of the checkpoint; the epoch."""
        self.weights, self._rank, self._tickets = weights.copy(), worker.rank, 0
        self.agent = Agent.join(worker)
        self.agent.use_ranks(sums)
        return int(self.agent.describe().get("epoch", 0))

    def step(self, seed: int) -> str:
        """One step; the kind of the error that has ended it, if any."""
        assert self.agent is not None
        tensor = gradients(seed, self._rank)
        self._tickets += 1
        try:
            self.agent.check()
            call = Call(tensor.ctypes.data, SIZE, "float32", False, self._tickets)
            self.agent.engine.collect([call])
        except WiresumError as error:
            return type(error).__name__
        deadline = time.monotonic() + LIMIT_S
        while not (ended := self.agent.engine.poll(0.2)):
            assert time.monotonic() < deadline, f"rank {self._rank} waits for a sum for ever"
        (only,) = ended
        assert only.ticket == self._tickets
        if only.error is None:
            self.weights += tensor
        return only.kind or ""

    def leave(self) -> None:
        """Leave the group."""
        assert self.agent is not None
        closing = threading.Thread(target=self.agent.close)
        closing.start()
        while closing.is_alive():  # as the backend's poller does
            self.agent.engine.poll(0.01)
            closing.join(0.005)
        self.agent = None

    def die(self) -> Agent:
        """Close all that is open to others, without a word; the agent, to be buried."""
        agent, self.agent = self.agent, None
        assert agent is not None
        if agent._peers is not None:
            agent._peers._role.close()
        assert agent._heartbeats is not None
        agent._heartbeats.stop()
        membership = agent._membership
        assert membership is not None
        membership.client.close()
        agent.engine.close()
        return agent


def bury(agent: Agent) -> None:
    """Let the dead rank's threads end, which a killed process does not have any more."""
    agent._carriers.close()
    with contextlib.suppress(OSError):
        agent.close()


class Group:
    """The ranks of one attempt after the other."""

    def __init__(self, environment: Environment) -> None:
        self._where = dataclasses.replace(environment, switch_timeout_s=SILENT_S)
        self._store = dist.HashStore()
        self.weights = np.zeros(SIZE, np.float32)
        """What every rank must have: computed here."""
        self.members: list[Member] = []
        self.epochs: list[int] = []
        self._generation = 0

    def grow(self) -> None:
        """A rank more; it joins with the next :meth:`form`."""
        self.members.append(Member(self.weights))

    def form(self) -> None:
        """A new attempt of all members: another n, another lease, another epoch."""
        self._generation += 1
        workers = len(self.members)
        joining = []
        for rank, (member, sums) in enumerate(zip(self.members, thread_sums(workers), strict=True)):
            worker = Worker(
                self._where,
                self._store,
                rank,
                workers,
                timedelta(seconds=LIMIT_S),
                f"churn{self._generation}",
            )
            joining.append(member.do(member.join, worker, sums, self.weights))
        (epoch,) = {job.result() for job in joining}
        assert epoch > max(self.epochs, default=0), "epochs grow, and no one is used twice"
        self.epochs.append(epoch)

    def step(self, seed: int) -> None:
        """A step of all members."""
        jobs = [member.do(member.step, seed) for member in self.members]
        assert [job.result() for job in jobs] == [""] * len(jobs)
        self.advance(seed)

    def advance(self, seed: int) -> None:
        """The step was made: all weights must show it."""
        self.weights = stepped(self.weights, seed, len(self.members))
        for member in self.members:
            assert np.array_equal(member.weights, self.weights)

    def part(self, members: Sequence[Member]) -> None:
        """These leave the attempt together."""
        for job in [member.do(member.leave) for member in members]:
            job.result()

    # -- events -------------------------------------------------------------------------------

    def a_rank_joins(self, _seed: int) -> None:
        """All leave, and begin again with one more."""
        self.part(self.members)
        self.grow()

    def a_rank_leaves(self, seed: int, which: int, *, late: bool) -> None:
        """One leaves. ``late``: the others begin a step without it, and hear of it."""
        member = self.members.pop(which)
        others = self.members
        if late:
            jobs = [other.do(other.step, seed) for other in others]
            self.part([member])
            assert {job.result() for job in jobs} == {"PeerLost"}
            self.part(others)
        else:
            self.part([member, *others])
        member.end()

    def a_rank_dies(self, seed: int, which: int, *, late: bool) -> None:
        """One dies before a step, or, ``late``, after it."""
        member = self.members[which]
        others = [each for each in self.members if each is not member]
        jobs = [other.do(other.step, seed) for other in others]
        if late:
            assert member.do(member.step, seed).result() == ""
        dead = member.do(member.die).result()
        said = {job.result() for job in jobs}
        assert said == ({""} if late else {"PeerLost"}), said
        if late:
            self.advance(seed)
        self.members.remove(member)
        self.part(others)
        bury(dead)
        member.end()
