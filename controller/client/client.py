"""A synchronous client of the controller, for host agents, launchers and the command line.

It needs grpcio and the generated stubs only: neither the store nor the P4Runtime client.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self, TypeVar

from wiresum.common.address import Endpoint
from wiresum.common.version import package_version
from wiresum.controller.client.address import DEFAULT_CONTROLLER, parse_addresses
from wiresum.controller.client.channel import Method
from wiresum.controller.client.connection import Connection
from wiresum.controller.client.requests import (
    DEFAULT_SLOTS,
    NO_RANK,
    Declaration,
    GroupRank,
    JoiningRank,
    SlotRequest,
)
from wiresum.controller.client.trust import Credentials
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb

# How much longer than the controller's own limit a long poll may take before it is given up:
# the controller's answer says which ranks are missing, a local deadline could not.
_POLL_MARGIN_S = 5.0

# How long one call in the queue may last; then the controller says that the job still waits.
_QUEUE_POLL_S = 30.0

# The first call is shorter, so that the caller soon knows its place.
_FIRST_POLL_S = 1.0

# How long an interrupted caller tries to give up its place in the queue.
_LEAVE_S = 2.0

_RETRY_S = 0.2

# The longest waits that a controller grants, for the other ranks and in the queue.
_LONGEST_JOIN_S = 24 * 3600.0
_LONGEST_QUEUE_S = 365 * _LONGEST_JOIN_S

_R = TypeVar("_R")


class ControllerClient:
    """A connection to a controller; thread-safe, usable as a context manager.

    ``address`` is ``HOST:PORT`` (TLS) or ``http://HOST:PORT`` (plaintext, on loopback only). Where
    several controllers share a store, it names all of them, with commas in between: calls go to the
    one that leads, and to the next when that one is gone.
    ``token`` goes with every call; ``ca``, ``cert`` and ``key`` are PEM files. What is None is
    taken from the environment: WIRESUM_TOKEN, WIRESUM_CA, WIRESUM_CERT, WIRESUM_KEY; "" is none.

    Every call has a deadline: ``timeout_s`` unless the method says otherwise. Every method raises
    :class:`ControllerError`; its message is one line.
    """

    def __init__(
        self,
        address: str = DEFAULT_CONTROLLER,
        *,
        timeout_s: float = 10.0,
        token: str | None = None,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._connection = Connection(
            parse_addresses(address), Credentials.given(token, ca, cert, key)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> Endpoint:
        """Where the controller is: of several, the one that led last."""
        return self._connection.address.endpoint

    def close(self) -> None:
        """Close the connection; calls in progress fail."""
        self._connection.close()

    # ---- jobs

    def create_job(
        self,
        name: str = "",
        request: SlotRequest = DEFAULT_SLOTS,
        *,
        switch: str = "",
        tenant: str = "",
        on_queue: Callable[[pb.Job], None] | None = None,
        request_id: str = "",
        parent: str = "",
        parent_token: str = "",
        unreachable_s: float = 30.0,
    ) -> pb.Job:
        """Reserve slots for a job, or attach to the live one of that name.

        ``parent``: the id of a live job of which the new one is a part, with slots inside that
        job's own; ``parent_token`` is that job's, and no other token is needed.

        Where ``request`` says WAIT and there is no room, the call returns when there is, or raises
        RESOURCE_EXHAUSTED after ``queue_timeout_s``; meanwhile ``on_queue`` gets the job as it
        stands in the queue, again and again. A controller that goes away meanwhile is asked again
        for ``unreachable_s``, and the place in the queue is kept; any other exception (a signal's,
        say) gives it up. ``request_id`` is for :meth:`release_job` by a caller that does not have
        the job yet.
        """
        call = pb.CreateJobRequest(
            name=name,
            slots_wanted=request.slots,
            switch=switch,
            tenant=tenant,
            on_full=pb.OnFull.Value(f"ON_FULL_{request.on_full.name}"),
            min_slots=request.min_slots,
            wait_timeout_s=min(request.queue_timeout_s or 0.0, _LONGEST_QUEUE_S),
            request_id=request_id or secrets.token_hex(16),
            started=request.started,
            parent=parent,
            parent_token=parent_token,
        )
        if request.on_full is not OnFull.WAIT:
            return self._call(lambda stub: stub.CreateJob, call)
        limit = _FIRST_POLL_S

        def ask() -> pb.Job:
            return self._call(lambda stub: stub.CreateJob, call, timeout_s=limit)

        try:
            while True:
                # The first poll is short: a controller that is slow just then is asked again.
                job = self._again(ask, unreachable_s, codes=("UNAVAILABLE", "DEADLINE_EXCEEDED"))
                if job.state != pb.JOB_STATE_QUEUED:
                    return job
                if on_queue is not None:
                    on_queue(job)
                limit = _QUEUE_POLL_S
        except ControllerError:
            raise
        except BaseException:
            self._leave_queue(call)
            raise

    def _leave_queue(self, request: pb.CreateJobRequest) -> None:
        """Leave the queue: a job without a caller would hold its slots until it expires."""
        with suppress(ControllerError):
            # Asking once more tells which job it is.
            job = self._call(lambda stub: stub.CreateJob, request, timeout_s=_LEAVE_S)
            token = job.token or request.parent_token
            self.release_job(job.id, token, request_id=request.request_id, timeout_s=_LEAVE_S)

    def claim_job(self, job_id: str, token: str, *, owner: str, where: str) -> pb.ClaimJobResponse:
        """Ask for a job on behalf of the process group ``owner``, whose rank 0 is on ``where``."""
        request = pb.ClaimJobRequest(job_id=job_id, token=token, owner=owner, where=where)
        return self._call(lambda stub: stub.ClaimJob, request)

    def join_job(
        self,
        job_id: str,
        token: str,
        joining: JoiningRank,
        *,
        waited_s: float = 0.0,
        timeout_s: float = 60.0,
        unreachable_s: float = 10.0,
    ) -> pb.Lease:
        """Join one attempt of a job; returns when all its ranks have, with the lease.

        Waits at most ``timeout_s``, and no longer than a day; the error then names the missing
        ranks, and says how long this rank has waited, the ``waited_s`` seconds before this call
        included. A controller that goes away meanwhile is asked again for ``unreachable_s``.
        """
        request = pb.JoinJobRequest(
            job_id=job_id,
            token=token,
            **vars(joining),
            agent_version=package_version(),
            waited_s=waited_s,
        )
        deadline = time.monotonic() + min(timeout_s, _LONGEST_JOIN_S)

        def ask() -> pb.Lease:
            # 0 would ask for the controller's default.
            request.timeout_s = max(deadline - time.monotonic(), 0.001)
            return self._call(
                lambda stub: stub.JoinJob, request, timeout_s=request.timeout_s + _POLL_MARGIN_S
            )

        return self._again(ask, unreachable_s, deadline=deadline)

    def change_lease(
        self,
        job_id: str,
        token: str,
        declaration: Declaration,
        *,
        timeout_s: float = 0.0,
        unreachable_s: float = 600.0,
    ) -> pb.ChangeLeaseResponse:
        """Agree with the other ranks on the last collective under the lease in use.

        This rank must not start another collective until this returns. Waits for the others at
        most ``timeout_s`` (0: the controller's default). A controller that goes away, or does not
        answer, is asked again for ``unreachable_s``: if this raises UNAVAILABLE or
        DEADLINE_EXCEEDED all the same, the other ranks may have been told a boundary; this one must
        ask before it goes on.
        """
        request = pb.ChangeLeaseRequest(
            job_id=job_id,
            token=token,
            **vars(declaration),
            timeout_s=timeout_s,
        )
        limit = (timeout_s or self._timeout_s * 3) + _POLL_MARGIN_S
        return self._again(
            lambda: self._call(lambda stub: stub.ChangeLease, request, timeout_s=limit),
            unreachable_s,
            codes=("UNAVAILABLE", "DEADLINE_EXCEEDED"),
        )

    def heartbeat(
        self,
        job_id: str,
        token: str,
        *,
        wait_s: float = 0.0,
        epoch: int = 0,
        change: int = 0,
        report: pb.RankReport | None = None,
        of: GroupRank = NO_RANK,
    ) -> pb.HeartbeatResponse:
        """Keep a job alive; returns its state and current epoch, also if it is over.

        With ``wait_s``, returns when the state, the epoch (if not 0) or the announced change is
        another than the caller knows, or after that time. ``report``: a worker's progress.
        ``of``: the rank that calls, if one does.
        """
        request = pb.HeartbeatRequest(
            job_id=job_id,
            token=token,
            wait_s=wait_s,
            epoch=epoch,
            change=change,
            report=report,
            owner=of.owner,
            rank=of.rank,
        )
        return self._call(lambda stub: stub.Heartbeat, request, timeout_s=self._timeout_s + wait_s)

    def leave_job(self, job_id: str, token: str, of: GroupRank, *, timeout_s: float = 2.0) -> None:
        """Say that a rank has left: once all have, the job is free for another group."""
        request = pb.HeartbeatRequest(
            job_id=job_id, token=token, owner=of.owner, rank=of.rank, leaving=True
        )
        self._call(lambda stub: stub.Heartbeat, request, timeout_s=timeout_s)

    def park_job(self, job_id: str, token: str = "", *, unpark: bool = False) -> pb.Job:
        """Let others have a job's slots while it has nothing to sum; ``unpark``: get them back.

        Returns the job as it is then: changes of its lease follow while it runs.
        """
        request = pb.ParkJobRequest(job_id=job_id, token=token, unpark=unpark)
        return self._call(lambda stub: stub.ParkJob, request)

    def release_job(
        self, job_id: str, token: str, *, request_id: str = "", timeout_s: float | None = None
    ) -> pb.ReleaseJobResponse:
        """Leave a job, which ends with the last that leaves; harmless if it is over.

        Who leaves is known by the job's ``token``, or by the ``request_id`` of its request for the
        job. With neither, the job ends for all: the caller is its tenant or the admin.
        """
        request = pb.ReleaseJobRequest(job_id=job_id, token=token, request_id=request_id)
        return self._call(lambda stub: stub.ReleaseJob, request, timeout_s=timeout_s)

    def get_job(self, job_id: str, *, counters: bool = False) -> pb.Job:
        """A job by id or name; with ``counters``, also the switch's events for it."""
        return self._call(
            lambda stub: stub.GetJob, pb.GetJobRequest(job_id=job_id, counters=counters)
        )

    def list_jobs(self, *, counters: bool = False, live_only: bool = False) -> list[pb.Job]:
        """All jobs, newest first."""
        request = pb.ListJobsRequest(counters=counters, live_only=live_only)
        found: dict[str, pb.Job] = {}
        while True:
            answer = self._call(lambda stub: stub.ListJobs, request)
            # A job that has got its slots between two pages is on both; the later one counts.
            found.update((job.id, job) for job in answer.jobs)
            if not answer.next_page_token:
                return list(found.values())
            request.page_token = answer.next_page_token

    def evict_job(self, job: str, reason: str = "") -> pb.Job:
        """End a job, or take it out of the queue; its workers are told ``reason``."""
        return self._call(
            lambda stub: stub.EvictJob, pb.EvictJobRequest(job=job, reason=reason), twice=False
        )

    def list_slots(self, switch: str = "") -> list[pb.SwitchSlots]:
        """The slots of each switch, in order, with the jobs that hold them."""
        request = pb.ListSlotsRequest(switch=switch)
        return list(self._call(lambda stub: stub.ListSlots, request).switches)

    # ---- switches

    def add_switch(self, request: pb.AddSwitchRequest) -> pb.Switch:
        """Register a switch or update the one of that name."""
        return self._call(lambda stub: stub.AddSwitch, request)

    def list_switches(self, *, counters: bool = False) -> list[pb.Switch]:
        """All switches by name; with ``counters``, also the packets that each has dropped."""
        request = pb.ListSwitchesRequest(counters=counters)
        return list(self._call(lambda stub: stub.ListSwitches, request).switches)

    def remove_switch(self, name: str) -> None:
        """Forget a switch that no live job uses."""
        self._call(lambda stub: stub.RemoveSwitch, pb.RemoveSwitchRequest(name=name))

    def drain_switch(self, name: str, *, undrain: bool = False) -> pb.Switch:
        """Give a switch no new jobs; or with ``undrain``, give it new jobs again."""
        request = pb.DrainSwitchRequest(name=name, undrain=undrain)
        return self._call(lambda stub: stub.DrainSwitch, request)

    # ---- tenants

    def add_tenant(
        self, name: str, *, slot_quota: int = 0, max_jobs: int = 0, priority: int = 0
    ) -> pb.Tenant:
        """Add a tenant; the answer has its token, which is not shown again."""
        request = pb.AddTenantRequest(
            name=name, slot_quota=slot_quota, max_jobs=max_jobs, priority=priority
        )
        return self._call(lambda stub: stub.AddTenant, request, twice=False)

    def list_tenants(self) -> list[pb.Tenant]:
        """The tenants that the caller may see, by name, with what they use."""
        return list(self._call(lambda stub: stub.ListTenants, pb.ListTenantsRequest()).tenants)

    def set_tenant(
        self,
        name: str,
        *,
        slot_quota: int | None = None,
        max_jobs: int | None = None,
        priority: int | None = None,
    ) -> pb.Tenant:
        """Change the limits that are not None."""
        request = pb.SetTenantRequest(
            name=name, slot_quota=slot_quota, max_jobs=max_jobs, priority=priority
        )
        return self._call(lambda stub: stub.SetTenant, request)

    def rotate_tenant_token(self, name: str) -> pb.Tenant:
        """Give a tenant another token, which the answer has; the old one is not valid any more."""
        request = pb.RotateTenantTokenRequest(name=name)
        return self._call(lambda stub: stub.RotateTenantToken, request, twice=False)

    def remove_tenant(self, name: str, *, evict: bool = False) -> None:
        """Forget a tenant without live jobs; with ``evict``, end its jobs first."""
        self._call(
            lambda stub: stub.RemoveTenant,
            pb.RemoveTenantRequest(name=name, evict=evict),
            twice=False,
        )

    # ----

    def _call(
        self,
        method: Method[_R],
        request: Any,
        *,
        timeout_s: float | None = None,
        twice: bool = True,
    ) -> _R:
        """``twice``: if the answer is lost, the call may be made again, to another controller."""
        limit = self._timeout_s if timeout_s is None else timeout_s
        return self._connection.call(method, request, limit, twice=twice)

    def _again(
        self,
        ask: Callable[[], _R],
        unreachable_s: float,
        *,
        deadline: float | None = None,
        codes: tuple[str, ...] = ("UNAVAILABLE",),
    ) -> _R:
        """Ask, and while the controller is away for up to ``unreachable_s``, ask again."""
        give_up: float | None = None
        while True:
            try:
                return ask()
            except ControllerError as error:
                now = time.monotonic()
                give_up = give_up or now + unreachable_s
                limit = give_up if deadline is None else min(deadline, give_up)
                pause = max(_RETRY_S, error.retry_after_s or 0.0)
                later = error.code in codes or error.retry_after_s is not None
                if not later or now + pause >= limit:
                    raise
                time.sleep(pause)


def add_switch_request(
    name: str,
    *,
    p4runtime: str,
    ip: str,
    udp_port: int,
    hosts: Iterable[tuple[str, int]],
    mac: str = "",
    lanes: int = 0,
    device_id: int = 0,
    shared_address: bool | None = None,
) -> pb.AddSwitchRequest:
    """The request that describes a switch; ``hosts`` are pairs of CIDR and switch port."""
    return pb.AddSwitchRequest(
        name=name,
        p4runtime=p4runtime,
        device_id=device_id,
        ip=ip,
        udp_port=udp_port,
        mac=mac,
        lanes=lanes,
        hosts=[pb.Host(cidr=cidr, port=port) for cidr, port in hosts],
        shared_address=shared_address,
    )
