"""How ranks join: the first time, after a restart, and when their job's lease changes."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.checks import (
    check_field,
    check_rank,
    check_udp_port,
    invalid,
    parse_ip,
    parse_mac,
)
from wiresum.controller.rules.jobs import Jobs
from wiresum.controller.state.epochs import epoch_floor
from wiresum.controller.state.model import Change, Job, JobState, Member, Switch
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb

MEMBERS_PER_SWITCH = 8192
"""Entries of the program's membership and deliver tables."""


@dataclass
class Joining:
    """The rules of joining. Methods raise :class:`ControllerError`."""

    store: Store
    clock: Clock
    jobs: Jobs

    def join(self, job: Job, request: pb.JoinJobRequest) -> Job:
        """Record that a rank of ``job`` is there; it is ready when this was the last one.

        Joining twice from the same address is the same as joining once.
        """
        if not job.state.live:
            raise self.jobs.ended_error(job)
        check_rank(request.rank, request.workers)
        check_field(request.field)
        self._check_room_for_members(job, request.workers)
        if job.attempt is not None and request.attempt < job.attempt:
            raise self.jobs.replaced_error(job, request.attempt)
        member = self._member(job, request)
        if request.change or (job.attempt == request.attempt and job.change):
            return self._join_change(job, member, request)
        if job.attempt == request.attempt and job.members:
            if self._has_joined(job, job.members, member, request):
                return job
        else:
            job = self._start_attempt(job, request)
        with self.store.transaction() as transaction:
            transaction.add_member(job.id, member)
            if job.missing == [member.rank]:
                transaction.set_ready(job.id)
        self.jobs.heard(job.id)
        return self.jobs.get(job.id)

    def withdraw(self, request: pb.JoinJobRequest) -> None:
        """Record that a rank gave up waiting for the others; nothing happens if all are there."""
        job = self.store.job(request.job_id)
        if job is None or job.attempt != request.attempt:
            return
        waits = request.change > job.change or job.state is JobState.WAITING
        if waits:
            with self.store.transaction() as transaction:
                transaction.remove_member(job.id, request.rank, request.change)

    # ----

    def _join_change(self, job: Job, member: Member, request: pb.JoinJobRequest) -> Job:
        """A rank is ready for an agreed change of the lease; it is made when all are."""
        if job.attempt != request.attempt:
            invalid(
                f"change {request.change} belongs to an attempt that has begun: join attempt "
                f"{request.attempt} without one"
            )
        if request.change < job.change:
            raise ControllerError(
                "ABORTED",
                f"rank {request.rank}: change {request.change} of the lease of job {job.label} is "
                f"over, it has change {job.change}: restart this worker with the others",
            )
        if request.change == job.change:
            self._has_joined(job, job.members, member, request)
            return job
        pending = self._agreed(job, request.change)
        if not self._has_joined(job, pending.members, member, request):
            with self.store.transaction() as transaction:
                transaction.add_member(job.id, member, pending.number)
                if len(pending.members) + 1 == job.workers:
                    transaction.finish_change(job.id, pending)
            self.jobs.heard(job.id)
        return self.jobs.get(job.id)

    def _agreed(self, job: Job, number: int) -> Change:
        if job.pending is None or job.pending.number != number:
            raise ControllerError(
                "ABORTED",
                f"change {number} of the lease of job {job.label} was cancelled: carry on under "
                f"the lease of epoch {job.epoch}",
            )
        if job.pending.boundary is None:
            raise ControllerError(
                "FAILED_PRECONDITION",
                f"the ranks of job {job.label} have not agreed on change {number} yet: call "
                "ChangeLease first",
            )
        return job.pending

    def _check_room_for_members(self, job: Job, workers: int) -> None:
        """Refuse an attempt whose entries would not fit in the switch's tables.

        A tenant may have as many as it leaves free: so none can fill the tables alone, and each
        that comes still finds room. A job may always restart with the workers that it has.
        """
        if workers <= job.workers:
            return
        taken = self.store.workers_on(job.lease.switch, but=job.id)
        free = MEMBERS_PER_SWITCH - taken.total()
        own = taken[job.tenant]
        if own + workers > free - workers:
            raise ControllerError(
                "RESOURCE_EXHAUSTED",
                f"switch {job.lease.switch} has room for {free} of {MEMBERS_PER_SWITCH} workers: "
                f"tenant {job.tenant} has {own} there, and would leave less than that with "
                f"{workers} more",
            )

    def _start_attempt(self, job: Job, request: pb.JoinJobRequest) -> Job:
        with self.store.transaction() as transaction:
            transaction.start_attempt(
                job.id,
                attempt=request.attempt,
                epoch=transaction.new_epoch(epoch_floor(self.clock)),
                key=secrets.randbits(64),
                reply_key=secrets.randbits(64),
                workers=request.workers,
                field=request.field,
            )
        return self.jobs.get(job.id)

    def _has_joined(
        self, job: Job, there: Iterable[Member], new: Member, request: pb.JoinJobRequest
    ) -> bool:
        """Whether the same rank is ``there`` already; raises if it contradicts those that are."""
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
        for member in there:
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
        return Member(request.rank, ip, request.udp_port, mac, port)

    def _switch_of(self, job: Job) -> Switch:
        switch = self.store.switch(job.lease.switch)
        assert switch is not None, "a switch with live jobs cannot be removed"
        return switch
