"""Who gets slots: jobs come, wait if they must, and get them, or are told why not.

The rules are in scheduling.py, as a pure function; here is what it is asked about, and what is
done with its answers. All of it is synchronous; who waits for how long is the core's business.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.changes import Changes
from wiresum.controller.rules.checks import check_name, check_request_id, invalid
from wiresum.controller.rules.jobs import Created, Jobs
from wiresum.controller.scheduling.packing import Holding
from wiresum.controller.scheduling.scheduling import (
    Account,
    Decisions,
    Shrunk,
    Standing,
    SwitchView,
    Wish,
    decide,
)
from wiresum.controller.scheduling.slots import disjoint, free_ranges, rounded
from wiresum.controller.state.model import NO_LEASE, Job, JobState, OnFull, Switch, Tenant
from wiresum.controller.state.reading import Usage
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import packet

# The caller of a queued job comes back within moments, or it is gone for now.
_ABSENT_S = 5.0

MAX_WAIT_S = 365 * 24 * 3600.0
"""The longest that a job can wait in the queue."""

# Of one tenant: more launchers than have any use for being in line.
_QUEUE_PER_TENANT = 256

_NAMED_HOLDERS = 8

# Of those who were taken out of the queue, so many are told why when they ask again.
_REMEMBERED = 4096

_ON_FULL = {
    pb.ON_FULL_FAIL: OnFull.FAIL,
    pb.ON_FULL_WAIT: OnFull.WAIT,
    pb.ON_FULL_SMALLER: OnFull.SMALLER,
    pb.ON_FULL_FALLBACK: OnFull.FALLBACK,
}


@dataclass(frozen=True)
class Queued:
    """A place in the queue."""

    job: Job
    attached: bool
    """Another caller had asked for the job before."""


@dataclass(frozen=True)
class Balance:
    """What a round of decisions has changed."""

    granted: tuple[str, ...] = ()
    """Jobs that have got their slots."""
    changing: tuple[str, ...] = ()
    """Jobs whose lease changes."""
    switches: frozenset[str] = frozenset()
    """The switches that they are on."""
    dismissed: tuple[str, ...] = ()
    """Jobs that were taken out of the queue: they can never get slots."""


@dataclass
class Scene:
    """What several refusals in a row have in common."""

    usage: dict[str, Usage] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    switches: list[Switch] | None = None
    draining: set[str] = field(default_factory=set)
    occupancy: dict[str, str] = field(default_factory=dict)
    """In words, by the switch that is asked for."""


@dataclass
class Admission:
    """The rules of getting slots. Methods raise :class:`ControllerError`.

    ``usable`` tells whether a switch can be reached now: others get jobs only while none can.
    """

    store: Store
    clock: Clock
    jobs: Jobs
    changes: Changes
    usable: Callable[[str], bool] = lambda _name: True
    _seen: dict[str, float] = field(default_factory=dict)
    _standings: dict[str, Standing] = field(default_factory=dict)
    _drained: dict[str, float] = field(default_factory=dict)
    """Since when all switches that a waiting job may have are being drained."""
    _dismissed: dict[str, ControllerError] = field(default_factory=dict)
    """Why jobs were taken out of the queue, by their ids and by those of their requests."""
    _places: dict[str, int] = field(default_factory=dict)
    _settled: tuple[object, ...] | None = None
    """The situation in which the last round has changed nothing."""

    def recover(self) -> None:
        """Take over the queue of an earlier controller: those who wait have to come back.

        Whoever would have waited for longer than is possible, or not yet at all, came or is looked
        at with a clock that was wrong, and waits from now on.
        """
        now = self.clock.now()
        with self.store.transaction() as transaction:
            transaction.remove_impatient_jobs()
            for job in self.store.queue():
                self._seen[job.id] = now
                if not 0 <= now - job.created <= MAX_WAIT_S:
                    transaction.set_created(job.id, now)

    # ---- who asks

    def request(self, request: pb.CreateJobRequest, caller: Caller) -> Created | Queued:
        """The job that is asked for if it is there already, or its place in the queue."""
        tenant = self._tenant(caller.acting_tenant(request.tenant))
        check_request_id(request.request_id)
        if request.name:
            check_name(request.name, "job")
        # The same request again: the answer to the first one was lost.
        job = self.store.job_requested(tenant.name, request.request_id)
        if job is not None and job.state is JobState.QUEUED:
            return Queued(job, attached=False)
        if job is not None and job.state.live:
            return Created(job, self.jobs.another_token(job), attached=False)
        if job is not None:
            raise self.jobs.ended_error(job)
        named = self.store.job_not_over(tenant.name, request.name)
        if named is not None and named.state.live:
            return self.jobs.attach(named, request)
        gone = self._dismissed.get(_asked_by(tenant.name, request.request_id))
        if gone is not None and request.request_id:
            raise gone
        if named is not None:
            return Queued(named, attached=True)
        return Queued(self._enqueue(request, tenant), attached=False)

    def present(self, job_id: str) -> None:
        """Somebody waits for the job now."""
        self._seen[job_id] = self.clock.now()

    def leave(self, job_id: str) -> None:
        """Nobody waits for the job any more."""
        # First: should the store fail, nobody has been seen, and :meth:`forget_absent` does it.
        self._forget(job_id)
        with self.store.transaction() as transaction:
            transaction.remove_from_queue(job_id)

    def dismiss(self, job: Job, why: ControllerError) -> None:
        """Take a job out of the queue for good: whoever waits for it is told ``why``.

        A caller that is between two calls is told when it asks again, and not put in line anew.
        """
        self.leave(job.id)
        self.remember(job, why)

    def remember(self, job: Job, why: ControllerError) -> None:
        """Tell whoever waits for a job that has left the queue ``why``."""
        self._forget(job.id)
        self._dismissed[job.id] = why
        if job.request:
            self._dismissed[_asked_by(job.tenant, job.request)] = why
        while len(self._dismissed) > _REMEMBERED:
            del self._dismissed[next(iter(self._dismissed))]

    def _forget(self, job_id: str) -> None:
        for known in (self._seen, self._standings, self._drained):
            known.pop(job_id, None)

    def gone(self, job: Job) -> ControllerError:
        """Why a job that was in the queue is not any more."""
        return self._dismissed.get(job.id) or ControllerError(
            "ABORTED", f"job {job.label} was taken out of the queue"
        )

    def forget_absent(self) -> list[str]:
        """Take those out of the queue whose callers have not been seen for long; their ids."""
        since = self.clock.now() - self.jobs.limits.expiry_s
        gone = [job.id for job in self.store.queue() if self._seen.get(job.id, 0.0) < since]
        for job_id in gone:
            self.leave(job_id)
        # Whoever has got slots meanwhile was seen, too.
        waiting = {job.id for job in self.store.queue()}
        self._seen = {job_id: time for job_id, time in self._seen.items() if job_id in waiting}
        return gone

    def needs(self, job: Job) -> bool:
        """Whether a job of higher priority waits for room where ``job`` is."""
        return any(
            queued.priority > job.priority
            and queued.wanted_switch in ("", job.lease.switch)
            and self.standing(queued.id) in (Standing.FULL, Standing.COMING)
            for queued in self.store.queue()
        )

    def standing(self, job_id: str) -> Standing:
        """How things stand with a waiting job, as of the last round."""
        return self._standings.get(job_id, Standing.FULL)

    def told(self, job_id: str) -> Standing | None:
        """How the last round has left a job that waited then; None: it did not, or is gone."""
        return self._standings.get(job_id)

    def position(self, job_id: str) -> int:
        """The place of a waiting job in the queue; 1 is the next."""
        return self._places.get(job_id, len(self._places) + 1)

    # ---- who gets

    def balance(self) -> Balance:
        """Give slots to those who can have them, and begin the changes that make room."""
        situation = self._situation()
        if situation == self._settled:
            return Balance()
        self._settled = None
        balance = self._balance()
        if balance == Balance():
            # The same question would have the same answer.
            self._settled = situation
        return balance

    def _situation(self) -> tuple[object, ...]:
        """All that a round of decisions depends on."""
        now = self.clock.now()
        since, drained = now - _ABSENT_S, now - self.jobs.limits.drained_s
        present = frozenset(job_id for job_id, seen in self._seen.items() if seen > since)
        up = tuple(name for name in self.store.switch_names() if self.usable(name))
        too_long = frozenset(job_id for job_id, time in self._drained.items() if time < drained)
        return self.store.version, present, up, self.changes.resting(), too_long

    def _balance(self) -> Balance:
        queue = {job.id: job for job in self.store.queue()}
        shrunk = self.store.shrunk_jobs()
        dismissed = self._dismiss_hopeless(queue)
        if not queue and not shrunk:
            self._standings, self._places = {}, {}
            return Balance(dismissed=dismissed)
        decisions = self._decide(queue, shrunk)
        self._standings = decisions.standings
        self._places = {job_id: place for place, job_id in enumerate(self._standings, start=1)}
        changed = [self.jobs.get(change.job) for change in decisions.changes]
        for job, change in zip(changed, decisions.changes, strict=True):
            self.changes.begin(job, change.range, change.reason)
        for grant in decisions.grants:
            job = queue[grant.job]
            with self.store.transaction() as transaction:
                transaction.grant(
                    job.id,
                    switch=grant.switch,
                    number=grant.number,
                    slots=grant.range,
                    min_slots=min(job.min_slots, grant.range.slots),
                    now=self.clock.now(),
                )
                transaction.set_served(job.tenant)
            self._forget(job.id)
        changing = tuple(change.job for change in decisions.changes)
        switches = {grant.switch for grant in decisions.grants}
        switches |= {job.lease.switch for job in changed}
        granted = tuple(grant.job for grant in decisions.grants)
        return Balance(granted, changing, frozenset(switches), dismissed)

    def _dismiss_hopeless(self, queue: dict[str, Job]) -> tuple[str, ...]:
        """Take those out of ``queue``, and of the queue, who can never get what they ask for."""
        if not queue:
            self._drained = {}
            return ()
        switches, draining = self.store.switches(), self.store.draining()
        tenants = {tenant.name: tenant for tenant in self.store.tenants()}
        dismissed = []
        for job in list(queue.values()):
            fitting = _fitting(job.wanted_switch, switches)
            why = _impossible(job, fitting, tenants[job.tenant])
            if why is None:
                why = self._drained_for_good(job, fitting, draining)
            if why is not None:
                self.dismiss(job, why)
                dismissed.append(queue.pop(job.id).id)
        return tuple(dismissed)

    def _drained_for_good(
        self, job: Job, fitting: list[Switch], draining: set[str]
    ) -> ControllerError | None:
        """Why a job does not wait for switches that take no new jobs any longer."""
        if any(switch.name not in draining for switch in fitting):
            self._drained.pop(job.id, None)
            return None
        now = self.clock.now()
        limit = self.jobs.limits.drained_s
        if now - self._drained.setdefault(job.id, now) <= limit:
            return None
        names = ", ".join(switch.name for switch in fitting)
        return ControllerError(
            "FAILED_PRECONDITION",
            f"job {job.label} has waited {limit:g} s for switch {names}, which is being drained "
            "and takes no new jobs: `wiresum switch undrain`, or ask for another switch",
        )

    def _decide(self, queue: dict[str, Job], shrunk: list[Job]) -> Decisions:
        now = self.clock.now()
        draining = self.store.draining()
        usage = self.store.usage()
        return decide(
            switches=[
                self._view(switch, switch.name in draining) for switch in self.store.switches()
            ],
            wishes=[
                Wish(
                    job=job.id,
                    tenant=job.tenant,
                    priority=job.priority,
                    sizes=job.sizes,
                    switch=job.wanted_switch,
                    stays=job.on_full is OnFull.WAIT,
                    present=now - self._seen.get(job.id, 0.0) < _ABSENT_S,
                )
                for job in queue.values()
            ],
            shrunk=[
                Shrunk(job.id, job.lease.switch, job.priority, job.lease.range, job.target)
                for job in shrunk
            ],
            accounts={
                tenant.name: Account(
                    tenant.slot_quota,
                    tenant.max_jobs,
                    tenant.served,
                    usage[tenant.name].slots,
                    usage[tenant.name].jobs,
                )
                for tenant in self.store.tenants()
            },
        )

    def _view(self, switch: Switch, draining: bool) -> SwitchView:
        jobs = self.store.jobs_on(switch.name, members=False)
        return SwitchView(
            name=switch.name,
            total=switch.slots,
            held=tuple((job.id, slots) for job in jobs for slots in job.ranges),
            holdings=tuple(
                Holding(
                    job.id,
                    job.ranges[-1],
                    job.min_slots,
                    job.priority,
                    self.changes.possible(job),
                )
                for job in jobs
            ),
            numbers=frozenset(job.lease.number for job in jobs),
            up=self.usable(switch.name),
            draining=draining,
        )

    # ---- who does not

    def refusal(self, job: Job, caller: Caller, scene: "Scene | None" = None) -> ControllerError:
        """Why the job has no slots, in one line.

        Who asks for many in a row gives each the same ``scene``: it is looked at only once.
        """
        scene = scene or Scene()
        if not scene.usage:
            scene.usage = self.store.usage()
            scene.tenants = {tenant.name: tenant for tenant in self.store.tenants()}
        tenant = scene.tenants[job.tenant]
        usage = scene.usage[tenant.name]
        standing = self.standing(job.id)
        if standing is Standing.JOBS:
            message = (
                f"tenant {tenant.name} has {usage.jobs} live jobs, and may have {tenant.max_jobs}: "
                "wait for one to end"
            )
        elif standing is Standing.QUOTA:
            message = (
                f"tenant {tenant.name} has {usage.slots} of its {tenant.slot_quota} slots in use: "
                f"no room for {job.sizes[-1]} more"
            )
        elif standing is Standing.BEHIND:
            message = (
                f"an earlier job of tenant {tenant.name} waits for its quota or its job limit: "
                f"{job.target} slots have to wait behind it"
            )
        else:
            message = self._full(job, caller, scene)
        return ControllerError("RESOURCE_EXHAUSTED", message)

    def _full(self, job: Job, caller: Caller, scene: "Scene") -> str:
        if scene.switches is None:
            scene.switches, scene.draining = self.store.switches(), self.store.draining()
        switches = [switch for switch in scene.switches if job.wanted_switch in ("", switch.name)]
        serving = [switch for switch in switches if switch.name not in scene.draining]
        if not serving:
            names = ", ".join(switch.name for switch in switches)
            verb = (
                "takes no new jobs, it is" if len(switches) == 1 else "take no new jobs, they are"
            )
            return f"switch {names} {verb} being drained"
        if job.wanted_switch not in scene.occupancy:
            up = [switch for switch in serving if self.usable(switch.name)]
            scene.occupancy[job.wanted_switch] = "; ".join(
                _occupancy(switch, self.store.jobs_on(switch.name, members=False), caller)
                if switch in up or not up
                else f"switch {switch.name} is down"
                for switch in serving
            )
        occupancy = scene.occupancy[job.wanted_switch]
        ahead = self.position(job.id) - 1
        first = f" ({ahead} waiting before it)" if ahead else ""
        return f"no room for {job.sizes[-1]} slots in one range{first}: {occupancy}"

    # ----

    def _enqueue(self, request: pb.CreateJobRequest, tenant: Tenant) -> Job:
        slots, least = _size(request.slots_wanted), _size(request.min_slots or 1)
        if least > slots:
            invalid(f"at least {least} slots, but {slots} wanted: the other way round is possible")
        on_full = _ON_FULL.get(request.on_full)
        if on_full is None:
            invalid(f"on_full {request.on_full} is not one of 0 to {max(_ON_FULL)}")
        self._check_switches(request.switch)
        if self.store.usage()[tenant.name].queued >= _QUEUE_PER_TENANT:
            raise ControllerError(
                "RESOURCE_EXHAUSTED",
                f"tenant {tenant.name} has {_QUEUE_PER_TENANT} jobs in the queue: wait for some of "
                "them to get slots",
            )
        job_id = f"j-{secrets.token_hex(6)}"
        now = self.clock.now()
        job = Job(
            id=job_id,
            tenant=tenant.name,
            name=request.name or job_id,
            state=JobState.QUEUED,
            reason="",
            created=now,
            heartbeat=now,
            attempt=None,
            epoch=0,
            key=0,
            reply_key=0,
            workers=0,
            field=0,
            lease=NO_LEASE,
            target=slots,
            min_slots=least,
            on_full=on_full,
            wanted_switch=request.switch,
            request=request.request_id,
            priority=tenant.priority,
        )
        why = _impossible(job, _fitting(request.switch, self.store.switches()), tenant)
        if why is not None:
            raise why
        with self.store.transaction() as transaction:
            transaction.add_job(job)
        # The last, until a round of decisions has found out more.
        self._places[job.id] = len(self._places) + 1
        return job

    def _check_switches(self, wanted: str) -> None:
        names = self.store.switch_names()
        if not names:
            raise ControllerError(
                "FAILED_PRECONDITION",
                "the controller knows no switch: add one with `wiresum switch add`",
            )
        if wanted and wanted not in names:
            raise ControllerError("NOT_FOUND", f"there is no switch {wanted[:80]!r}")

    def _tenant(self, name: str) -> Tenant:
        tenant = self.store.tenant(name)
        if tenant is None:
            raise ControllerError("NOT_FOUND", f"there is no tenant {name[:80]!r}")
        return tenant


def _asked_by(tenant: str, request: str) -> str:
    """A key that no job's id has."""
    return f"{tenant} {request}"


