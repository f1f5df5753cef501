"""The service over real gRPC, with a switch that is a fake behind real P4Runtime."""

import asyncio

import pytest
from conftest import Rig, until

from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb


async def join(rig: Rig, job: pb.Job, rank: int, workers: int = 2, **changes: object) -> pb.Lease:
    arguments: dict[str, object] = {
        "rank": rank,
        "workers": workers,
        "attempt": 0,
        "ip": "127.0.0.1",
        "udp_port": 4000 + rank,
        "field": 32,
        "timeout_s": 10.0,
    }
    token = changes.pop("token", job.token)
    return await asyncio.to_thread(
        lambda: rig.client.join_job(job.id, str(token), **(arguments | changes))  # type: ignore[arg-type]
    )


async def test_all_ranks_get_one_lease(rig: Rig) -> None:
    job = await asyncio.to_thread(rig.client.create_job, "demo", slots=100)
    leases = await asyncio.gather(*(join(rig, job, rank, 4) for rank in range(4)))
    print(leases[0])
    print(rig.switch.log)
