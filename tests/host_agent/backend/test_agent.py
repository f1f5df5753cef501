"""An agent against a real controller and switch, in this process: a world of one rank."""

import contextlib
import dataclasses
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from support.impostor import impostor
from support.site import eventually
from support.torchruns import fresh_session
from wiresum import p4
from wiresum.common.errors import WiresumError
from wiresum.common.version import package_version
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.host_agent.agent import join as joining
from wiresum.host_agent.agent.agent import Agent, Held, JobGone
from wiresum.host_agent.agent.control import connect
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.join import Membership
from wiresum.host_agent.agent.network import WorkerSocket, local_address_towards, mac_of
from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.environment import (
    SHM,
    AgentError,
    Carrier,
    Environment,
    environment,
)
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session

LIMIT_S = 20.0
MINUTE = timedelta(seconds=60)
MAGIC = 0x77737232  # common/native/shm_ring.hpp


@pytest.fixture(scope="module")
def rack() -> Iterator[Session]:
    with fresh_session(carrier=Carrier.SWITCH) as session:
        yield session


@pytest.fixture
def session(rack: Session) -> Iterator[Session]:
    """A job of its own on the shared switch."""
    where = rack.environment
    options = JobOptions(
        controller=where.controller, token=where.tenant_token, carrier=Carrier.SWITCH
    )
    with Session(options) as session:
        yield session


@pytest.fixture
def join(session: Session) -> Iterator[Callable[..., Agent]]:
    agents = []

    def join(store: dist.Store | None = None, generation: str = "1") -> Agent:
        store = store or dist.HashStore()
        agent = Agent.join(Worker(session.environment, store, 0, 1, MINUTE, generation))
        agents.append(agent)
        return agent

    yield join
    for agent in agents:
        agent.close()


def gone(agent: Agent) -> str:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            agent.check()
        except JobGone as error:
            return str(error)
        time.sleep(0.05)
    raise AssertionError("the agent has noticed nothing")


def test_a_joined_agent_sums(session: Session, join: Callable[..., Agent]) -> None:
    agent = join()
    agent.check()
    tensor = torch.arange(1000.0)
    ticket = 1
    agent.engine.collect([Call(tensor.data_ptr(), 1000, "float32", False, ticket)])
    (ended,) = agent.engine.poll(LIMIT_S)
    assert (ended.ticket, ended.error) == (ticket, None)
    assert torch.equal(tensor, torch.arange(1000.0))
    said = agent.describe()
    assert said["job"] == session.job.id
    assert said["workers"] == 1
    assert session.job.token not in str(said)
    agent.close()
    agent.close()


def test_a_released_job_is_noticed_and_ends_what_is_in_flight(
    session: Session, join: Callable[..., Agent]
) -> None:
    agent = join()
    with connect(session.environment, session.job.token) as client:
        client.release_job(session.job.id, session.job.token)
    assert "is released" in gone(agent)
    # The reason is known a moment before the engine is closed with it.
    eventually(lambda: agent.engine.closed, "the engine is closed")


def test_a_later_attempt_replaces_an_agent(join: Callable[..., Agent]) -> None:
    first = join()
    second = join(generation="2")
    assert second.describe()["attempt"] == first.describe()["attempt"] + 1
    assert "a later attempt has replaced this worker" in gone(first)
    second.check()


def test_the_others_hear_why_rank_0_could_not_join(session: Session) -> None:
    store = dist.HashStore()
    where = Environment("127.0.0.1:1", "j", "t", 32, 5.0, carrier=Carrier.SWITCH)
    with pytest.raises(ControllerError) as first:
        Agent.join(Worker(where, store, 0, 2, MINUTE, "1"))
    with pytest.raises(AgentError) as second:
        Agent.join(Worker(where, store, 1, 2, MINUTE, "1"))
    assert str(second.value) == f"rank 0 could not join: {first.value}"


def test_a_rank_that_asks_another_controller_than_rank_0_says_so(session: Session) -> None:
    """As on two hosts that have started a switch each."""
    where = session.environment
    store = dist.HashStore()
    plan = {"job": "j-elsewhere", "token": "wsj_elsewhere", "attempt": 0, "owned": False}
    worker = Worker(where, store, 1, 2, MINUTE, "1")
    store.set(worker.key, json.dumps(plan))
    line = f"controller {where.controller} does not know the job of rank 0 (the controller does not"
    with pytest.raises(AgentError, match=re.escape(line)):
        Agent.join(worker)


