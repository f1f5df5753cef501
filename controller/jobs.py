"""The life of a job: created with a lease, joined by its ranks, restarted, ended.

Everything here is synchronous and decided by the store alone; who has to wait, and for what,
is the service's business.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wiresum.controller import admission
from wiresum.controller.access import Caller
from wiresum.controller.checks import (
    check_field,
    check_name,
    check_rank,
    check_request_id,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
)
from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.model import Job, JobState, Member, Switch, Tenant, format_mac
from wiresum.controller.store import Store
from wiresum.controller.tokens import JOB, hashed, new_token
from wiresum.controller.v1 import controller_pb2 as pb

# Epochs of a new store start at the seconds since 2025-01-01, so that they are also new to
# a switch that another store, since lost, had programmed before.
_EPOCH_ORIGIN = 1_735_689_600

_HISTORY_S = 7 * 24 * 3600.0

# A launcher on every host of the largest job, each of which has lost its answer a few times.
_TOKENS_PER_JOB = 1024

# A sign of life is written to the store at most this often.
_HEARTBEAT_RESOLUTION_S = 1.0


@dataclass(frozen=True)
class Limits:
    """How long the controller waits for what. All in seconds."""

    heartbeat_s: float = 5.0
    """How often launchers and workers shall show a sign of life."""
    expiry_s: float = 30.0
    """Silence after which a job's lease expires."""
    join_timeout_s: float = 60.0
    """How long a rank waits for the others, unless it says otherwise."""


@dataclass(frozen=True)
class Created:
    """The answer to a request for a job."""

    job: Job
    token: str
    """The caller's own; it is not kept."""
    attached: bool
    """The job had been there before."""


def _unknown(job: str) -> ControllerError:
    return ControllerError(
        "NOT_FOUND",
        f"there is no job {job[:80]!r}: `wiresum job list` shows those that this token may see",
    )


