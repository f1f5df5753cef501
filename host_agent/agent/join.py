"""How the ranks of a job get their leases, once they have agreed on an attempt."""

import contextlib
import logging
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace

from wiresum import p4
from wiresum.common.errors import WiresumError
from wiresum.common.version import compatible, package_version
from wiresum.controller.client.requests import Declaration, GroupRank, JoiningRank
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.control import GONE, connect
from wiresum.host_agent.agent.lease import open_engine
from wiresum.host_agent.agent.network import (
    WorkerSocket,
    local_address_towards,
    mac_of,
    shm_socket,
    udp_socket,
)
from wiresum.host_agent.agent.peers.meeting import Meeting, arrange, find
from wiresum.host_agent.agent.plan import NEWS_S, Planning, Search
from wiresum.host_agent.agent.worker import Worker
from wiresum.host_agent.engine import Engine, EngineOptions
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.errors import EngineError

log = logging.getLogger("wiresum")

LEAVE_S = 5.0
"""How long the rank that made the job waits for the others before it releases it; seconds."""

AWAY_S = 10.0
"""How long a switch may take to be ready for a run that can start over the ranks; seconds."""

SHM_S = 5.0
"""How long a switch on this host may take to answer before the worker goes on over UDP."""

_SHORTEST_JOIN_S = 1.0

# After a change of lease the numbering of chunks starts at APART times the number of collectives
# before it. If ranks ever differ in that number, their chunks do not meet: the result is an error
# and never a wrong sum.
APART = 1 << 20


class SwitchAway(WiresumError):
    """All ranks have joined, but the switch does not hold their entries; says why."""


