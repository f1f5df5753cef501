"""Engines of one job around a real embedded switch, over UDP or shared memory."""

import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from engine_rig import LIMIT_S
from numpy.typing import NDArray

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import JoiningRank, SlotRequest
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.agent.lease import open_engine
from wiresum.host_agent.agent.network import WorkerSocket, shm_socket, udp_socket
from wiresum.host_agent.engine import Engine, EngineOptions, raise_for
from wiresum.host_agent.launcher.embedded import Embedded
from wiresum.p4 import program


class Group:
    """The ranks of one job, over ``udp`` or ``shm``."""

    def __init__(
        self,
        embedded: Embedded,
        kind: str,
        workers: int,
        field: int,
        records: int | None = None,
        slots: int = 0,
        shm_path: str | None = None,
        **options: Any,
    ) -> None:
        self.stack = ExitStack()
        client = self.stack.enter_context(
            ControllerClient(embedded.controller, token=embedded.token)
        )
        job = client.create_job(
            f"{kind}-{workers}-{field}-{time.monotonic_ns()}", SlotRequest(slots)
        )
        self.stack.callback(client.release_job, job.id, job.token)
        self.places: list[WorkerSocket] = []
        for _ in range(workers):
            if kind == "shm":
                asked = records or job.slots
                place = shm_socket(embedded.shm, job.switch_ip, job.lanes, asked, LIMIT_S)
                if shm_path is not None:
                    place = replace(place, shm_path=shm_path)
            else:
                place = udp_socket(job.switch_ip, job.switch_udp_port)
            self.places.append(place)
            self.stack.callback(place.socket.close)
        leases: list[pb.Lease] = [pb.Lease()] * workers

        def join(rank: int) -> None:
            leases[rank] = client.join_job(
                job.id,
                job.token,
                JoiningRank(
                    rank=rank,
                    workers=workers,
                    attempt=0,
                    field=field,
                    ip=self.places[rank].ip,
                    udp_port=self.places[rank].udp_port,
                    mac="",
                    program_version=program(job.lanes).version,
                ),
                timeout_s=LIMIT_S,
            )

        threads = [threading.Thread(target=join, args=(rank,)) for rank in range(workers)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        self.leases, self.field = leases, field
        self.engines = [self.engine(rank, **options) for rank in range(workers)]

    def engine(self, rank: int, place: WorkerSocket | None = None, **options: Any) -> Engine:
        place = place or self.places[rank]
        chosen = EngineOptions(**{"timeout_s": LIMIT_S, **options})
        engine = open_engine(place, self.leases[rank], self.field, chosen)
        self.stack.callback(engine.close)
        return engine

    def start(self, arrays: list[NDArray[Any]]) -> list[int]:
        return [
            engine.all_reduce(array.ctypes.data, array.size, array.dtype.name, False)
            for engine, array in zip(self.engines, arrays, strict=True)
        ]

    def finish(self, tickets: list[int]) -> None:
        for engine, ticket in zip(self.engines, tickets, strict=True):
            done = engine.wait(ticket, LIMIT_S)
            assert done is not None
            raise_for(done)

    def reduce(self, arrays: list[NDArray[Any]]) -> None:
        self.finish(self.start(arrays))

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
