"""The benchmark's switch and controller, and the leases of its workers."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from wiresum.common.children.child import Child
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.local_site import LocalSite, SiteOptions
from wiresum.controller.client.requests import JoiningRank, SlotRequest
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session
from wiresum.measure.bench import cpu
from wiresum.p4 import MAX_WORKERS
from wiresum.testbed.children import mark_of
from wiresum.testbed.state import Record

JOIN_S = 60.0


class BenchSite(LocalSite):
    """A local site that is on record, and joins workers that cannot reach its controller.

    The controller has no place in the workers' network: the benchmark joins for them, with the
    addresses of their sockets. Use as a context manager. Everything raises ``WiresumError``.
    """

    def __init__(self, record: Record, options: SiteOptions) -> None:
        self._attempts: Counter[str] = Counter()
        self._exits = ExitStack()

        def put_on_record(name: str, child: Child) -> None:
            record.processes[name] = mark_of(child)
            record.save()

        super().__init__(record.folder, options, os.environ, put_on_record)
        self._client = self._exits.enter_context(
            ControllerClient(self.controller, token=self.token)
        )
        self._pool = self._exits.enter_context(ThreadPoolExecutor(MAX_WORKERS))

    def close(self) -> None:
        """End the jobs, then the controller and the switch."""
        self._exits.close()
        super().close()

    def session(self, name: str, slots: int, field: int) -> Session:
        """A job: a context manager, which ends it."""
        return Session(
            JobOptions(
                controller=self.controller,
                field=field,
                name=name,
                slots=SlotRequest(slots),
                token=self.token,
            )
        )

    def job(self, name: str, slots: int, field: int) -> Session:
        """A job that lives as long as this."""
        return self._exits.enter_context(self.session(name, slots, field))

    def join(self, session: Session, places: Sequence[Mapping[str, Any]]) -> list[pb.Lease]:
        """Join ranks 0, 1, … to a new attempt of a job; a place is an ip, udp_port and mac."""
        session.check()
        job, field = session.job, session.environment.field
        self._attempts[job.id] += 1

        def join(rank: int) -> pb.Lease:
            return self._client.join_job(
                job.id,
                job.token,
                JoiningRank(
                    rank=rank,
                    workers=len(places),
                    attempt=self._attempts[job.id],
                    field=field,
                    **places[rank],
                ),
                timeout_s=JOIN_S,
            )

        return list(self._pool.map(join, range(len(places))))

    def cpu_s(self) -> float:
        """CPU seconds that the switch has used. Raises ``ChildError`` if it has ended."""
        self.switch.check()
        return cpu.of_process(self.switch.process.pid)


def plain(lease: pb.Lease) -> dict[str, Any]:
    """The fields of a lease that the engine needs."""
    names = (
        "switch_ip", "switch_udp_port", "switch_name", "rank", "workers", "job", "epoch", "key",
        "reply_key", "slots", "lanes",
    )  # fmt: skip
    return {name: getattr(lease, name) for name in names}
