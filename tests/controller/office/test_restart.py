"""A controller that is killed and started again on its store."""

import asyncio
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from controller_process import LIMIT_S, serving, store_argument, switch_spec
from fake_switch import FakeSwitch

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import JoiningRank, SlotRequest
from wiresum.controller.v1 import controller_pb2 as pb


def join(
    client: ControllerClient, job: pb.Job, attempt: int, rank: int, unreachable_s: float = LIMIT_S
) -> pb.Lease:
    return client.join_job(
        job.id,
        job.token,
        JoiningRank(
            rank=rank, workers=2, attempt=attempt, ip="127.0.0.1", udp_port=4000 + rank, field=32
        ),
        timeout_s=LIMIT_S,
        unreachable_s=unreachable_s,
    )


def until_joined(client: ControllerClient, job: pb.Job) -> None:
    deadline = time.monotonic() + 20.0
    while not client.get_job(job.id).joined:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def join_both(client: ControllerClient, job: pb.Job, attempt: int) -> pb.Lease:
    with ThreadPoolExecutor(2) as threads:
        joins = [threads.submit(join, client, job, attempt, rank) for rank in range(2)]
        first, second = (future.result() for future in joins)
    assert first.epoch == second.epoch
    return first


def life_and_death(store: list[str], spec: str) -> None:
    """Blocking, hence in a thread: the fake switch needs the event loop."""
    with serving(*store, "--switch", spec) as child, child.client() as client:
        job = client.create_job("demo", SlotRequest(64))
        lease = join_both(client, job, attempt=0)
        halfway = client.create_job("halfway")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(join, client, halfway, 0, 0, 0.2)
            until_joined(client, halfway)
            child.process.kill()
            assert waiting.exception() is not None

    # It knows its switch without being told again.
    with serving(*store) as child, child.client() as client:
        told = client.get_job("demo")
        assert (told.id, told.state, told.epoch) == (job.id, pb.JOB_STATE_READY, lease.epoch)
        assert (told.slots, list(told.joined)) == (64, [0, 1])
        answer = client.heartbeat(job.id, job.token)
        assert (answer.state, answer.epoch) == (pb.JOB_STATE_READY, lease.epoch)
        # Who had been waiting is not; who had joined may ask again.
        assert list(client.get_job("halfway").joined) == []
        assert join(client, job, attempt=0, rank=1).key == lease.key
        restarted = join_both(client, job, attempt=1)
        assert restarted.epoch > lease.epoch
        assert client.create_job("demo").attached
        client.release_job(job.id, job.token)


async def test_a_killed_controller_continues(fake: FakeSwitch, tmp_path: Path) -> None:
    await asyncio.to_thread(life_and_death, store_argument(tmp_path), switch_spec(fake.address))
    # The second controller found the switch as the first had left it.
    assert fake.pushes == 1
    epochs = [entry for entry in fake.log if entry.endswith("membership")]
    assert (
        epochs
        == [
            *["INSERT membership"] * 2,
            *["DELETE membership"] * 2,
            *["INSERT membership"] * 2,
            *["DELETE membership"] * 2,
        ][: len(epochs)]
    )
    assert len(epochs) >= 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_workers_do_not_notice_a_controller_that_comes_back(
    fake: FakeSwitch, tmp_path: Path, number: signal.Signals
) -> None:
    store = store_argument(tmp_path)

    def scenario() -> None:
        with serving(*store, "--switch", switch_spec(fake.address)) as child:
            client = child.client()
            job = client.create_job("demo")
            with ThreadPoolExecutor(1) as threads:
                waiting = threads.submit(join, client, job, 0, 0)
                until_joined(client, job)
                child.process.send_signal(number)
                child.process.communicate(timeout=LIMIT_S)
                with serving(*store, "--listen", child.listen):
                    lease = join(client, job, 0, 1)
                    assert waiting.result().epoch == lease.epoch
            client.close()

    await asyncio.to_thread(scenario)
