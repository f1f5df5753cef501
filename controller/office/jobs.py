"""The jobs that have got their slots: their signs of life, which are in memory, and their ends."""

from dataclasses import dataclass, field

from wiresum.controller.office.desk import Desk
from wiresum.controller.office.launchers import Launchers
from wiresum.controller.rules import jobs as rules
from wiresum.controller.rules import joining
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.limits import Limits
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.state.plan import Plan, RemoveWaitingMembers
from wiresum.controller.tokens import JOB, hashed, new_token
from wiresum.controller.v1 import controller_pb2 as pb


@dataclass
class Jobs:
    """Applies the rules, and commits their plans. Methods raise :class:`ControllerError`."""

    desk: Desk
    limits: Limits
    launchers: Launchers
    _heard: dict[str, float] = field(default_factory=dict)
    """When each job last showed a sign of life. In memory: after a restart each has its whole time
    again, and a store that cannot be written must end no job."""
    _all_heard: float = float("-inf")
    """No live job counts as silent before this time."""

    def recover(self) -> None:
        """Take over what an earlier controller left: live jobs get their whole expiry time.

        Ranks that were waiting for others are not waiting any more, so they have not joined.
        """
        now = self.desk.now()
        self.desk.commit(Plan(now, (RemoveWaitingMembers(),)))
        # Not the time in the store: the clock may have been put back since.
        self._heard = dict.fromkeys(self.desk.state.live_since(), now)

    # ---- looking up

    def get(self, job_id: str) -> Job:
        """The job of that id."""
        return rules.get(self.desk.state, job_id)

    def shown(self, id_or_name: str, caller: Caller) -> Job:
        """The job of that id, or of that name, that the caller may see and end."""
        return rules.shown(self.desk.state, id_or_name, caller)

    def joinable(self, job_id: str, caller: Caller) -> Job:
        """The job of that id, for a caller that is one of its workers or launchers."""
        return rules.joinable(self.desk.state, job_id, caller)

    def another_token(self, job: Job, request: str) -> str:
        """A new token of the job: tokens are kept as hashes, so each caller gets its own.

        ``request`` is the id of the caller's request for the job, empty if it has none.
        """
        token = new_token(JOB)
        self.desk.commit(rules.add_token(self.desk.state, job, hashed(token), self.desk.now()))
        self.launchers.given(job.id, hashed(token), request)
        return token

    # ---- joining

    def join(self, job: Job, request: pb.JoinJobRequest) -> Job:
        """Record that a rank of ``job`` is there; the job is ready when this was the last one."""
        plan = joining.join(self.desk.state, job, request, self.desk.now())
        self.desk.commit(plan)
        if plan:
            self.heard(job.id)
        return self.get(job.id)

    def withdraw(self, request: pb.JoinJobRequest) -> None:
        """Record that a rank gave up waiting for the others; nothing happens if all are there."""
        self.desk.commit(joining.withdraw(self.desk.state, request, self.desk.now()))

    # ---- signs of life

    def touch(self, job: Job) -> None:
        """Record a sign of life, in memory: it must not depend on the store's file."""
        if job.state.live:
            self.heard(job.id)

    def heard(self, job_id: str) -> None:
        """Record a sign of life of a job that is thought to be live."""
        self._heard[job_id] = self.desk.now()

    def give_time(self) -> None:
        """Give every live job the whole expiry time from now on."""
        self._all_heard = self.desk.now()

    def silent(self) -> list[Job]:
        """The live jobs whose heartbeats have stopped for too long."""
        now, state = self.desk.now(), self.desk.state
        silent = [
            job_id
            for job_id, since in state.live_since().items()
            if now - self._last_heard(job_id, since) > self.limits.expiry_s
        ]
        return [job for job_id in silent if (job := state.job(job_id)) is not None]

    def silence(self, job: Job) -> float:
        """Seconds since the last sign of life of a live job."""
        return max(0.0, self.desk.now() - self._last_heard(job.id, job.created))

    def _last_heard(self, job_id: str, since: float) -> float:
        """When the job showed its last sign of life; it got its slots at ``since``."""
        return max(self._heard.get(job_id, since), self._all_heard)

    def park(self, job: Job, *, unpark: bool) -> Job:
        """Let others have the job's slots, or get them back. It is a sign of life, too."""
        change = rules.unpark if unpark else rules.park
        self.desk.commit(change(self.get(job.id), self.desk.now()))
        self.touch(job)
        return self.get(job.id)

    # ---- ends

    def end(
        self, job: Job, how: JobState, reason: str, events: rules.Events = rules.NO_EVENTS
    ) -> Job:
        """Release or evict a job, unless it is over; ``events`` are its and its parts' counters."""
        state, now = self.desk.state, self.desk.now()
        self.desk.commit(rules.end(state, self.get(job.id), how, reason, now, events))
        return self.get(job.id)

    def expire(self, job_id: str, events: rules.Events = rules.NO_EVENTS) -> Job:
        """End a job if it is (still) silent."""
        state, now, job = self.desk.state, self.desk.now(), self.get(job_id)
        silence_s = self.silence(job)
        self.desk.commit(rules.expire(state, job, silence_s, self.limits, now, events))
        return self.get(job_id)

    def forget_old(self) -> None:
        """Forget the jobs that ended more than a week ago, and signs of former life."""
        live = self.desk.state.live_since()
        self._heard = {job_id: time for job_id, time in self._heard.items() if job_id in live}
        self.desk.commit(rules.forget_old(self.desk.now()))
