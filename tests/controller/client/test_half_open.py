"""Hosts that die without a word: connections that are open at one end only."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controller_process import ADMIN_TOKEN, serving, switch_spec
from fake_switch import FakeSwitch

from support.half_open import Wire
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import JoiningRank, SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb

LIMIT_S = 90.0


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_rank_whose_host_is_gone_does_not_wait_any_more() -> None:
    """Though its call has an hour left, and would keep the job alive for as long."""
    spec = switch_spec("127.0.0.1:1")
    with (
        serving("--store", ":memory:", "--switch", spec, "--expiry", "3") as child,
        child.client() as client,
        Wire(child.listen) as wire,
        ThreadPoolExecutor(1) as threads,
    ):
        job = client.create_job("demo", SlotRequest(16))
        dead = ControllerClient(f"http://{wire.address}", token=job.token)
        waiting = threads.submit(
            lambda: dead.join_job(
                job.id,
                job.token,
                JoiningRank(rank=0, workers=2, attempt=0, ip="127.0.0.1", udp_port=4000, field=32),
                timeout_s=3600.0,
            )
        )
        until(lambda: client.get_job(job.id).joined == [0])
        time.sleep(4.0)  # it waits, so it lives
        assert client.get_job(job.id).state == pb.JOB_STATE_WAITING
        wire.cut()
        until(lambda: client.get_job(job.id).state == pb.JOB_STATE_EXPIRED)
        dead.close()
        assert isinstance(waiting.exception(LIMIT_S), ControllerError)


def test_a_client_finds_the_successor_of_a_controller_that_is_gone() -> None:
    with (
        serving("--store", ":memory:") as child,
        Wire(child.listen) as wire,
        ControllerClient(f"http://{wire.address}", token=ADMIN_TOKEN) as client,
    ):
        client.list_tenants()
        wire.cut()

        def hangs() -> bool:
            """Nobody answers, as it would be for a quarter of an hour."""
            try:
                client.list_tenants()
            except ControllerError as error:
                return error.code == "DEADLINE_EXCEEDED"
            raise AssertionError("who answered?")

        # Then the connection counts as dead, and another is tried.
        until(lambda: not hangs())


async def test_a_switch_that_is_gone_is_noticed(fake: FakeSwitch) -> None:
    def run() -> None:
        with Wire(fake.address) as wire:
            spec = switch_spec(wire.address)
            with (
                serving("--store", ":memory:", "--switch", spec) as child,
                child.client() as client,
            ):
                until(lambda: client.list_switches()[0].state == pb.SWITCH_STATE_UP)
                wire.cut()
                until(lambda: client.list_switches()[0].state == pb.SWITCH_STATE_DOWN)

    await asyncio.to_thread(run)
