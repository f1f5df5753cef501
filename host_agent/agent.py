"""One worker's membership in a job: joins through the controller, owns the engine, stays alive."""

import itertools
import json
import logging
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from wiresum.common.errors import WiresumError
from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent._engine import Engine
from wiresum.host_agent.environment import AgentError, Environment
from wiresum.host_agent.network import local_address_towards, mac_of

log = logging.getLogger("wiresum")

JOIN_TIMEOUT_S = 60.0
LEAVE_S = 5.0  # how long the rank that made the job waits for the others before it releases it

_LIVE = (pb.JOB_STATE_WAITING, pb.JOB_STATE_READY)
_generations = itertools.count()


class JobGone(AgentError):
    """The job was released, has expired, or a later attempt has replaced this worker."""


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
class _Plan:
    """What rank 0 decides for all: the job and the number of this attempt."""

    job: str
    token: str
    attempt: int
    owned: bool  # rank 0 has made the job itself and releases it


class Agent:
    """A joined worker. Implements ``wiresum.host_agent.backend.link.Link``."""

    def __init__(
        self,
        client: ControllerClient,
        plan: _Plan,
        lease: pb.Lease,
        engine: Engine,
        where: Environment,
        store: Store,
        prefix: str,
    ) -> None:
        """Use :meth:`join`."""
        self.engine = engine
        self._client = client
        self._plan = plan
        self._lease = lease
        self._where = where
        self._store = store
        self._prefix = prefix
        self._gone: str | None = None
        self._stop = threading.Event()
        self._close_lock = threading.Lock()
        self._closed = False
        self._heartbeats = threading.Thread(
            target=self._beat, name="wiresum-heartbeat", daemon=True
        )
        self._heartbeats.start()

    @classmethod
    def join(
        cls, where: Environment, store: Store, rank: int, workers: int, timeout: timedelta
    ) -> "Agent":
        """Join the job that ``where`` names, as ``rank`` of ``workers``; returns with an engine.

        Waits for the other ranks, at most ``where.timeout_s`` (default 60 s, never longer than
        ``timeout``, the group's own). ``store`` is the group's key-value store, through which
        rank 0 tells the others the attempt. Raises ``WiresumError`` in one line.
        """
        limit = where.timeout_s or min(JOIN_TIMEOUT_S, timeout.total_seconds())
        # A second group in the same process must not read what the first one left in the store.
        prefix = f"wiresum/join/{next(_generations)}"
        client = ControllerClient(where.controller)
        try:
            plan = _agree(client, where, store, rank, prefix, limit)
            job = client.get_job(plan.job)
            with _socket_towards(job) as sock:
                ip, port = sock.getsockname()
                lease = client.join_job(
                    plan.job,
                    plan.token,
                    rank=rank,
                    workers=workers,
                    attempt=plan.attempt,
                    ip=ip,
                    udp_port=port,
                    mac=mac_of(ip),
                    field=where.field,
                    timeout_s=limit,
                )
                engine = Engine(
                    sock.fileno(),
                    lease.switch_ip,
                    lease.switch_udp_port,
                    lease.switch_name,
                    lease.rank,
                    lease.workers,
                    lease.job,
                    lease.epoch,
                    lease.key,
                    lease.slots,
                    lease.lanes,
                    where.field,
                    timeout_s=where.timeout_s or timeout.total_seconds(),
                )
        except BaseException:
            client.close()
            raise
        log.info(
            "wiresum: rank %d of %d joined job %s on switch %s (%s:%d): epoch %d, %d slots",
            rank,
            workers,
            plan.job,
            lease.switch_name,
            lease.switch_ip,
            lease.switch_udp_port,
            lease.epoch,
            lease.slots,
        )
        return cls(client, plan, lease, engine, where, store, prefix)

    def check(self) -> None:
        """Raise :class:`JobGone` if this worker's lease is no longer valid."""
        if self._gone is not None:
            raise JobGone(self._gone)

    def describe(self) -> dict[str, Any]:
        """The lease in words, without its secrets."""
        lease = self._lease
        return {
            "controller": self._where.controller,
            "job": self._plan.job,
            "attempt": self._plan.attempt,
            "number": lease.job,
            "epoch": lease.epoch,
            "switch": f"{lease.switch_name} ({lease.switch_ip}:{lease.switch_udp_port})",
            "slots": lease.slots,
            "lanes": lease.lanes,
            "field": self._where.field,
            "rank": lease.rank,
            "workers": lease.workers,
            "gone": self._gone,
        }

    def close(self) -> None:
        """Stop the engine and the heartbeats; release the job if this worker has made it."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        self.engine.close()
        if self._plan.owned:
            self._release()
        self._client.close()  # ends a heartbeat that is waiting for its answer
        if threading.current_thread() is not self._heartbeats:
            self._heartbeats.join(timeout=1.0)

    def _release(self) -> None:
        # A rank whose last result was lost gets it again from the switch, but only while the
        # lease lasts: the rank that releases leaves last.
        try:
            key = f"{self._prefix}/left"
            left = self._store.add(key, 1)
            if self._lease.rank != 0:
                return
            deadline = time.monotonic() + LEAVE_S
            while left < self._lease.workers and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self._store.add(key, 0)
            self._client.release_job(self._plan.job, self._plan.token)
        except Exception:  # the store or the controller went first; the lease then expires
            log.debug("wiresum: the job could not be released", exc_info=True)

    def _beat(self) -> None:
        heard = time.monotonic()
        warned = False
        while not self._stop.wait(max(self._lease.heartbeat_s, 0.1)):
            try:
                answer = self._client.heartbeat(self._plan.job, self._plan.token)
            except ControllerError as error:
                if self._stop.is_set():
                    return
                silent = time.monotonic() - heard
                if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    if silent < self._lease.expiry_s:
                        if not warned and self._lease.rank == 0:
                            log.warning("wiresum: heartbeats are failing: %s", error)
                        warned = True
                        continue
                    self._lost(f"job {self._plan.job} has lost its lease: {error}")
                else:
                    self._lost(f"job {self._plan.job} is gone: {error}")
                return
            heard, warned = time.monotonic(), False
            if answer.state not in _LIVE:
                state = pb.JobState.Name(answer.state).removeprefix("JOB_STATE_").lower()
                reason = f" ({answer.reason})" if answer.reason else ""
                self._lost(f"job {self._plan.job} is {state}{reason}: this worker has no slots")
                return
            if answer.epoch != self._lease.epoch:
                self._lost(
                    f"job {self._plan.job} is in epoch {answer.epoch}: a later attempt has "
                    f"replaced this worker (rank {self._lease.rank}, epoch {self._lease.epoch})"
                )
                return

    def _lost(self, why: str) -> None:
        self._gone = why
        log.warning("wiresum: %s", why)
        self.engine.close()  # what is in flight ends now, and with this reason


def _agree(
    client: ControllerClient,
    where: Environment,
    store: Store,
    rank: int,
    prefix: str,
    limit: float,
) -> _Plan:
    """Rank 0 picks the job and an attempt later than all before; the others read it."""
    if rank == 0:
        try:
            plan = _plan(client, where)
        except WiresumError as error:
            store.set(prefix, json.dumps({"error": str(error)}))
            raise
        store.set(prefix, json.dumps(vars(plan)))
        return plan
    try:
        store.wait([prefix], timedelta(seconds=limit))
    except Exception:
        raise AgentError(
            f"rank 0 has not reached controller {where.controller} within {limit:g} s: "
            "is it running, and does it use the same environment?"
        ) from None
    answer = json.loads(store.get(prefix))
    if "error" in answer:
        raise AgentError(f"rank 0 could not join: {answer['error']}")
    return _Plan(**answer)


def _plan(client: ControllerClient, where: Environment) -> _Plan:
    if where.job is None:
        job = client.create_job()
        return _Plan(job.id, job.token, 0, owned=True)
    job = client.get_job(where.job)
    attempt = job.attempt + 1 if job.HasField("attempt") else 0
    return _Plan(where.job, where.token, attempt, owned=False)


def _socket_towards(job: pb.Job) -> socket.socket:
    where = f"switch {job.switch} at {job.switch_ip}:{job.switch_udp_port}"
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
        reason = error.strerror or str(error)
        raise AgentError(f"no socket towards {where}: {reason}") from None
