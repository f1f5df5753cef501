"""The life of a job: created with a lease, joined by its ranks, restarted, ended.

Everything here is synchronous and decided by the store alone; who has to wait, and for what,
is the service's business.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wiresum.controller import admission
from wiresum.controller.checks import (
    check_field,
    check_name,
    check_rank,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
)
from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.model import DEFAULT_TENANT, Job, JobState, Member, Switch, format_mac
from wiresum.controller.store import Store
from wiresum.controller.v1 import controller_pb2 as pb

# Epochs of a new store start at the seconds since 2025-01-01, so that they are also new to
# a switch that another store, since lost, had programmed before.
_EPOCH_ORIGIN = 1_735_689_600

_HISTORY_S = 7 * 24 * 3600.0

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
            transaction.remove_members_of_incomplete_attempts()

    # ---- the calls of the service

    def create(self, request: pb.CreateJobRequest) -> tuple[Job, bool]:
        """A new job with its lease, or the live one of that name and True."""
        tenant = request.tenant or DEFAULT_TENANT
        if not self.store.has_tenant(tenant):
            raise ControllerError("NOT_FOUND", f"there is no tenant {tenant[:80]!r}")
        job_id = f"j-{secrets.token_hex(6)}"
        if request.name:
            check_name(request.name, "job")
            live = self.store.live_job_named(tenant, request.name)
            if live is not None:
                if request.switch and request.switch != live.lease.switch:
                    raise ControllerError(
                        "ALREADY_EXISTS",
                        f"job {live.label} is live on switch {live.lease.switch}, "
                        f"not {request.switch}: release it, or choose another name",
                    )
                return live, True
        place = admission.place(
            self.store, request.slots_wanted, request.switch, usable=self.usable
        )
        with self.store.transaction() as transaction:
            transaction.add_job(
                job_id,
                tenant=tenant,
                name=request.name or job_id,
                token=secrets.token_urlsafe(24),
                now=self.clock.now(),
                switch=place.switch,
                number=place.number,
                slots=place.range,
            )
        return self.get(job_id), False

    def join(self, request: pb.JoinJobRequest) -> Job:
        """Record that a rank is there; the job is ready when this was the last one.

        Joining twice from the same address is the same as joining once.
        """
        job = self.authorized(request.job_id, request.token)
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

    def heartbeat(self, job_id: str, token: str) -> Job:
        """A sign of life; a job that is over stays over."""
        job = self.authorized(job_id, token)
        self.touch(job)
        return job

    def touch(self, job: Job) -> None:
        """Record a sign of life."""
        now = self.clock.now()
        if job.state.live and now - job.heartbeat >= _HEARTBEAT_RESOLUTION_S:
            with self.store.transaction() as transaction:
                transaction.set_heartbeat(job.id, now)

    def release(self, job_id: str, token: str, events: Mapping[str, int] | None = None) -> Job:
        """End a job; ``events`` are the switch's counters to remember for it."""
        job = self.authorized(job_id, token)
        if job.state.live:
            self._end(job, JobState.RELEASED, "released", events)
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """The job of that id, or of that name."""
        job = self.store.job(job_id) or self.store.job_named(job_id)
        if job is None:
            raise ControllerError(
                "NOT_FOUND", f"there is no job {job_id[:80]!r}: `wiresum job list` shows all"
            )
        return job

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

    def authorized(self, job_id: str, token: str) -> Job:
        """The job of that id, if the token is its token."""
        job = self.store.job(job_id)
        if job is None:
            raise ControllerError(
                "NOT_FOUND", f"there is no job {job_id[:80]!r}: was it created on this controller?"
            )
        if not secrets.compare_digest(job.token.encode(), token.encode()):
            raise ControllerError(
                "PERMISSION_DENIED",
                f"wrong token for job {job_id}: use the one that CreateJob returned",
            )
        return job

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
