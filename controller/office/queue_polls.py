"""The long polls of callers whose jobs are in the queue, and the times of the rounds."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from wiresum.controller import lines
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.office.calls import CallsInProgress, until
from wiresum.controller.office.queue import Queue, Queued
from wiresum.controller.on_full import OnFull
from wiresum.controller.patience import Limiting
from wiresum.controller.rules.admission import MAX_WAIT_S
from wiresum.controller.rules.callers import Caller
from wiresum.controller.rules.checks import invalid
from wiresum.controller.rules.jobs import Created, ended_error
from wiresum.controller.rules.rounds import Round
from wiresum.controller.scheduling.scheduling import Standing
from wiresum.controller.southbound.fleet import Fleet
from wiresum.controller.state.model import Job, JobState
from wiresum.controller.v1 import controller_pb2 as pb

# After this time in the queue a caller is told its place, and asks again.
_NEWS_S = 25.0

# How many rounds follow each other at once: a job without joined ranks changes its slots at once,
# and these may be all that another job waits for.
_ROUNDS = 64

# A round that takes longer than this is followed by a rest of so many times what it has taken.
_QUICK_S = 0.01
_REST = 3.0


@dataclass
class QueuePolls:
    """The long polls of CreateJob. Methods raise :class:`ControllerError`."""

    queue: Queue
    calls: CallsInProgress
    fleet: Fleet
    limit: Limiting = asyncio.timeout
    _callers: Counter[str] = field(default_factory=Counter)
    _requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The same by the ids of their requests."""
    _told: dict[str, Standing | None] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _rest_until: float = 0.0

    async def create(
        self, request: pb.CreateJobRequest, caller: Caller, time_left: float | None
    ) -> Created | Queued:
        """A new job with its lease, the live one of that name, or a place in the queue."""
        if not 0 <= request.wait_timeout_s <= MAX_WAIT_S:
            invalid(lines.WAIT_TOO_LONG.of(wait_s=request.wait_timeout_s))
        found = self.queue.request(request, caller)
        if isinstance(found, Created):
            return found
        with self._calling(found.job, request.request_id), self.calls.watch(found.job.id) as news:
            self.rebalance()
            return await self._turn(found, request, caller, until(_NEWS_S, time_left), news)

    def others_wait(self, job: Job, request: str) -> bool:
        """Whether any caller waits for a job in the queue but the one with this request's id.

        A caller without an id gives up for all: then the answer is no.
        """
        return bool(request) and self._callers[job.id] > self._requests[job.id, request]

    def forget_absent(self) -> None:
        """Take the jobs out of the queue whose callers do not come back."""
        self._see()
        self.queue.forget_absent()

    def rebalance(self) -> None:
        """Give slots to the jobs whose turn it is, and wake the calls and switches concerned.

        Not necessarily at once: where a round of decisions takes long, because many jobs hold slots
        and many are in the queue, the next one is put off, and other calls are served meanwhile.
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
            decided = self.queue.decide()
            self._tell(decided)
            if not decided.granted and not decided.changing:
                break
        # Only the calls whose job has another standing: hundreds may wait.
        before = self._told
        self._told = {job_id: self.queue.told(job_id) for job_id in self._callers}
        for job_id, told in self._told.items():
            if job_id not in before or before[job_id] is not told:
                self.calls.notify(job_id)

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
        began = self.queue.desk.now()
        # The event loop's clock paces the call, the controller's own judges the wait as a whole.
        try:
            async with self.limit(
                limit if patient else min(limit, self.queue.jobs.limits.change_s)
            ):
                return await self._granted(queued, request, caller, news)
        except TimeoutError:
            if not patient:
                raise self._give_up(job, caller, self.queue.desk.now() - began) from None
            return queued

    async def _granted(
        self, queued: Queued, request: pb.CreateJobRequest, caller: Caller, news: asyncio.Event
    ) -> Created:
        patient = queued.job.on_full is OnFull.WAIT
        while True:
            news.clear()
            job = self.queue.desk.state.job(queued.job.id)
            if job is None:
                raise self.queue.gone(queued.job)
            if job.state.live:
                token = self.queue.jobs.another_token(job, request.request_id)
                return Created(job, token, attached=queued.attached)
            if job.state is not JobState.QUEUED:
                raise ended_error(job)
            waited = self.queue.desk.now() - job.created
            over = patient and 0 < request.wait_timeout_s <= waited
            # None: no round has considered it yet.
            hopeless = self.queue.told(job.id) not in (None, Standing.COMING)
            if over or (hopeless and not patient):
                raise self._give_up(job, caller, waited if over else 0.0)
            if not patient or not request.wait_timeout_s:
                await news.wait()
                continue
            with suppress(TimeoutError):
                async with self.limit(request.wait_timeout_s - waited):
                    await news.wait()

    def _give_up(self, job: Job, caller: Caller, waited: float) -> ControllerError:
        refusal = self.queue.refusal(job, caller)
        if self._callers[job.id] == 1:
            self.queue.leave(job.id)
        if not waited:
            return refusal
        return ControllerError(refusal.code, lines.WAITED.of(waited_s=waited, why=refusal))

    @contextmanager
    def _calling(self, job: Job, request: str) -> Iterator[None]:
        self._callers[job.id] += 1
        self._requests[job.id, request] += 1
        try:
            yield
        finally:
            self._requests[job.id, request] -= 1
            if not self._requests[job.id, request]:
                del self._requests[job.id, request]
            self._callers[job.id] -= 1
            last = not self._callers[job.id]
            if last:
                del self._callers[job.id]
            now = self.queue.desk.state.job(job.id)
            if now is not None and now.state is JobState.QUEUED:
                self.queue.present(job.id)
                if last and job.on_full is not OnFull.WAIT:
                    # The caller is gone; it would not have waited.
                    self.queue.leave(job.id)

    def _see(self) -> None:
        for job_id in self._callers:
            self.queue.present(job_id)

    def _tell(self, decided: Round) -> None:
        for name in decided.switches:
            self.fleet.wake(name)
        for job_id in [*decided.granted, *decided.changing]:
            self.calls.notify(job_id)