def test_a_rank_0_that_never_comes_is_named() -> None:
    where = Environment("127.0.0.1:1", "j", "t", 32, 0.3)
    line = r"rank 0 has not joined within 0.3 s \(there of 2: rank 1 on "
    with pytest.raises(AgentError, match=line):
        Agent.join(Worker(where, dist.HashStore(), 1, 2, MINUTE, "1"))


def test_a_plan_of_an_attempt_that_is_over_is_not_used_twice(session: Session) -> None:
    """torchrun keeps the store: a rank restarted faster than rank 0 reads the old plan first."""
    store = dist.HashStore()
    agents: dict[str, Agent] = {}
    failures: list[WiresumError] = []

    def join(name: str, rank: int) -> None:
        try:
            agents[name] = Agent.join(Worker(session.environment, store, rank, 2, MINUTE, "1"))
        except WiresumError as error:
            failures.append(error)

    def run(*members: tuple[str, int]) -> list[threading.Thread]:
        threads = [threading.Thread(target=join, args=member) for member in members]
        for thread in threads:
            thread.start()
        return threads

    for thread in run(("a0", 0), ("a1", 1)):
        thread.join(LIMIT_S)
    early = run(("b1", 1))
    time.sleep(0.3)  # long enough to read the old plan; the outcome is the same if it is not
    for thread in [*run(("b0", 0)), *early]:
        thread.join(LIMIT_S)
    try:
        assert failures == []
        assert agents["b1"].describe()["epoch"] == agents["b0"].describe()["epoch"]
        assert agents["b0"].describe()["epoch"] > agents["a0"].describe()["epoch"]
    finally:
        for agent in agents.values():
            agent.close()


def test_addresses() -> None:
    assert local_address_towards("127.0.0.5", 9) == "127.0.0.1"
    assert mac_of("127.0.0.1") == ""
    assert mac_of("192.0.2.77") == ""  # not ours


@pytest.mark.parametrize(
    ("place", "version", "said"),
    [
        ("wiresum.controller.client.client.package_version", "7.8.9", "rank 0 runs wiresum 7.8.9"),
        ("wiresum.host_agent.agent.join.package_version", "7.8.9", "rank 0 runs wiresum 7.8.9"),
        ("wiresum.host_agent.agent.join._program_version", "6.6", "built for switch program 6.6"),
    ],
)
def test_a_wrong_version_is_refused_with_both_named(
    session: Session,
    join: Callable[..., Agent],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    version: str,
    said: str,
) -> None:
    monkeypatch.setattr(place, lambda *_: version)
    with pytest.raises(WiresumError) as caught:
        join()
    line = str(caught.value)
    ours = p4.program(session.job.lanes).version if "program" in said else package_version()
    assert said in line
    assert ours in line.replace(said, "")
    assert "install the same version on both" in line
    assert "\n" not in line


@pytest.mark.parametrize("through", ["udp", "shm"])
def test_a_lease_changes_for_a_job_of_higher_priority(through: str) -> None:
    """Against the real controller: shrunk, and given back what it had."""
    with fresh_session(slots=SlotRequest(4096), carrier=Carrier.SWITCH) as session:
        assert session.environment.shm
        where = dataclasses.replace(
            session.environment, shm="" if through == "udp" else session.environment.shm
        )
        agent = Agent.join(Worker(where, dist.HashStore(), 0, 1, MINUTE, "1"))
        try:
            with connect(where, where.tenant_token) as admin:
                admin.add_tenant("urgent", priority=10)
                sums(agent)
                urgent = admin.create_job(
                    request=SlotRequest(2048, on_full=OnFull.WAIT, queue_timeout_s=LIMIT_S),
                    tenant="urgent",
                )
                has_change(agent, 1)
                assert agent.describe()["slots"] < 4096
                sums(agent)
                admin.release_job(urgent.id, urgent.token)
            has_change(agent, 2)
            assert agent.describe()["slots"] == 4096
            sums(agent)
            agent.check()
            assert agent.engine.stats()["collectives"] == 3 * 20
        finally:
            agent.close()


