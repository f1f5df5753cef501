"""What heartbeats make an agent do: change its lease, carry on, end; against a model controller."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from change_rig import LIMIT_S, ChangeRig, bound_socket, eventually

from reference_switch import Lease
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent._engine import Engine
from wiresum.host_agent.agent.agent import Agent, Held, JobGone
from wiresum.host_agent.agent.network import WorkerSocket
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.environment import Carrier, Environment


@dataclass
class Seat:
    """A membership (see ``join.Membership``) at the rig's controller."""

    rig: ChangeRig
    rank: int
    plan: Any = field(default_factory=lambda: SimpleNamespace(job="j-1", attempt=0))
    state: int = pb.JOB_STATE_READY
    reason: str = ""
    epoch: int | None = None
    away: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.client = SimpleNamespace(close=self.closed.set)

    def lease(self, epoch: int) -> pb.Lease:
        made = next(each for each in self.rig.rules.leases if each.epoch == epoch)
        return pb.Lease(
            switch_name="s1", switch_ip="127.0.0.1", job=made.job, epoch=epoch, key=made.key,
            reply_key=made.reply_key, slots=made.slot_count, lanes=64, workers=self.rig.workers,
            rank=self.rank, heartbeat_s=0.05, expiry_s=1.0, change=self.rig.controller.change,
        )  # fmt: skip

    def heartbeat(
        self, wait_s: float = 0.0, *, epoch: int = 0, change: int = 0
    ) -> pb.HeartbeatResponse:
        self.closed.wait(wait_s)
        if self.closed.is_set():
            raise ControllerError("CANCELLED", "closed")
        if self.away:
            raise ControllerError("UNAVAILABLE", "controller 127.0.0.1:1 cannot be reached")
        controller = self.rig.controller
        return pb.HeartbeatResponse(
            state=self.state,  # type: ignore[arg-type]
            reason=self.reason,
            epoch=self.epoch or controller.epoch,
            change=controller.announced,
        )

    def declare(self, lease: pb.Lease, change: int, started: int) -> int | None:
        return self.rig.controller.declare(self.rank, change, started)

    def open_socket(self) -> WorkerSocket:
        sock = bound_socket()
        return WorkerSocket(sock, *sock.getsockname())

    def rejoin(self, change: int, sock: WorkerSocket, waited_s: float) -> pb.Lease:
        address = sock.ip, sock.udp_port
        return self.lease(self.rig.controller.join(self.rank, change, address, 2.0).epoch)

    def start(self, sock: WorkerSocket, lease: pb.Lease, done: int) -> Engine:
        made = next(each for each in self.rig.rules.leases if each.epoch == lease.epoch)
        return self.rig.engine(self.rank, made, sock.socket, done)

    def release(self) -> None:
        """Nothing: the rig goes anyway."""


@contextmanager
def agents(workers: int, **options: Any) -> Iterator[tuple[ChangeRig, list[Agent], list[Seat]]]:
    seats: list[Seat] = []
    joined: list[Agent] = []
    limit_s = options.get("timeout_s", 6.0)
    where = Environment("127.0.0.1:1", "j-1", "t", 32, limit_s, carrier=Carrier.SWITCH)

    def agent_of(rank: int, lease: Lease, engine: Engine) -> Relay:
        seats.append(Seat(rig, rank))
        worker = Worker(where, None, rank, workers, timedelta(seconds=6), "1")  # type: ignore[arg-type]
        held = Held(seats[-1], seats[-1].lease(lease.epoch), engine)  # type: ignore[arg-type]
        joined.append(Agent(worker, seats[-1], held))  # type: ignore[arg-type]
        return joined[-1].engine

    rig = ChangeRig(workers, relay_of=agent_of, **options)
    with rig:
        try:
            yield rig, joined, seats
        finally:
            for agent in joined:
                agent.close()


def sum_works(rig: ChangeRig) -> None:
    tensors = [np.full(500, rank + 1.0, np.float32) for rank in range(rig.workers)]
    tickets = [each.all_reduce(tensor) for each, tensor in zip(rig.ranks, tensors, strict=True)]
    for each, ticket in zip(rig.ranks, tickets, strict=True):
        ended = each.wait(ticket)
        assert ended.error is None, ended.error
    total = rig.workers * (rig.workers + 1) / 2
    assert all((tensor == total).all() for tensor in tensors)


def gone(agent: Agent) -> str:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            agent.check()
        except JobGone as error:
            return str(error)
        time.sleep(0.01)
    raise AssertionError("the agent has noticed nothing")


