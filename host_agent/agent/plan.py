"""How the ranks of a group agree, through their store, on a job and on the number of an attempt.

Rank 0 decides and publishes its plan; the others read it. A group that may leave the switch plans
without a job where there is none yet (:class:`NoJob`), and again later, in the background.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from wiresum.common.errors import WiresumError
from wiresum.common.logs import one_line
from wiresum.common.patience import Patience
from wiresum.controller.client import ControllerClient, OnFull, away
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.control import NoJob, NoRoom, connect, create_job
from wiresum.host_agent.agent.job_file import read_job
from wiresum.host_agent.agent.owner import owner, remember
from wiresum.host_agent.agent.peers.judge import host_name, named
from wiresum.host_agent.agent.peers.meeting import here
from wiresum.host_agent.agent.search import JobSearch
from wiresum.host_agent.agent.worker import Part, Worker
from wiresum.host_agent.environment import AgentError

log = logging.getLogger("wiresum")

QUEUE_NEWS_S = 60.0
"""How long a rank waits for news of its place in the queue, which comes every 30 s; seconds."""

NEWS_S = 60.0
"""How often a line names the missing ranks, while others wait for them to join; seconds."""

MOST_SHOWN = 8
"""How many of the present ranks a line names at most."""

CLAIM_S = 45.0
"""How long to wait for a sign of life from the ranks of another group; seconds."""

_CLAIM_AGAIN_S = 0.5
_LOOK_S = 0.1
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.5
_FIRST_SEARCH_LOOK_S, _SEARCH_LOOK_S = 0.02, 1.0
"""How often a group that trains without a job looks whether it has got one, at first, and after it
has looked for long; seconds."""


@dataclass(frozen=True)
class Plan:
    """The decision of rank 0 for all ranks: the job and the number of this attempt."""

    job: str
    token: str
    attempt: int
    owned: bool  # rank 0 has made the job itself and releases it
    owner: str = ""  # the group's name for itself, if others could want the job


class JobTaken(WiresumError):
    """Another process group of this run has the job; says where."""


class Stopped(WiresumError):
    """The worker leaves: nothing is planned any more."""


class Planning:
    """One rank's part of one agreement. Everything raises ``WiresumError`` in one line.

    ``deadline`` is when this rank must have joined, by ``time.monotonic()``.
    """

    def __init__(self, worker: Worker, search: "Search | None" = None) -> None:
        """``search``: there was no job before; it is waited for, in the background."""
        self._worker = worker
        self._search = search
        self.deadline = time.monotonic() + worker.join_s
        worker.store.set(f"{worker.key}/here/{worker.rank}", here())

    def agree(self) -> Plan:
        """Rank 0's plan: an attempt later than all before.

        Raises :class:`NoJob` on all ranks where the group may begin without a job and there is
        none, :class:`JobTaken` where another group has it.
        """
        return self._decide() if self._worker.rank == 0 else self._read()

    # -- rank 0 -------------------------------------------------------------------------------

    def _decide(self) -> Plan:
        def publish(**what: object) -> None:
            self._worker.store.set(self._worker.key, json.dumps(what))

        try:
            plan = self._new_plan()
        except JobTaken as taken:
            publish(taken=str(taken))
            raise
        except NoJob as none:
            publish(no_job=str(none), full=isinstance(none, NoRoom))
            raise
        except ControllerError as error:
            if away(error) and self._worker.may_leave_switch and self._search is None:
                publish(no_job=str(error), full=False)
                raise NoJob(str(error)) from None
            publish(error=str(error))
            raise
        except WiresumError as error:
            publish(error=str(error))
            raise
        publish(**vars(plan))
        return plan

    def _new_plan(self) -> Plan:
        where, part = self._worker.where, self._worker.part
        job, token = where.job, where.token
        if part is not None:
            return self._plan_part(part)
        if job is None and where.job_file:
            # The launcher looks for a job, and writes it there.
            found = read_job(where.job_file)
            looks = _looks()
            while found is None and self._search is not None:
                self._search.wait(next(looks))
                found = read_job(where.job_file)
            if found is None:
                raise NoRoom(where.fallback or lines.NO_JOB_YET.of())
            job, token = found
        elif job is None:
            if self._search is not None:
                made = self._search.find(self._worker)
            else:
                made = create_job(where, "", self._queued)
            self.deadline = time.monotonic() + self._worker.join_s
            return Plan(made.id, made.token, 0, owned=True)
        self.deadline = time.monotonic() + self._worker.join_s
        mine = owner(self._worker.endpoint)
        with connect(where, token) as client:
            attempt = self._claim(client, job, token, mine)
        return Plan(job, token, attempt, owned=False, owner=mine)

    def _plan_part(self, part: Part) -> Plan:
        """A part of the job of all ranks: the one that the group has, or a new one."""
        if self._search is not None:
            made = self._search.find(self._worker)
        else:
            lent = part.whole.lends()
            if lent is None:
                raise AgentError(lines.NO_WHOLE.of())
            made = create_job(self._worker.where, part.name, self._queued, lent, part.share)
        self.deadline = time.monotonic() + self._worker.join_s
        mine = owner(self._worker.endpoint)
        with connect(self._worker.where, made.token) as client:
            attempt = self._claim(client, made.id, made.token, mine)
        return Plan(made.id, made.token, attempt, owned=True, owner=mine)

    def _claim(self, client: ControllerClient, job: str, token: str, mine: str) -> int:
        """Get the job for this group; the attempt to join. Raises :class:`JobTaken`."""
        deadline = min(self.deadline, time.monotonic() + CLAIM_S)
        while True:
            claim = client.claim_job(job, token, owner=mine, where=here())
            if claim.granted:
                return claim.attempt
            # The controller cannot tell ranks that have just ended from ranks out of reach.
            if claim.lives or time.monotonic() > deadline:
                on = f" (rank 0 on {claim.where})" if claim.where else ""
                raise JobTaken(lines.JOB_TAKEN.of(job=job, on=on))
            time.sleep(_CLAIM_AGAIN_S)

    def _queued(self, job: pb.Job) -> None:
        log.warning("wiresum: waiting for room on a switch, at place %d", job.queue_position)
        self._worker.store.add(f"{self._worker.key}/queued", 1)

    # -- the other ranks ----------------------------------------------------------------------

    def _read(self) -> Plan:
        worker = self._worker
        if self._search is None:
            self._wait_for_plan()
        else:
            looks = _looks()
            while not self._published():
                self._search.wait(next(looks))
            self.deadline = time.monotonic() + worker.join_s
        answer = json.loads(worker.store.get(worker.key))
        if "taken" in answer:
            raise JobTaken(answer["taken"])
        if "no_job" in answer:
            raise (NoRoom if answer["full"] else NoJob)(answer["no_job"])
        if "error" in answer:
            raise AgentError(lines.RANK_0_COULD_NOT_JOIN.of(why=answer["error"]))
        plan = Plan(**answer)
        if plan.owner:
            remember(plan.owner)
        return plan

    def _wait_for_plan(self) -> None:
        worker = self._worker
        waits = worker.where.job is None and worker.where.request.on_full is OnFull.WAIT
        limit = max(worker.join_s, QUEUE_NEWS_S) if waits else worker.join_s
        patience = Patience(limit)
        news = 0
        said, pause = 0.0, _SHORTEST_LOOK_S
        while not self._published():
            left = patience.step(pause)
            pause = min(2 * pause, _LONGEST_LOOK_S)
            if left > 0 and patience.spent_s - said < NEWS_S:
                time.sleep(min(pause, left))
                continue
            said = patience.spent_s
            before = news
            if waits:
                news = worker.store.add(f"{worker.key}/queued", 0)
            if news != before:
                patience.restart()
                said = 0.0
            elif left <= 0:
                raise AgentError(
                    lines.RANK_0_NOT_JOINED.of(
                        seconds=limit,
                        there=self._who_is_there(),
                        controller=worker.where.controller,
                    )
                )
            else:
                self.say_waiting("rank 0 has not joined yet", patience.spent_s)
        if news:
            self.deadline = time.monotonic() + worker.join_s

    def planned_anew(self, plan: Plan, why: ControllerError) -> Plan | None:
        """Wait for another plan than ``plan`` of rank 0; None if there is none in time.

        A rank that is restarted faster than rank 0 may have read what rank 0 had said before:
        torchrun keeps the store.
        """
        if self._worker.rank == 0 or why.code not in ("ALREADY_EXISTS", "ABORTED"):
            return None
        said = time.monotonic()
        while time.monotonic() < self.deadline:
            if time.monotonic() - said > NEWS_S:
                said = time.monotonic()
                log.warning("wiresum: waiting for rank 0 to begin another attempt: %s", why)
            other = self._read()
            if other != plan:
                return other
            time.sleep(_LOOK_S)
        return None

    def _published(self) -> bool:
        # Not `wait`: a thread that waits in torch's store locks out the process's other threads,
        # and torch writes its own warnings when the time is over.
        try:
            return self._worker.store.check([self._worker.key])
        except Exception as error:
            raise AgentError(lines.STORE_FAILED.of(why=one_line(str(error)))) from None

    # -- who is there -------------------------------------------------------------------------

    def _present(self) -> dict[int, str]:
        """The ranks that have begun to join, with their hosts."""
        store, key = self._worker.store, f"{self._worker.key}/here"
        ranks = (r for r in range(self._worker.workers) if store.check([f"{key}/{r}"]))
        return {rank: host_name(store.get(f"{key}/{rank}").decode()) for rank in ranks}

    def _who_is_there(self) -> str:
        try:
            present = self._present()
        except Exception:  # any error of the store: the line then names no ranks
            return ""
        shown = [named(rank, host) for rank, host in present.items()][:MOST_SHOWN]
        more = ", …" if len(present) > len(shown) else ""
        return f" (there of {self._worker.workers}: {', '.join(shown)}{more})" if shown else ""

    def say_waiting(self, what: str, seconds: float) -> None:
        """Log one line for all ranks that wait; the lowest of them logs it."""
        worker = self._worker
        try:
            present = self._present()
        except Exception:
            present = {}
        if worker.rank == min(present, default=worker.rank):
            log.warning(
                "wiresum: joining for %d s of at most %d: %s%s",
                seconds,
                worker.join_s,
                what,
                self._who_is_there(),
            )


def _looks() -> Iterator[float]:
    """The pauses between looks for a job."""
    pause = _FIRST_SEARCH_LOOK_S
    while True:
        yield pause
        pause = min(1.5 * pause, _SEARCH_LOOK_S)


class Search:
    """The background search of one worker for a job, until it is found or the worker leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._search: JobSearch | None = None

    def wait(self, seconds: float) -> None:
        """Pause. Raises :class:`Stopped` once the worker leaves."""
        if self._stop.wait(seconds):
            raise Stopped(lines.WORKER_LEAVES.of())

    def find(self, worker: Worker) -> pb.Job:
        """For rank 0: a job of its own, however long it takes. Raises ``WiresumError``.

        For a part, that is one of the job of all ranks, once they have it.
        """
        part, lent, looks = worker.part, None, _looks()
        while part is not None and (lent := part.whole.lends()) is None:
            self.wait(next(looks))
        with self._lock:
            if not self._stop.is_set():
                self._search = JobSearch(
                    *(worker.where, part.name if part else "", lent),
                    share=part.share if part else 0.0,
                )
            search = self._search
        job = None if search is None else search.find()
        if job is None:
            raise Stopped(lines.WORKER_LEAVES.of())
        return job

    def stop(self) -> None:
        """End it, from any thread; gives up a place in the queue."""
        with self._lock:
            self._stop.set()
            search = self._search
        if search is not None:
            search.stop()