@dataclass
class Jobs:
    """The rules of jobs. Methods raise :class:`ControllerError`.

    ``usable`` tells whether a switch can be reached now: others are the second choice.
    """

    store: Store
    clock: Clock
    limits: Limits
    usable: Callable[[str], bool] = lambda _name: True

    def recover(self) -> None:
        """Take over what an earlier controller left: live jobs get their whole expiry time.

        Ranks that were waiting for others are not waiting any more, so they have not joined.
        """
        with self.store.transaction() as transaction:
            transaction.set_all_heartbeats(self.clock.now())
            transaction.remove_waiting_members()

    # ---- the calls of the service

    def create(self, request: pb.CreateJobRequest, caller: Caller) -> Created:
        """A new job with its lease, or the live one of that name."""
        tenant = self._tenant(caller.acting_tenant(request.tenant))
        check_request_id(request.request_id)
        # The same request again: the answer to the first one was lost.
        job = self.store.job_requested(tenant.name, request.request_id)
        if job is not None and job.state.live:
            return Created(job, self._another_token(job), attached=False)
        job_id = f"j-{secrets.token_hex(6)}"
        if request.name:
            check_name(request.name, "job")
            live = self.store.live_job_named(tenant.name, request.name)
            if live is not None:
                return self._attach(live, request)
        admission.check_limits(self.store, tenant, admission.wanted_slots(request.slots_wanted))
        place = admission.place(
            self.store, request.slots_wanted, request.switch, caller=caller, usable=self.usable
        )
        token = new_token(JOB)
        with self.store.transaction() as transaction:
            transaction.add_job(
                job_id,
                tenant=tenant.name,
                name=request.name or job_id,
                token=hashed(token),
                now=self.clock.now(),
                switch=place.switch,
                number=place.number,
                slots=place.range,
                request=request.request_id,
            )
            transaction.set_served(tenant.name)
        return Created(self.get(job_id), token, attached=False)

    def join(self, job: Job, request: pb.JoinJobRequest) -> Job:
        """Record that a rank of ``job`` is there; it is ready when this was the last one.

        Joining twice from the same address is the same as joining once.
        """
        self._refuse_ended(job)
        check_rank(request.rank, request.workers)
        check_field(request.field)
        admission.check_room_for_members(self.store, job, request.workers)
        self._refuse_replaced(job, request.attempt)
        member = self._member(job, request)
        if job.attempt == request.attempt and job.members:
            if self._has_joined(job, member, request):
                return job
        else:
            job = self._start_attempt(job, request)
        with self.store.transaction() as transaction:
            transaction.add_member(job.id, member)
            if job.missing == [member.rank]:
                transaction.set_ready(job.id)
            transaction.set_heartbeat(job.id, self.clock.now())
        return self.get(job.id)

    def withdraw(self, job_id: str, attempt: int, rank: int) -> None:
        """Record that a rank gave up waiting for the others; nothing happens if all are there."""
        job = self.store.job(job_id)
        if job is None or job.attempt != attempt or job.state is not JobState.WAITING:
            return
        with self.store.transaction() as transaction:
            transaction.remove_member(job_id, rank)

    def touch(self, job: Job) -> None:
        """Record a sign of life."""
        now = self.clock.now()
        if job.state.live and now - job.heartbeat >= _HEARTBEAT_RESOLUTION_S:
            with self.store.transaction() as transaction:
                transaction.set_heartbeat(job.id, now)

    def end(
        self, job: Job, state: JobState, reason: str, events: Mapping[str, int] | None = None
    ) -> Job:
        """Release or evict a job, unless it is over; ``events`` are its last counters."""
        job = self.get(job.id)
        if job.state.live:
            self._end(job, state, reason, events)
        return self.get(job.id)

    def get(self, job_id: str) -> Job:
        """The job of that id."""
        job = self.store.job(job_id)
        if job is None:
            raise _unknown(job_id)
        return job

    def shown(self, id_or_name: str, caller: Caller) -> Job:
        """The job of that id, or of that name, that the caller may see and end."""
        job = self.store.job(id_or_name) or self.store.job_named(id_or_name, caller.tenant or None)
        if job is None or not caller.owns(job):
            raise _unknown(id_or_name)
        return job

    def joinable(self, job_id: str, caller: Caller) -> Job:
        """The job of that id, for a caller who is one of its workers or launchers."""
        if caller.tenant or (caller.job and caller.job != job_id):
            raise ControllerError(
                "PERMISSION_DENIED",
                f"wrong token for job {job_id[:80]!r} ({caller}'s): use the one that CreateJob "
                "returned",
            )
        return self.get(job_id)

    # ---- expiry

    def silent(self) -> list[Job]:
        """The live jobs whose heartbeats have stopped for too long."""
        return self.store.silent_jobs(self.clock.now() - self.limits.expiry_s)

    def expire(self, job_id: str, events: Mapping[str, int] | None = None) -> Job:
        """End a job if it is (still) silent."""
        job = self.get(job_id)
        if job.state.live and self.clock.now() - job.heartbeat > self.limits.expiry_s:
            reason = f"no heartbeat for {self.limits.expiry_s:g} s"
            self._end(job, JobState.EXPIRED, reason, events)
        return self.get(job_id)

    def forget_old(self) -> None:
        """Drop the history of jobs that ended more than a week ago."""
        with self.store.transaction() as transaction:
            transaction.forget_jobs_ended_before(self.clock.now() - _HISTORY_S)

    def ended_error(self, job: Job) -> ControllerError:
        """What a caller is told who wants something of a job that is over."""
        return ControllerError(
            "FAILED_PRECONDITION",
            f"job {job.label} is over ({job.state.value}: {job.reason}): create a new one",
        )

    def replaced_error(self, job: Job, attempt: int) -> ControllerError:
        """What a rank of an attempt is told when a later one has begun."""
        return ControllerError(
            "ABORTED",
            f"attempt {attempt} of job {job.label} is over: attempt {job.attempt} has started; "
            "restart this worker with the others",
        )

    # ----

    def _tenant(self, name: str) -> Tenant:
        tenant = self.store.tenant(name)
        if tenant is None:
            raise ControllerError("NOT_FOUND", f"there is no tenant {name[:80]!r}")
        return tenant

    def _attach(self, live: Job, request: pb.CreateJobRequest) -> Created:
        if request.switch and request.switch != live.lease.switch:
            raise ControllerError(
                "ALREADY_EXISTS",
                f"job {live.label} is live on switch {live.lease.switch}, "
                f"not {request.switch}: release it, or choose another name",
            )
        return Created(live, self._another_token(live), attached=True)

    def _another_token(self, job: Job) -> str:
        """Tokens are kept as hashes: whoever attaches gets one of its own."""
        if self.store.token_count(job.id) >= _TOKENS_PER_JOB:
            raise ControllerError(
                "RESOURCE_EXHAUSTED",
                f"job {job.label} has been attached to {_TOKENS_PER_JOB} times: release it, or "
                "choose another name",
            )
        token = new_token(JOB)
        with self.store.transaction() as transaction:
            transaction.add_job_token(job.id, hashed(token))
        return token

    def _refuse_ended(self, job: Job) -> None:
        if not job.state.live:
            raise self.ended_error(job)

    def _refuse_replaced(self, job: Job, attempt: int) -> None:
        if job.attempt is not None and attempt < job.attempt:
            raise self.replaced_error(job, attempt)

    def _start_attempt(self, job: Job, request: pb.JoinJobRequest) -> Job:
        with self.store.transaction() as transaction:
            transaction.start_attempt(
                job.id,
                attempt=request.attempt,
                epoch=transaction.new_epoch(max(1, int(self.clock.now()) - _EPOCH_ORIGIN)),
                key=secrets.randbits(64),
                workers=request.workers,
                field=request.field,
            )
        return self.get(job.id)

    def _has_joined(self, job: Job, new: Member, request: pb.JoinJobRequest) -> bool:
        """Whether the same rank is there already; raises if it contradicts those that are."""
        attempt = f"attempt {job.attempt} of job {job.label}"
        if request.workers != job.workers:
            invalid(
                f"rank {new.rank} says {request.workers} workers, but {attempt} has {job.workers}: "
                "start all ranks with the same number"
            )
        if request.field != job.field:
            invalid(
                f"rank {new.rank} has fields of {request.field} bits, but {attempt} has "
                f"{job.field}: start all ranks with the same --field"
            )
        for member in job.members:
            same_address = (member.ip, member.udp_port) == (new.ip, new.udp_port)
            if member.rank == new.rank:
                if same_address and member.mac == new.mac:
                    return True
                raise ControllerError(
                    "ALREADY_EXISTS",
                    f"rank {new.rank} of {attempt} is already {member.ip}:{member.udp_port}, "
                    f"not {new.ip}:{new.udp_port}: a restarted worker needs a later attempt",
                )
            if same_address:
                raise ControllerError(
                    "ALREADY_EXISTS",
                    f"{new.ip}:{new.udp_port} is already rank {member.rank} of {attempt}: "
                    f"rank {new.rank} needs a socket of its own",
                )
        return False

    def _member(self, job: Job, request: pb.JoinJobRequest) -> Member:
        what = f"rank {request.rank}"
        ip = parse_ip(request.ip, f"{what}: address")
        check_udp_port(request.udp_port, f"{what}: port")
        mac = parse_mac(request.mac, ip, f"{what}: MAC")
        switch = self._switch_of(job)
        port = switch.port_of(ip)
        if port is None:
            raise ControllerError(
                "FAILED_PRECONDITION",
                f"{what}: no host range of switch {switch.name} contains {ip}: repeat "
                f"`wiresum switch add {switch.name}` with a --host for it",
            )
        if not switch.shared_address and (ip == switch.ip or mac == switch.mac):
            invalid(
                f"{what} has the address of switch {switch.name} itself, {ip}: if the switch "
                "runs on the worker's host, add it with --shared-address"
            )
        member = Member(request.rank, ip, request.udp_port, mac, port)
        # A later attempt's ranks may have moved: the members of the one before are leaving.
        leaving = job.id if job.attempt != request.attempt else ""
        self._refuse_moved_mac(switch, member, leaving)
        return member

    def _refuse_moved_mac(self, switch: Switch, new: Member, leaving: str) -> None:
        there = self.store.member_elsewhere(switch.name, new.mac, new.port, but=leaving)
        if there is not None:
            job_id, rank, port = there
            raise ControllerError(
                "ALREADY_EXISTS",
                f"rank {new.rank}: MAC {format_mac(new.mac)} is behind port {port} of switch "
                f"{switch.name} (rank {rank} of job {job_id}), but {new.ip} is behind port "
                f"{new.port}",
            )

    def _switch_of(self, job: Job) -> Switch:
        switch = self.store.switch(job.lease.switch)
        assert switch is not None, "a switch with live jobs cannot be removed"
        return switch

    def _end(
        self, job: Job, state: JobState, reason: str, events: Mapping[str, int] | None
    ) -> None:
        with self.store.transaction() as transaction:
            transaction.end_job(job.id, state, reason, self.clock.now(), events)
