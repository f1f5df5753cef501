"""Two controllers of one store, as processes: the one that leads stops, is cut off, or loses it."""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from controller_process import ADMIN_TOKEN, LIMIT_S, Serving, join, serving, switch_spec, until
from fake_switch import FakeSwitch

from support.postgres import Postgres, Proxy
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.v1 import controller_pb2 as pb


class Two:
    """``old`` leads at first; ``client`` knows both."""

    def __init__(self, old: Serving, new: Serving) -> None:
        self.old, self.new = old, new
        self.client = ControllerClient(self.both, token=ADMIN_TOKEN, timeout_s=LIMIT_S)
        assert old.ready["leader"] == new.ready["leader"] == old.address

    def start(self, name: str) -> tuple[pb.Job, list[pb.Lease]]:
        """A job of two workers, who have joined."""
        job = self.client.create_job(name, SlotRequest(64))
        with contextlib.ExitStack() as stack:
            from concurrent.futures import ThreadPoolExecutor

            threads = stack.enter_context(ThreadPoolExecutor(2))
            calls = [threads.submit(join, self.both, job, rank, LIMIT_S) for rank in range(2)]
            return job, [call.result(LIMIT_S) for call in calls]

    @property
    def both(self) -> str:
        return f"{self.old.address},{self.new.address}"

    def alive(self, job: pb.Job, lease: pb.Lease) -> None:
        """A worker's heartbeat: the same lease, whoever answers."""
        answer = self.client.heartbeat(job.id, job.token)
        assert (answer.state, answer.epoch) == (pb.JOB_STATE_READY, lease.epoch)


@contextlib.contextmanager
def two(store: str, spec: str, *options: str, other: str = "", **limits: Any) -> Iterator[Two]:
    arguments = ["--switch", spec, *options]
    with (
        serving("--store", store, *arguments, **limits) as old,
        serving("--store", other or store, *arguments, **limits) as new,
    ):
        made = Two(old, new)
        try:
            yield made
        finally:
            made.client.close()


def asked(child: Serving) -> str:
    """What a controller says to a client that knows no other; empty if it serves."""
    with ControllerClient(child.address, token=ADMIN_TOKEN, timeout_s=2.0) as client:
        try:
            client.list_tenants()
        except ControllerError as error:
            return str(error)
    return ""


def rows(fake: FakeSwitch) -> set[tuple[int, int]]:
    return {(row["epoch"], row["slot_base"]) for row in fake.table("membership")}


async def scenario(fake: FakeSwitch, play: Callable[[], list[pb.Lease]]) -> None:
    """Blocking, hence in a thread: the fake switch needs the event loop."""
    leases = await asyncio.to_thread(play)
    assert {epoch for epoch, _ in rows(fake)} == {lease.epoch for lease in leases}
    assert fake.pushes == 1
    # Once the switch had obeyed the new leader, it never did the old one's bidding again.
    assert fake.obeyed == sorted(fake.obeyed)


async def test_a_leader_that_was_stopped_writes_nothing_when_it_goes_on(
    fake: FakeSwitch, postgres_url: str
) -> None:
    def play() -> list[pb.Lease]:
        with two(postgres_url, switch_spec(fake.address)) as pair:
            first, (lease, _) = pair.start("first")
            pair.old.process.send_signal(signal.SIGSTOP)
            # A worker's call is stuck there, and goes on to the other by itself.
            pair.alive(first, lease)
            assert asked(pair.new) == ""
            pair.client.release_job(first.id, first.token)
            second, leases = pair.start("second")
            assert leases[0].epoch > lease.epoch
            before = rows(fake)
            pair.old.process.send_signal(signal.SIGCONT)
            until(lambda: re.search(f"does not lead, {pair.new.address} does", asked(pair.old)))
            pair.alive(second, leases[0])
            assert rows(fake) == before
            with pair.old.client() as client, pytest.raises(NotLeading):
                client.release_job(second.id, second.token)
            # It leads again when the other is gone.
            pair.new.end()
            pair.alive(second, leases[0])
            assert asked(pair.old) == ""
            return leases

    await scenario(fake, play)


async def test_a_leader_that_is_cut_off_from_its_store_leads_no_more(
    fake: FakeSwitch, postgres_server: Postgres, postgres_url: str
) -> None:
    def play() -> list[pb.Lease]:
        with (
            contextlib.closing(Proxy(postgres_server)) as proxy,
            two(proxy.url, switch_spec(fake.address), other=postgres_url) as pair,
        ):
            first, (lease, _) = pair.start("first")
            proxy.freeze()
            until(lambda: asked(pair.new) == "")
            # It knew before the other could lead.
            assert "does not" in asked(pair.old)
            pair.alive(first, lease)
            second, others = pair.start("second")
            proxy.thaw()
            until(lambda: re.search(f"does not lead, {pair.new.address} does", asked(pair.old)))
            pair.alive(second, others[0])
            return [lease, *others]

    await scenario(fake, play)


@pytest.mark.slow
async def test_a_store_that_is_away_ends_no_job(
    fake: FakeSwitch, postgres_server: Postgres, postgres_url: str
) -> None:
    """Longer than a lease lasts: every job has its whole time again."""

    def play() -> list[pb.Lease]:
        expiry = ("--expiry", "3")
        with two(postgres_url, switch_spec(fake.address), *expiry) as pair:
            job, (lease, _) = pair.start("demo")
            postgres_server.stop()
            try:
                until(lambda: "does not know who leads" in asked(pair.new))
                until(lambda: "does not" in asked(pair.old))
                time.sleep(3.5)
            finally:
                postgres_server.start()
            pair.alive(job, lease)
            # An operator ends all sessions: one of the two leads again.
            postgres_server.hang_up()
            until(lambda: "" in (asked(pair.old), asked(pair.new)))
            pair.alive(job, lease)
            return [lease]

    await scenario(fake, play)