class Membership:
    """One rank's place in a job. Everything raises ``WiresumError`` in one line."""

    def __init__(self, worker: Worker, search: Search | None = None) -> None:
        """Agree with rank 0, through the store, on an attempt later than all before.

        ``search``: there was no job so far, and it is waited for. Raises ``NoJob`` on all ranks
        where the group may begin without one, ``JobTaken`` where another group has it.
        """
        self._worker = worker
        self.release_worker = worker
        """The worker whose ranks count themselves out when they leave: the first one."""
        self._planning = Planning(worker, search)
        self.plan = self._planning.agree()
        self.client = connect(worker.where, self.plan.token)
        self._program_version = ""
        self._without_shm = False  # it was tried in vain, and said so
        self.report: Callable[[], pb.RankReport] | None = None
        """Makes the report on this worker's progress that goes with each heartbeat."""

    # -- the ranks' own link ------------------------------------------------------------------

    @property
    def _meeting_key(self) -> str:
        return f"{self._worker.key}/peers/{self.plan.job}.{self.plan.attempt}"

    def arrange(self) -> Meeting | None:
        """On rank 0, before it joins: where the ranks meet. None on others, and for one rank."""
        worker = self._worker
        if worker.rank != 0 or worker.workers == 1:
            return None
        job = self.client.get_job(self.plan.job)
        try:
            address = local_address_towards(job.switch_ip, job.switch_udp_port)
        except OSError:
            address = "127.0.0.1"  # the socket towards the switch reports a missing route
        return arrange(worker.store, self._meeting_key, address)

    def find(self) -> Meeting | None:
        """On other ranks, once they have joined: where rank 0 listens."""
        if self._worker.rank == 0:
            return None
        return find(self._worker.store, self._meeting_key)

    # -- the lease ----------------------------------------------------------------------------

    def join(self) -> tuple[pb.Lease, Engine]:
        """Join with a new socket; waits for the other ranks. The lease, and an engine with it."""
        sock = self.open_socket()
        with sock.socket:
            lease = self._first_lease(sock)
            return lease, self.start(sock, lease, done=0)

    def rejoin(self, change: int, sock: WorkerSocket, waited_s: float) -> pb.Lease:
        """See :class:`~wiresum.host_agent.agent.change.Seat`."""
        return self._ask(sock, change, self._worker.join_s, waited_s)

    def start(self, sock: WorkerSocket, lease: pb.Lease, done: int) -> Engine:
        """An engine with ``lease``; ``done`` collectives have been before it."""
        options = EngineOptions(
            suspend_unreachable=self._worker.may_leave_switch,
            timeout_s=self._worker.collective_s,
            switch_timeout_s=self._worker.switch_s,
            first_position=done * APART,
            keep_nonfinite=True,
        )
        return open_engine(sock, lease, self._worker.where.field, options)

    def open_socket(self) -> WorkerSocket:
        """A socket towards the switch: through shared memory if told so, else UDP."""
        job = self._job_of_plan()
        self._check_version(job.controller_version)
        self._program_version = _program_version(job.lanes)
        path = self._worker.where.shm
        if path and not self._without_shm:
            try:
                slots = max(job.slots, job.slots_next)  # if the lease is about to change
                limit = min(self._worker.join_s, SHM_S)
                return shm_socket(path, job.switch_ip, job.lanes, slots, limit)
            except EngineError as error:
                self._without_shm = True
                log.warning("wiresum: UDP instead of shared memory: %s", error)
        try:
            return udp_socket(job.switch_ip, job.switch_udp_port)
        except OSError as error:
            raise AgentError(
                lines.NO_SOCKET.of(
                    switch=job.switch,
                    ip=job.switch_ip,
                    port=job.switch_udp_port,
                    why=error.strerror or error,
                )
            ) from None

    def _job_of_plan(self) -> pb.Job:
        """The job that rank 0 has chosen, as this rank's controller knows it."""
        try:
            return self.client.get_job(self.plan.job)
        except ControllerError as error:
            if self._worker.rank == 0 or error.code not in GONE:
                raise
            where = self._worker.where.controller
            raise AgentError(lines.OTHER_CONTROLLER.of(controller=where, why=error)) from None

    def _check_version(self, theirs: str) -> None:
        # The controller checks the version of this agent; a controller that is too old to do so is
        # refused here.
        ours = package_version()
        if not compatible(ours, theirs):
            worker = self._worker
            raise AgentError(
                lines.ANOTHER_VERSION.of(
                    rank=worker.rank,
                    ours=ours,
                    controller=worker.where.controller,
                    theirs=theirs or "(unknown)",
                )
            )

    def _first_lease(self, sock: WorkerSocket) -> pb.Lease:
        """The lease of this attempt; says from time to time which ranks are missing."""
        began = said = time.monotonic()
        soon = self._worker.may_leave_switch and not self._worker.round
        while True:
            left = max(round(self._planning.deadline - time.monotonic(), 1), _SHORTEST_JOIN_S)
            limit = min(left, AWAY_S if soon else NEWS_S)
            try:
                return self._ask(sock, 0, limit, time.monotonic() - began)
            except ControllerError as error:
                late = error.code == "DEADLINE_EXCEEDED"
                if late and soon:
                    self._check_switch(error)
                if late and left > limit:
                    if time.monotonic() - said > NEWS_S - 1.0:
                        said = time.monotonic()
                        self._planning.say_waiting(str(error), said - began)
                elif (other := self._planning.planned_anew(self.plan, error)) is not None:
                    self.plan = other
                else:
                    raise

    def _check_switch(self, error: ControllerError) -> None:
        """Raise :class:`SwitchAway` if nothing but the switch is missing for a first lease."""
        job = self.client.get_job(self.plan.job)
        if job.attempt == self.plan.attempt and not job.missing:
            raise SwitchAway(str(error))

    def _ask(self, sock: WorkerSocket, change: int, limit_s: float, waited_s: float) -> pb.Lease:
        worker = self._worker
        return self.client.join_job(
            self.plan.job,
            self.plan.token,
            JoiningRank(
                rank=worker.rank,
                workers=worker.workers,
                attempt=self.plan.attempt,
                change=change,
                ip=sock.ip,
                udp_port=sock.udp_port,
                mac=mac_of(sock.ip),
                field=worker.where.field,
                program_version=self._program_version,
                owner=self.plan.owner,
            ),
            timeout_s=min(limit_s, NEWS_S),
            waited_s=waited_s,
        )

    # -- during the job -----------------------------------------------------------------------

    def heartbeat(
        self, wait_s: float = 0.0, *, epoch: int = 0, change: int = 0
    ) -> pb.HeartbeatResponse:
        """Keep the job alive; returns the controller's answer.

        Waits at most ``wait_s`` for another announcement than ``change``, another epoch than
        ``epoch`` (0: it does not matter), or the job's end.
        """
        plan = self.plan
        return self.client.heartbeat(
            plan.job,
            plan.token,
            of=GroupRank(plan.owner, self._worker.rank),
            wait_s=wait_s,
            epoch=epoch,
            change=change,
            report=self.report() if self.report is not None else None,
        )

    def declare(self, lease: pb.Lease, change: int, started: int) -> int | None:
        """Say how many collectives this rank has started under ``lease``; waits for the others.

        The boundary of the change; None if it is cancelled.
        """
        answer = self.client.change_lease(
            self.plan.job,
            self.plan.token,
            Declaration(rank=lease.rank, epoch=lease.epoch, change=change, started=started),
            unreachable_s=0.0,  # the caller repeats the call, and knows when to stop
        )
        return None if answer.cancelled else answer.boundary

    def again(self, round: int) -> "Membership":
        """A place in the same job for another attempt, agreed on with the other ranks.

        ``round`` numbers such agreements, on all ranks alike.
        """
        plan = self.plan
        where = self._worker.where
        if where.job is None:
            where = replace(where, job=plan.job, token=plan.token)
        made = Membership(replace(self._worker, where=where, round=round))
        made.plan = replace(made.plan, owned=plan.owned)
        made.release_worker = self.release_worker
        return made

    def twin(self) -> "Membership":
        """The same place, with a client of its own."""
        made = copy(self)
        made.client = connect(self._worker.where, self.plan.token)
        return made

    def release(self) -> None:
        """Give the job up: free for another group, or released, if rank 0 has made it.

        One that rank 0 has made is released once the others have left.
        """
        if not self.plan.owned:
            with contextlib.suppress(ControllerError):
                self.client.leave_job(
                    self.plan.job, self.plan.token, GroupRank(self.plan.owner, self._worker.rank)
                )
            return
        # A rank whose last result was lost gets it again from the switch, but only while the
        # lease lasts: the rank that releases leaves last.
        worker = self.release_worker
        try:
            left = self.count_out(worker)
            if worker.rank != 0:
                return
            deadline = time.monotonic() + LEAVE_S
            while left < worker.workers and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self.count_out(worker, 0)
            self.client.release_job(self.plan.job, self.plan.token)
        except Exception:  # the store or the controller went first; the lease then expires
            log.debug("wiresum: the job could not be released", exc_info=True)

    def drop(self) -> None:
        """Give up a job of rank 0's that no rank has joined yet."""
        if self.plan.owned and self._worker.rank == 0:
            with contextlib.suppress(ControllerError):
                self.client.release_job(self.plan.job, self.plan.token)
        self.client.close()

    @staticmethod
    def count_out(worker: Worker, count: int = 1) -> int:
        """Count a rank that leaves; how many have left."""
        return worker.store.add(f"{worker.key}/left", count)


def _program_version(lanes: int) -> str:
    """Of the switch program that this installation has; empty for lanes that it has none for."""
    return p4.program(lanes).version if lanes in p4.LANE_COUNTS else ""