ANOTHER_VERSION = struct.pack("=8IQ", MAGIC, 1, 0, 0, 0, 0, 0, 0, 0)
ANOTHER_HOST = struct.pack("=8IQ", MAGIC, 0, 2048, 512, 0x7F4D0002, 2000, 0x0A010203, 0, 1)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("absent", "cannot be reached: No such file or directory"),
        ("refused", "cannot be reached: Connection refused"),
        ("silent", "cannot be reached: no answer in time"),
        (b"", "has hung up: it has no room for another worker"),
        (bytes(28), "speaks another version: install the same wiresum on both sides"),
        (ANOTHER_VERSION, "speaks another version: install the same wiresum on both sides"),
        (ANOTHER_HOST, "is 10.1.2.3, the job's is 127.0.0.1"),
    ],
)
def test_udp_where_shared_memory_cannot_be_had(
    session: Session,
    tmp_path: Path,
    sockets: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: str | bytes,
    why: str,
) -> None:
    """One warning that says why; the job goes on."""
    path = tmp_path / "socket"
    monkeypatch.setattr(joining, "SHM_S", 0.3 if answer == "silent" else LIMIT_S)
    with contextlib.ExitStack() as stack:
        if isinstance(answer, bytes):
            stack.enter_context(impostor(path, answer))
        elif answer != "absent":
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listener.bind(str(path))
            if answer != "refused":
                listener.listen()
        where = dataclasses.replace(session.environment, shm=str(path))
        membership = Membership(Worker(where, dist.HashStore(), 0, 1, MINUTE, "1"))
        agent = Agent(membership._worker, membership, Held(membership, *membership.join()))
        stack.callback(agent.close)
        sums(agent)
        # Nor is it tried again with the next lease.
        with membership.open_socket().socket:
            assert sockets == ["udp", "udp"]
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    (line,) = said
    assert line.startswith(f"wiresum: UDP instead of shared memory: the switch at {path} ")
    assert line.endswith(why)


@pytest.mark.parametrize("through", ["udp", "shm"])
def test_the_socket_in_the_environment_is_used(
    rack: Session, session: Session, sockets: list[str], through: str
) -> None:
    variables = session.variables() | {SHM: rack.environment.shm if through == "shm" else ""}
    where = environment(variables)
    assert where is not None
    agent = Agent.join(Worker(where, dist.HashStore(), 0, 1, MINUTE, "1"))
    try:
        sums(agent)
    finally:
        agent.close()
    assert sockets == [through]


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of sockets that workers have got, in their order."""
    got: list[str] = []

    def spy(kind: str, make: Callable[..., WorkerSocket]) -> Callable[..., WorkerSocket]:
        def noted(*arguments: Any) -> WorkerSocket:
            made = make(*arguments)
            got.append(kind)
            return made

        return noted

    monkeypatch.setattr(joining, "udp_socket", spy("udp", joining.udp_socket))
    monkeypatch.setattr(joining, "shm_socket", spy("shm", joining.shm_socket))
    return got


def has_change(agent: Agent, number: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while agent.describe()["change"] < number:
        assert time.monotonic() < deadline, agent.describe()
        time.sleep(0.01)


def sums(agent: Agent) -> None:
    """Twenty all-reduces over one rank, all in flight at once: they leave the data alone."""
    tensors = [torch.arange(50_000.0) + number for number in range(20)]
    first = agent.engine.done + 1
    open_tickets = set(range(first, first + len(tensors)))
    for ticket, tensor in zip(sorted(open_tickets), tensors, strict=True):
        agent.engine.collect([Call(tensor.data_ptr(), tensor.numel(), "float32", False, ticket)])
    deadline = time.monotonic() + LIMIT_S
    while open_tickets:
        assert time.monotonic() < deadline
        for ended in agent.engine.poll(1.0):
            assert ended.error is None, ended.error
            open_tickets.remove(ended.ticket)
    assert all(torch.equal(t, torch.arange(50_000.0) + n) for n, t in enumerate(tensors))