def _fitting(wanted: str, switches: list[Switch]) -> list[Switch]:
    """The switches that a job may have that asks for ``wanted`` (empty: any)."""
    return [switch for switch in switches if wanted in ("", switch.name)]


def _impossible(job: Job, fitting: list[Switch], tenant: Tenant) -> ControllerError | None:
    """Why a job can never get what it asks for, as things are; None: it can."""
    if not fitting and job.wanted_switch:
        return ControllerError(
            "FAILED_PRECONDITION",
            f"job {job.label} cannot have slots: there is no switch {job.wanted_switch} any more",
        )
    if not fitting:
        return ControllerError(
            "FAILED_PRECONDITION",
            f"job {job.label} cannot have slots: the controller knows no switch any more",
        )
    needed = job.sizes[-1]
    largest = max(switch.slots for switch in fitting)
    if needed > largest:
        which = f"switch {job.wanted_switch}" if job.wanted_switch else "every switch"
        return ControllerError(
            "RESOURCE_EXHAUSTED",
            f"{needed} slots are more than {which} has: ask for at most {largest}",
        )
    if tenant.slot_quota and needed > tenant.slot_quota:
        return ControllerError(
            "RESOURCE_EXHAUSTED",
            f"{needed} slots are more than tenant {tenant.name} may ever have: its quota is "
            f"{tenant.slot_quota}",
        )
    return None


def _size(wanted: int) -> int:
    """The slots that a wish for ``wanted`` (0: the default) comes to; refuses the impossible."""
    if wanted > packet.SLOTS:
        invalid(f"{wanted} slots are more than any switch has: ask for at most {packet.SLOTS}")
    return rounded(wanted)


def _occupancy(switch: Switch, jobs: list[Job], caller: Caller) -> str:
    """What is free, and which of the jobs that the caller may know hold the rest."""
    known = [job for job in jobs if caller.owns(job)]
    held = [
        f"{job.label} holds {slots.base}-{slots.end - 1}"
        for job in known[:_NAMED_HOLDERS]
        for slots in disjoint(job.ranges)
    ]
    if len(known) > _NAMED_HOLDERS:
        held.append(f"{len(known) - _NAMED_HOLDERS} more jobs hold the rest")
    if len(known) < len(jobs):
        held.append("others hold the rest")
    free = free_ranges([slots for job in jobs for slots in job.ranges], switch.slots)
    largest = max((gap.slots for gap in free), default=0)
    total = sum(gap.slots for gap in free)
    return (
        f"switch {switch.name} has {total} of {switch.slots} slots free, "
        f"at most {largest} in a row ({', '.join(held)})"
    )