def test_heartbeats_drive_changes() -> None:
    with agents(3) as (rig, joined, _):
        sum_works(rig)
        for change, slots in ((1, 16), (2, 64)):
            rig.controller.announce(slots)
            for agent in joined:
                eventually(lambda a=agent, c=change: a.describe()["change"] == c, "the change")  # type: ignore[misc]
                assert agent.describe()["slots"] == slots
            sum_works(rig)
        for agent in joined:
            agent.check()
            assert agent.engine.stats()["collectives"] == 3


def test_a_change_that_was_cancelled_is_tried_again() -> None:
    with agents(2) as (rig, joined, _):
        rig.controller.announce(16)
        rig.controller.cancel()
        time.sleep(0.3)
        sum_works(rig)
        assert joined[0].describe()["change"] == 0
        rig.controller.announce(32)
        for agent in joined:
            eventually(lambda a=agent: a.describe()["slots"] == 32, "the change")  # type: ignore[misc]
        sum_works(rig)


def test_a_job_that_is_evicted_in_a_change_ends_with_its_reason() -> None:
    with agents(2) as (rig, joined, seats):
        seats[1].away = True  # so the change does not get anywhere
        rig.controller.announce(16)
        eventually(lambda: 0 in rig.controller.declared, "rank 0 waits for rank 1")
        tensor = np.ones(10, np.float32)
        ticket = rig.ranks[0].all_reduce(tensor)
        seats[0].state, seats[0].reason = pb.JOB_STATE_EVICTED, "the rack goes down at noon"
        assert gone(joined[0]) == "job j-1 is evicted: the rack goes down at noon"
        assert rig.ranks[0].wait(ticket).kind == "EngineClosed"


@pytest.mark.parametrize("changing", [False, True])
def test_a_later_attempt_replaces_an_agent(changing: bool) -> None:
    with agents(2) as (rig, joined, seats):
        if changing:
            rig.controller.announce(16)
            seats[1].away = True
            eventually(lambda: 0 in rig.controller.declared, "rank 0 waits for rank 1")
        seats[0].epoch = 4711
        rig.controller.cancel()
        line = gone(joined[0])
        assert "epoch 4711: a later attempt has replaced this worker" in line


@pytest.mark.parametrize("step", ["declare", "join"])
def test_a_controller_that_stays_away_in_a_change_ends_the_lease_in_one_line(step: str) -> None:
    def away(rank: int, at: str, when: str) -> None:
        if at == step:
            for seat in seats:
                seat.away = True
            raise ControllerError("UNAVAILABLE", "controller 127.0.0.1:1 cannot be reached")

    seats: list[Seat] = []
    with agents(2, fault=away) as (rig, joined, made):
        seats += made
        rig.controller.announce(16)
        for agent in joined:
            line = gone(agent)
            assert "job j-1 has lost its lease: controller 127.0.0.1:1 cannot be reached" in line
        no_change_goes_on()


def test_a_rank_that_never_joins_ends_the_others_in_one_line_that_names_it() -> None:
    def hold(rank: int, at: str, when: str) -> None:
        if (rank, at) == (1, "join"):
            stuck.wait(LIMIT_S)
            raise ControllerError("UNAVAILABLE", "gone")

    stuck = threading.Event()
    with agents(2, fault=hold, timeout_s=3.0) as (rig, joined, _):
        rig.controller.announce(16)
        # A collective that rank 0 starts before it has declared would be part of the old lease.
        eventually(lambda: len(rig.controller.declared) == 2, "the ranks say where they are")
        held = rig.ranks[0].all_reduce(np.ones(3, np.float32))
        line = gone(joined[0])
        stuck.set()
        assert line == "change 1 of the lease has failed: ranks [1] did not join"
        assert rig.ranks[0].wait(held).kind == "EngineClosed"


def test_an_answer_that_a_job_is_over_gives_the_jobs_own_reason() -> None:
    def over(rank: int, at: str, when: str) -> None:
        if at == "join":
            for seat in seats:
                seat.state, seat.reason = pb.JOB_STATE_EVICTED, "noon"
            raise ControllerError("FAILED_PRECONDITION", "job j-1 is over: create a new one")

    seats: list[Seat] = []
    with agents(2, fault=over) as (rig, joined, made):
        seats += made
        rig.controller.announce(16)
        for agent in joined:
            assert gone(agent) == "job j-1 is evicted: noon"


def no_change_goes_on() -> None:
    eventually(
        lambda: not any(t.name == "wiresum-change" for t in threading.enumerate()),
        "the change has ended",
    )


def test_leaving_in_the_middle_of_a_change_ends_it() -> None:
    with agents(2) as (rig, joined, seats):
        seats[1].away = True
        rig.controller.announce(16)
        eventually(lambda: 0 in rig.controller.declared, "rank 0 waits for rank 1")
        joined[0].close()
        rig.controller.cancel()
        no_change_goes_on()
