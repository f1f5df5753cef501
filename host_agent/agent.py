"""One worker's membership in a job: joins through the controller, owns the engine, stays alive."""

import logging
import threading
import time
from datetime import timedelta
from typing import Any

from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent._engine import Engine
from wiresum.host_agent.environment import AgentError, Environment
from wiresum.host_agent.joining import Joining, Plan, Store

log = logging.getLogger("wiresum")

JOIN_TIMEOUT_S = 60.0
LEAVE_S = 5.0  # how long the rank that made the job waits for the others before it releases it

_LIVE = (pb.JOB_STATE_WAITING, pb.JOB_STATE_READY)


class JobGone(AgentError):
    """The job was released, has expired, or a later attempt has replaced this worker."""


class Agent:
    """A joined worker. Implements ``wiresum.host_agent.backend.link.Link``."""

    def __init__(
        self,
        client: ControllerClient,
        plan: Plan,
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
        cls,
        where: Environment,
        store: Store,
        rank: int,
        workers: int,
        timeout: timedelta,
        generation: str,
    ) -> "Agent":
        """Join the job that ``where`` names, as ``rank`` of ``workers``; returns with an engine.

        Waits for the other ranks, at most ``where.timeout_s`` (default 60 s, never longer than
        ``timeout``, the group's own). ``store`` is the group's key-value store, through which
        rank 0 tells the others the attempt; ``generation`` tells groups of one process apart
        there. Raises ``WiresumError`` in one line.
        """
        limit = where.timeout_s or min(JOIN_TIMEOUT_S, timeout.total_seconds())
        prefix = f"wiresum/join/{generation}"
        client = ControllerClient(where.controller)
        try:
            joining = Joining(client, where, store, prefix, rank, workers, limit)
            with joining.socket() as sock:
                lease = joining.lease(*sock.getsockname())
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
        plan = joining.plan
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
