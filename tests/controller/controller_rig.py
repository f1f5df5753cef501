"""What the controller's tests share: a controller with its network face, and a fake switch."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient, add_switch_request
from wiresum.controller.client.requests import JoiningRank, SlotRequest
from wiresum.controller.office.office import Office
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.jobs import Created
from wiresum.controller.rules.limits import Limits
from wiresum.controller.southbound.loop import LoopOptions
from wiresum.controller.state.model import NO_LEASE, Job, JobState, SlotRange
from wiresum.controller.state.plan import Enqueue, Grant, Plan
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import Program, program

_R = TypeVar("_R")

ADMIN_TOKEN = "the-admin-of-the-tests"

QUICK = LoopOptions(period_s=60.0, retry_s=0.02, max_retry_s=0.1, connect_s=5.0, counters_s=0.5)
"""Passes happen because something changed, not because time went by."""


@dataclass
class Clock:
    """A clock that only the test moves."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time


ADMIN = Caller(admin=True)


class StillOffice(Office):
    """An office on a store, without tasks, switches or a network."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limits: Limits | None = None,
        usable: Callable[[str], bool] = lambda _name: True,
        programs: Callable[[int], Program] = program,
    ) -> None:
        super().__init__(store, clock=clock, limits=limits, usable=usable, programs=programs)
        self.recover()

    def create(self, caller: Caller = ADMIN, **request: Any) -> Created:
        """What CreateJob does for those who do not wait."""
        found = self.queue.request(pb.CreateJobRequest(**request), caller)
        if isinstance(found, Created):
            return found
        self.queue.present(found.job.id)
        while self.queue.decide().changing:
            pass
        job = self.jobs.get(found.job.id)
        if job.state is JobState.QUEUED:
            refusal = self.queue.refusal(job, caller)
            self.queue.leave(job.id)
            raise refusal
        return Created(job, self.jobs.another_token(job, request=""), attached=False)

    def join(self, job: Job, rank: int, workers: int, attempt: int = 0, change: int = 0) -> Job:
        """As 127.0.0.1, from a port of its own for each change."""
        request = pb.JoinJobRequest(
            job_id=job.id,
            rank=rank,
            workers=workers,
            attempt=attempt,
            change=change,
            ip="127.0.0.1",
            udp_port=1000 + 100 * change + rank,
            field=32,
        )
        return self.jobs.join(job, request)


def with_switches(store: Store, clock: Clock, *names: str) -> None:
    for name in names:
        StillOffice(store, clock).put_switch(
            add_switch_request(
                name,
                p4runtime=f"unix:/{name}",
                ip="127.0.0.1",
                udp_port=5555,
                hosts=[("0.0.0.0/0", 1)],
            )
        )


def grant(store: Store, job_id: str, *, number: int = 1, base: int = 0, **changes: object) -> None:
    """Have a job in the store that holds 16 slots of ``s1`` from ``base`` on."""
    job = Job(
        id=job_id, tenant="default", name=job_id, state=JobState.QUEUED, reason="", created=1.0,
        attempt=None, epoch=0, key=0, reply_key=0, workers=0, field=0,
        lease=NO_LEASE, target=16,
    )  # fmt: skip
    job = replace(job, **changes)  # type: ignore[arg-type]
    writes = (Enqueue(job), Grant(job_id, "s1", number, SlotRange(base, 16)))
    store.commit(Plan(job.created, writes))


@dataclass
class Rig:
    """A running controller with one switch, ``s1``: hosts 127/8 at port 1, 10.0.2/24 at port 2."""

    office: Office
    clock: Clock
    switch: FakeSwitch
    address: str
    client: ControllerClient = field(init=False)
    _threads: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.client = ControllerClient(self.address, token=ADMIN_TOKEN)
        self._threads = ThreadPoolExecutor(80)

    def close(self) -> None:
        self.client.close()
        self._threads.shutdown()

    async def call(self, request: Callable[[ControllerClient], _R], token: str | None = None) -> _R:
        """Make a (blocking) call to the controller, which runs in this very event loop.

        As the admin, unless ``token`` says otherwise.
        """
        loop = asyncio.get_running_loop()
        if token is None:
            return await loop.run_in_executor(self._threads, request, self.client)
        with ControllerClient(self.address, token=token) as client:
            return await loop.run_in_executor(self._threads, request, client)

    def facts(self, name: str = "s1", **changes: object) -> pb.AddSwitchRequest:
        facts: dict[str, object] = {
            "p4runtime": self.switch.address,
            "ip": "127.0.0.1",
            "udp_port": 5555,
            "hosts": [("127.0.0.0/8", 1), ("10.0.2.0/24", 2)],
            "lanes": 64,
        }
        return add_switch_request(name, **(facts | changes))  # type: ignore[arg-type]

    async def create(self, name: str = "", slots: int = 0, switch: str = "") -> pb.Job:
        return await self.call(
            lambda client: client.create_job(name, SlotRequest(slots), switch=switch)
        )

    async def get(self, job: pb.Job, *, counters: bool = False) -> pb.Job:
        return await self.call(lambda client: client.get_job(job.id, counters=counters))

    async def join(
        self, job: pb.Job, rank: int, workers: int = 2, attempt: int = 0, **changes: Any
    ) -> pb.Lease:
        """Join as ``rank``, from 127.0.0.1 and a port of its own for each attempt."""
        token, limit_s = changes.pop("token", job.token), changes.pop("timeout_s", 10.0)
        port = 4000 + 100 * attempt + rank
        joining = replace(JoiningRank(rank, workers, attempt, "127.0.0.1", port, 32), **changes)
        return await self.call(
            lambda client: client.join_job(job.id, token, joining, timeout_s=limit_s)
        )

    async def join_all(self, job: pb.Job, workers: int = 2, attempt: int = 0) -> list[pb.Lease]:
        ranks = range(workers)
        return await asyncio.gather(*(self.join(job, rank, workers, attempt) for rank in ranks))

    def member_count(self, job: pb.Job) -> int:
        stored = self.office.store.job(job.id)
        return len(stored.members) if stored else 0


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait until ``condition`` holds; fail if it takes longer than ``limit_s``."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
