"""One worker in its job: it joins through the controller, owns the engine, and keeps the lease."""

import logging
import threading
from typing import Any

from wiresum.common import logs
from wiresum.common.errors import WiresumError
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.agent.change import change_lease
from wiresum.host_agent.agent.control import Heartbeats, over
from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.agent.join import Membership
from wiresum.host_agent.agent.peers.meeting import Meeting
from wiresum.host_agent.agent.peers.peers import Peers
from wiresum.host_agent.agent.progress import progress
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.engine import Engine
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.errors import EngineError, PeerLost

log = logging.getLogger("wiresum")


class JobGone(AgentError):
    """The job was released, has expired, or a later attempt has replaced this worker."""


class Agent:
    """A joined worker. Implements ``wiresum.host_agent.backend.link.Link``."""

    def __init__(
        self,
        worker: Worker,
        membership: Membership,
        lease: pb.Lease,
        engine: Engine,
        meeting: Meeting | None = None,
    ) -> None:
        """Use :meth:`join`."""
        self.engine = Relay(engine)
        self._worker = worker
        self._membership = membership
        self._lease = lease
        self._gone: WiresumError | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._changing: threading.Thread | None = None  # while it is under way
        self._wanted = lease.change
        self._asked = lease
        membership.report = lambda: progress(worker.rank, self.engine.stats())
        self._heartbeats = Heartbeats(
            membership.plan.job,
            self._beat,
            lambda: self._lease,
            self._heard,
            self._lost,
            loud=worker.rank == 0,
        )
        self._peers: Peers | None = None
        if meeting is not None:
            self._peers = Peers(
                meeting,
                worker.rank,
                worker.workers,
                self.engine,
                epoch=lambda: self._lease.epoch,
                over=self._lost_peer,
            )

    @classmethod
    def join(cls, worker: Worker) -> "Agent":
        """Join the job that ``worker.where`` names; returns with an engine.

        Waits for the other ranks, at most ``worker.join_s``. Raises ``WiresumError`` in one line.
        """
        membership = Membership(worker)
        meeting = None
        try:
            meeting = membership.arrange()
            lease, engine = membership.join()
            meeting = meeting or membership.find()
        except BaseException:
            if meeting is not None:
                meeting.close()
            membership.client.close()
            raise
        logs.bind(job=membership.plan.job, rank=worker.rank, switch=lease.switch_name)
        log.info(
            "wiresum: rank %d of %d joined job %s on switch %s (%s:%d): epoch %d, %d slots",
            worker.rank,
            worker.workers,
            membership.plan.job,
            lease.switch_name,
            lease.switch_ip,
            lease.switch_udp_port,
            lease.epoch,
            lease.slots,
        )
        return cls(worker, membership, lease, engine, meeting)

    def check(self) -> None:
        """Raise why no collective can begin: :class:`JobGone`, or an error of the ranks."""
        if self._gone is not None:
            raise type(self._gone)(str(self._gone))

    def watch(self, group: Group) -> None:
        """See :class:`~wiresum.host_agent.backend.link.Link`."""
        if self._peers is not None:
            self._peers.watch(group)

    def describe(self) -> dict[str, Any]:
        """The lease in words, without its secrets."""
        lease, plan = self._lease, self._membership.plan
        return {
            "controller": self._worker.where.controller,
            "job": plan.job,
            "attempt": plan.attempt,
            "change": lease.change,
            "number": lease.job,
            "epoch": lease.epoch,
            "switch": f"{lease.switch_name} ({lease.switch_ip}:{lease.switch_udp_port})",
            "slots": lease.slots,
            "lanes": lease.lanes,
            "field": self._worker.where.field,
            "rank": lease.rank,
            "workers": lease.workers,
            "held": self.engine.held,
            "gone": None if self._gone is None else str(self._gone),
            "peers": None if self._peers is None else self._peers.describe(),
        }

    def close(self) -> None:
        """Stop the engine and the heartbeats; release the job if this worker has made it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._heartbeats.stop()
        if self._peers is not None:
            self._peers.leave()
        self.engine.close()
        self._membership.release()
        self._membership.client.close()  # ends calls that are waiting for their answers
        self._heartbeats.join(timeout_s=1.0)
        changing = self._changing
        if changing is not None:
            changing.join(timeout=1.0)

    # -- heartbeats ---------------------------------------------------------------------------

    def _beat(self, wait_s: float, change: int) -> pb.HeartbeatResponse:
        self._asked = lease = self._lease
        epoch = 0 if self._changing is not None else lease.epoch
        return self._membership.heartbeat(wait_s, epoch=epoch, change=change)

    def _heard(self, answer: pb.HeartbeatResponse) -> str | None:
        with self._lock:
            self._wanted = answer.change
            if self._changing is not None:
                return None
            lease = self._lease
            # The answer to a call from before a change has the epoch of the lease before.
            if answer.epoch != lease.epoch and self._asked is lease:
                return (
                    f"job {self._membership.plan.job} is in epoch {answer.epoch}: a later attempt "
                    f"has replaced this worker (rank {lease.rank}, epoch {lease.epoch})"
                )
            if answer.change > lease.change:
                self._changing = threading.Thread(
                    target=self._make_changes, name="wiresum-change", daemon=True
                )
                self._changing.start()
        return None

    def _lost(self, why: str) -> None:
        with self._lock:
            if self._gone is not None:
                return
            self._gone = JobGone(why)
        log.warning("wiresum: %s", why)
        self.engine.close()  # what is in flight ends now, and with this reason

    def _lost_peer(self, error: EngineError) -> None:
        """Let no collective begin any more; ``peers`` ends those in flight."""
        with self._lock:
            # A later error may say more than the first one.
            if self._gone is None or isinstance(self._gone, PeerLost):
                self._gone = error

    # -- changes of the lease -----------------------------------------------------------------

    def _make_changes(self) -> None:
        tried = 0
        while True:
            with self._lock:
                # A cancelled change is tried again if the next heartbeat still announces it.
                if self._wanted <= max(tried, self._lease.change) or self._has_ended():
                    self._changing = None
                    return
                tried = self._wanted
            self._change(tried)

    def _change(self, number: int) -> None:
        before, worker = self._lease, self._worker
        try:
            changed = change_lease(
                self.engine,
                self._membership,
                before,
                number,
                limit_s=worker.collective_s,
                stopped=self._has_ended,
            )
        except WiresumError as error:
            if not self._has_ended():
                self._lost(self._why_over() or f"change {number} of the lease has failed: {error}")
            self._heartbeats.stop()
            return
        if changed is None:
            return
        self._lease = changed.lease
        if worker.rank == 0:
            log.info(
                "wiresum: the lease has %d slots now, %d before; collectives were held for %.3f s "
                "(change %d, epoch %d)",
                changed.lease.slots,
                before.slots,
                changed.held_s,
                number,
                changed.lease.epoch,
            )

    def _why_over(self) -> str | None:
        try:
            return over(self._membership.heartbeat(), self._membership.plan.job)
        except ControllerError:
            return None

    def _has_ended(self) -> bool:
        return self._closed or self._gone is not None
