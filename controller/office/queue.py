"""The queue of jobs that wait for slots, and what the controller remembers of it in memory."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.changes import Changes
from wiresum.controller.office.desk import Desk
from wiresum.controller.office.jobs import Jobs
from wiresum.controller.rules import admission, parts, refusals
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.jobs import Created
from wiresum.controller.rules.refusals import Scene
from wiresum.controller.rules.rounds import Circumstances, Round, decide_round
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.plan import LeaveQueue, Plan
from wiresum.controller.v1 import controller_pb2 as pb

# The caller of a queued job calls again within this time, or counts as gone.
_ABSENT_S = 5.0

# Why jobs were taken out of the queue is remembered for so many of them.
_REMEMBERED = 4096


@dataclass(frozen=True)
class Queued:
    """A place in the queue."""

    job: Job
    attached: bool
    """Another caller had asked for the job before."""


@dataclass
class Queue:
    """The queue. Methods raise :class:`ControllerError`.

    ``usable`` tells whether a switch can be reached now: others get jobs only while none can.
    """

    desk: Desk
    jobs: Jobs
    changes: Changes
    usable: Callable[[str], bool] = lambda _name: True
    _seen: dict[str, float] = field(default_factory=dict)
    """When a caller was last there for a job."""
    _standings: dict[str, Standing] = field(default_factory=dict)
    _drained: dict[str, float] = field(default_factory=dict)
    """Since when all switches that a job may have are being drained."""
    _dismissed: dict[str, ControllerError] = field(default_factory=dict)
    """Why jobs were taken out of the queue, by their ids and by those of their requests."""
    _places: dict[str, int] = field(default_factory=dict)
    _started: set[str] = field(default_factory=set)
    """Jobs whose ranks sum meanwhile, as their callers say with every call."""
    _settled: tuple[object, ...] | None = None
    """The input of the last round if it changed nothing."""

    def recover(self) -> None:
        """Take over the queue of an earlier controller: callers have to come back."""
        now = self.desk.now()
        self.desk.commit(admission.recover(self.desk.state, now))
        for job in self.desk.state.queue():
            self._seen[job.id] = now

    # ---- callers

    def request(self, request: pb.CreateJobRequest, caller: Caller) -> Created | Queued:
        """The job that is asked for if it is there already, or its place in the queue."""
        state = self.desk.state
        whole = parts.whole(state, request, caller)
        tenant = admission.tenant_for(state, request, caller, whole)
        found = admission.find(state, request, tenant, self._dismissed, whole)
        if found is None:
            job_id = f"j-{secrets.token_hex(6)}"
            now = self.desk.now()
            self.desk.commit(admission.enqueue(state, request, tenant, job_id, now, whole))
            # The last, until a round of decisions has found out more.
            self._places[job_id] = len(self._places) + 1
            self._note(job_id, request)
            return Queued(self.jobs.get(job_id), attached=False)
        if found.job.state is JobState.QUEUED:
            self._note(found.job.id, request)
            return Queued(found.job, found.attached)
        token = self.jobs.another_token(found.job, request.request_id)
        return Created(found.job, token, found.attached)

    def _note(self, job_id: str, request: pb.CreateJobRequest) -> None:
        if request.started:
            self._started.add(job_id)

    def present(self, job_id: str) -> None:
        """A caller waits for the job now."""
        self._seen[job_id] = self.desk.now()

    def leave(self, job_id: str) -> None:
        """No caller waits for the job any more."""
        # This comes first: if the store then fails, :meth:`forget_absent` removes the job later.
        self._forget(job_id)
        self.desk.commit(Plan(self.desk.now(), (LeaveQueue(job_id),)))

    def dismiss(self, job: Job, why: ControllerError) -> None:
        """Take a job out of the queue for good: its callers are told ``why``.

        A caller that is between two calls is told when it asks again; it does not get a new place.
        """
        self.leave(job.id)
        self.remember(job, why)

    def remember(self, job: Job, why: ControllerError) -> None:
        """Tell the callers of a job that has left the queue ``why``."""
        self._forget(job.id)
        self._dismissed[job.id] = why
        if job.request:
            self._dismissed[admission.asked_by(job.tenant, job.request)] = why
        while len(self._dismissed) > _REMEMBERED:
            del self._dismissed[next(iter(self._dismissed))]

    def gone(self, job: Job) -> ControllerError:
        """Why a job that was in the queue has left it without slots."""
        return self._dismissed.get(job.id) or ControllerError(
            "ABORTED", lines.TAKEN_OUT.of(job=job.label)
        )

    def forget_absent(self) -> None:
        """Take the jobs out of the queue whose callers have not been seen for long."""
        now = self.desk.now()
        since = now - self.jobs.limits.expiry_s
        waiting = {job.id for job in self.desk.state.queue()}
        absent = [job_id for job_id in waiting if self._seen.get(job_id, 0.0) < since]
        for job_id in absent:
            self._forget(job_id)
        self.desk.commit(Plan(now, tuple(LeaveQueue(job_id) for job_id in absent)))
        # Jobs that have got their slots meanwhile were seen, too.
        self._seen = {job_id: time for job_id, time in self._seen.items() if job_id in waiting}

    def _forget(self, job_id: str) -> None:
        for known in (self._seen, self._standings, self._drained):
            known.pop(job_id, None)
        self._started.discard(job_id)

    # ---- how things stand

    def needs(self, job: Job) -> bool:
        """Whether a job of higher priority waits for room where ``job`` is."""
        return any(
            queued.priority > job.priority
            and queued.wanted_switch in ("", job.lease.switch)
            and self.standing(queued.id) in (Standing.FULL, Standing.COMING)
            for queued in self.desk.state.queue()
        )

    def standing(self, job_id: str) -> Standing:
        """The standing of a job in the queue, as of the last round."""
        return self._standings.get(job_id, Standing.FULL)

    def told(self, job_id: str) -> Standing | None:
        """The standing that the last round gave a job; None: it did not wait then, or is gone."""
        return self._standings.get(job_id)

    def started(self, job_id: str) -> bool:
        """Whether the training of a job in the queue goes on meanwhile."""
        return job_id in self._started

    def position(self, job_id: str) -> int:
        """The place of a job in the queue; 1 is the next."""
        return self._places.get(job_id, len(self._places) + 1)

    def refusal(self, job: Job, caller: Caller, scene: Scene | None = None) -> ControllerError:
        """Why the job has no slots, in one line; refusals in a row share one ``scene``."""
        return refusals.refusal(
            self.desk.state,
            job,
            caller,
            self.standing(job.id),
            self.position(job.id) - 1,
            self.usable,
            scene or Scene(),
        )

    # ---- rounds of decisions

    def decide(self) -> Round:
        """Give slots to the jobs that can have them, and begin the changes that make room."""
        now = self.desk.now()
        given = self._circumstances(now)
        too_long = frozenset(
            job_id for job_id, since in self._drained.items() if now - since > given.drained_s
        )
        version = self.desk.store.version
        situation = (version, given.present, given.up, given.resting, too_long)
        if situation == self._settled:
            return Round(Plan(now))
        self._settled = None
        decided = decide_round(self.desk.state, now, given)
        self.desk.commit(decided.plan)
        self._standings = dict(decided.standings)
        self._places = {job_id: place for place, job_id in enumerate(self._standings, start=1)}
        self._drained = dict(decided.drained)
        for job_id in decided.granted:
            self._forget(job_id)
        for job, why in decided.dismissed:
            self.remember(job, why)
        if not decided.plan:
            # The same input would have the same outcome.
            self._settled = situation
        return decided

    def _circumstances(self, now: float) -> Circumstances:
        since = now - _ABSENT_S
        names = self.desk.state.switch_names()
        return Circumstances(
            present=frozenset(job_id for job_id, seen in self._seen.items() if seen > since),
            up=frozenset(name for name in names if self.usable(name)),
            resting=self.changes.resting(),
            drained=self._drained,
            drained_s=self.jobs.limits.drained_s,
        )
