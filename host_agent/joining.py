"""How the ranks of a job agree on an attempt and get their leases."""

import json
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.environment import AgentError, Environment
from wiresum.host_agent.network import local_address_towards, mac_of

_LOOK_S = 0.1


class Store(Protocol):
    """The part of ``torch.distributed.Store`` that joining needs."""

    def set(self, key: str, value: str) -> None:
        """Publish."""

    def get(self, key: str) -> bytes:
        """Read; waits for the key."""

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Wait for keys; raises on timeout."""

    def add(self, key: str, amount: int) -> int:
        """Count."""


@dataclass(frozen=True)
class Plan:
    """What rank 0 decides for all: the job and the number of this attempt."""

    job: str
    token: str
    attempt: int
    owned: bool  # rank 0 has made the job itself and releases it


class Joining:
    """One rank on its way into a job. Everything raises ``WiresumError`` in one line."""

    def __init__(
        self,
        client: ControllerClient,
        where: Environment,
        store: Store,
        key: str,
        rank: int,
        workers: int,
        limit_s: float,
    ) -> None:
        """Agree with rank 0, through ``key`` in the store, on an attempt later than all before."""
        self._client = client
        self._where = where
        self._store = store
        self._key = key
        self._rank = rank
        self._workers = workers
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s
        self.plan = self._decide() if rank == 0 else self._read()
        self._job = client.get_job(self.plan.job)

    def _decide(self) -> Plan:
        try:
            plan = self._new_plan()
        except WiresumError as error:
            self._store.set(self._key, json.dumps({"error": str(error)}))
            raise
        self._store.set(self._key, json.dumps(vars(plan)))
        return plan

    def _new_plan(self) -> Plan:
        if self._where.job is None:
            job = self._client.create_job()
            return Plan(job.id, job.token, 0, owned=True)
        job = self._client.get_job(self._where.job)
        attempt = job.attempt + 1 if job.HasField("attempt") else 0
        return Plan(self._where.job, self._where.token, attempt, owned=False)

    def _read(self) -> Plan:
        try:
            self._store.wait([self._key], timedelta(seconds=self._limit_s))
        except Exception:
            raise AgentError(
                f"rank 0 has not reached controller {self._where.controller} within "
                f"{self._limit_s:g} s: is it running, and does it use the same environment?"
            ) from None
        answer = json.loads(self._store.get(self._key))
        if "error" in answer:
            raise AgentError(f"rank 0 could not join: {answer['error']}")
        return Plan(**answer)

    def socket(self) -> socket.socket:
        """A UDP socket bound to the address from which this host reaches the switch."""
        job = self._job
        try:
            ip = local_address_towards(job.switch_ip, job.switch_udp_port)
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.bind((ip, 0))
            except BaseException:
                sock.close()
                raise
            return sock
        except OSError as error:
            raise AgentError(
                f"no socket towards switch {job.switch} at {job.switch_ip}:{job.switch_udp_port}: "
                f"{error.strerror or error}"
            ) from None

    def lease(self, ip: str, port: int) -> pb.Lease:
        """Join with a socket bound to ``ip`` and ``port``; waits for the other ranks."""
        left = self._limit_s
        while True:
            try:
                return self._client.join_job(
                    self.plan.job,
                    self.plan.token,
                    rank=self._rank,
                    workers=self._workers,
                    attempt=self.plan.attempt,
                    ip=ip,
                    udp_port=port,
                    mac=mac_of(ip),
                    field=self._where.field,
                    timeout_s=left,
                )
            except ControllerError as error:
                # A rank that is restarted faster than rank 0 may have read what rank 0 had said
                # before: torchrun keeps the store. Rank 0 will name a later attempt.
                if self._rank == 0 or error.code not in ("ALREADY_EXISTS", "ABORTED"):
                    raise
                if not self._changed():
                    raise
                left = max(round(self._deadline - time.monotonic(), 1), 0.1)

    def _changed(self) -> bool:
        """Wait for rank 0 to decide on another plan; False if it does not in time."""
        while time.monotonic() < self._deadline:
            plan = self._read()
            if plan != self.plan:
                self.plan = plan
                return True
            time.sleep(_LOOK_S)
        return False
