"""What those wait for who ask for slots: their turn."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from wiresum.controller.clock import Clock
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.office.leases import until
from wiresum.controller.office.waiting import Waiting
from wiresum.controller.patience import Limiting
from wiresum.controller.rules.admission import MAX_WAIT_S, Admission, Balance, Queued
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.checks import invalid
from wiresum.controller.rules.jobs import Created, Jobs, Limits
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.southbound.fleet import Fleet
from wiresum.controller.state.model import Job, JobState, OnFull
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb

# After so long in the queue a caller is told how things stand, and asks again.
_NEWS_S = 25.0

# Rounds of decisions in a row: a job that nobody has joined yet changes its slots at once, which
# may be all that another was waiting for.
_ROUNDS = 64

# A round that takes longer than this is followed by a rest of so many times what it has taken.
_QUICK_S = 0.01
_REST = 3.0


@dataclass
class Queueing:
    """The long polls of those who create jobs. Methods raise :class:`ControllerError`."""

    store: Store
    clock: Clock
    limits: Limits
    jobs: Jobs
    admission: Admission
    waiting: Waiting
    fleet: Fleet
    limit: Limiting = asyncio.timeout
    _calls: Counter[str] = field(default_factory=Counter)
    _told: dict[str, Standing | None] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _rest_until: float = 0.0

    async def create(
        self, request: pb.CreateJobRequest, caller: Caller, time_left: float | None
    ) -> Created | Queued:
        """A new job with its lease, the live one of that name, or a place in the queue."""
        if not 0 <= request.wait_timeout_s <= MAX_WAIT_S:
            invalid(f"a wait of {request.wait_timeout_s:g} s is not possible: at most a year")
        found = self.admission.request(request, caller)
        if isinstance(found, Created):
            return found
        with self._calling(found.job), self.waiting.watch(found.job.id) as news:
            self.rebalance()
            return await self._turn(found, request, caller, until(_NEWS_S, time_left), news)

    def forget_absent(self) -> None:
        """Take those out of the queue whose callers do not come back."""
        self._see()
        self.admission.forget_absent()

    def rebalance(self) -> None:
        """Give slots to those whose turn it is, and wake whoever is concerned.

        Not necessarily at once: where a round of decisions takes its time, because many hold and
        many wait, the next one serves all that has happened meanwhile, and calls go in between.
        """
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        rest = self._rest_until - loop.time()
        if rest <= 0:
            self._round()
        else:
            self._timer = loop.call_later(rest, self._late_round)

    def _late_round(self) -> None:
        self._timer = None
        # The next sweep makes another; the store has said what is wrong.
        with suppress(StoreFailed):
            self._round()

    def _round(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._decide()
        finally:
            took = loop.time() - began
            if took > _QUICK_S:
                self._rest_until = began + took + _REST * took

    def _decide(self) -> None:
        self._see()
        for _ in range(_ROUNDS):
            balance = self.admission.balance()
            self._tell(balance)
            if not balance.granted and not balance.changing:
                break
        # Only those for whom something is different: hundreds may wait.
        before = self._told
        self._told = {job_id: self.admission.told(job_id) for job_id in self._calls}
        for job_id, told in self._told.items():
            if job_id not in before or before[job_id] is not told:
                self.waiting.notify(job_id)

    # ----

    async def _turn(
        self,
        queued: Queued,
        request: pb.CreateJobRequest,
        caller: Caller,
        limit: float,
        news: asyncio.Event,
    ) -> Created | Queued:
        job = queued.job
        patient = job.on_full is OnFull.WAIT
        began = self.clock.now()
        # The event loop's clock paces the call, the controller's own judges the wait as a whole.
        try:
            async with self.limit(limit if patient else min(limit, self.limits.change_s)):
                return await self._granted(queued, request, caller, news)
        except TimeoutError:
            if not patient:
                raise self._give_up(job, caller, self.clock.now() - began) from None
            return queued

    async def _granted(
        self, queued: Queued, request: pb.CreateJobRequest, caller: Caller, news: asyncio.Event
    ) -> Created:
        patient = queued.job.on_full is OnFull.WAIT
        while True:
            news.clear()
            job = self.store.job(queued.job.id)
            if job is None:
                raise self.admission.gone(queued.job)
            if job.state.live:
                return Created(job, self.jobs.another_token(job), attached=queued.attached)
            if job.state is not JobState.QUEUED:
                raise self.jobs.ended_error(job)
            waited = self.clock.now() - job.created
            over = patient and 0 < request.wait_timeout_s <= waited
            # None: no round of decisions has considered it yet.
            hopeless = self.admission.told(job.id) not in (None, Standing.COMING)
            if over or (hopeless and not patient):
                raise self._give_up(job, caller, waited if over else 0.0)
            if not patient or not request.wait_timeout_s:
                await news.wait()
                continue
            with suppress(TimeoutError):
                async with self.limit(request.wait_timeout_s - waited):
                    await news.wait()

    def _give_up(self, job: Job, caller: Caller, waited: float) -> ControllerError:
        refusal = self.admission.refusal(job, caller)
        if self._calls[job.id] == 1:
            self.admission.leave(job.id)
        if not waited:
            return refusal
        return ControllerError(refusal.code, f"waited {waited:.0f} s: {refusal}")

    @contextmanager
    def _calling(self, job: Job) -> Iterator[None]:
        self._calls[job.id] += 1
        try:
            yield
        finally:
            self._calls[job.id] -= 1
            last = not self._calls[job.id]
            if last:
                del self._calls[job.id]
            now = self.store.job(job.id)
            if now is not None and now.state is JobState.QUEUED:
                self.admission.present(job.id)
                if last and job.on_full is not OnFull.WAIT:
                    # The caller is gone, and would not have waited.
                    self.admission.leave(job.id)

    def _see(self) -> None:
        for job_id in self._calls:
            self.admission.present(job_id)

    def _tell(self, balance: Balance) -> None:
        for name in balance.switches:
            self.fleet.wake(name)
        for job_id in [*balance.granted, *balance.changing]:
            self.waiting.notify(job_id)
