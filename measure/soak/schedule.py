"""What a soak does, and when: a pure function of its seed and of the rack's size.

Faults come one after the other, some of them while an earlier one lasts. Each kind comes once
before any comes again. Which two may meet is in ``MAY_MEET``: those that a job survives together.
"""

import random
from dataclasses import dataclass
from enum import StrEnum

GAP_S = (3.0, 6.0)
"""Between the end of one fault and the begin of the next; seconds."""

FIRST_AT_S = 2.0
MEETING_SHARE = 0.3
"""Of the faults that may meet the one before: how many of them do."""

LOSSES = (0.005, 0.02, 0.05)
"""Shares of frames that a link loses in each direction."""


class Kind(StrEnum):
    """What can happen."""

    SWITCH_KILLED = "switch killed"
    SWITCH_STOPPED = "switch stopped"
    LINKS_DOWN = "all links down"
    LINK_DOWN = "one link down"
    SWITCH_CUT = "switch out of reach of one worker"
    PARTITION = "one worker cut off"
    WORKER_STOPPED = "worker stopped"
    WORKER_KILLED = "worker killed"
    CONTROLLER_KILLED = "controller killed"
    LOSS = "loss"
    JOB_LEAVES = "job leaves"
    JOB_JOINS = "job joins"


LASTS_S: dict[Kind, tuple[float, float]] = {
    Kind.SWITCH_KILLED: (0.0, 6.0),
    Kind.SWITCH_STOPPED: (1.0, 8.0),
    Kind.LINKS_DOWN: (1.0, 7.0),
    Kind.LINK_DOWN: (1.0, 7.0),
    Kind.SWITCH_CUT: (3.0, 9.0),
    Kind.PARTITION: (3.0, 3.0),
    Kind.WORKER_STOPPED: (6.0, 6.0),
    Kind.CONTROLLER_KILLED: (0.0, 6.0),
    Kind.LOSS: (3.0, 8.0),
}
"""The shortest and the longest time, in seconds; kinds that are not here happen at once."""

MAY_MEET = frozenset(
    frozenset({first, second})
    for first in (Kind.LOSS, Kind.CONTROLLER_KILLED)
    for second in (
        Kind.SWITCH_KILLED,
        Kind.SWITCH_STOPPED,
        Kind.LINKS_DOWN,
        Kind.LINK_DOWN,
        Kind.SWITCH_CUT,
        Kind.PARTITION,
        Kind.WORKER_STOPPED,
        Kind.LOSS,
        Kind.CONTROLLER_KILLED,
    )
    if first != second
) | {frozenset({Kind.SWITCH_CUT, Kind.SWITCH_KILLED})}
"""Pairs of kinds that may last at the same time. All other pairs may not: two that cut the
network could cut it for longer than a peer is waited for, and a job that starts needs all parts."""


@dataclass(frozen=True)
class Recipe:
    """What a job trains: its results depend on nothing else. ``field``: bits of an element."""

    workers: int
    field: int


@dataclass(frozen=True)
class JobSpec:
    """One job: the ``number``-th of the soak. ``hosts``: numbers of the rack's workers, by rank."""

    number: int
    recipe: Recipe
    hosts: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name on the controller."""
        return f"soak{self.number}"


@dataclass(frozen=True)
class Fault:
    """One fault, ``at_s`` seconds after the jobs have begun, for ``lasts_s`` seconds.

    ``worker``: a host's number; None: all of them. ``job`` and ``rank``: whom it is done to, or
    the job that joins or leaves. ``share``: of the frames that are lost.
    """

    number: int
    kind: Kind
    at_s: float
    lasts_s: float = 0.0
    worker: int | None = None
    job: JobSpec | None = None
    rank: int | None = None
    share: float = 0.0

    @property
    def ends_s(self) -> float:
        """When it is over."""
        return round(self.at_s + self.lasts_s, 1)

    def says(self) -> str:
        """What is done, in words."""
        job = "" if self.job is None else self.job.name
        lasts = f" for {self.lasts_s:.1f} s"
        worker = "all workers" if self.worker is None else f"w{self.worker}"
        match self.kind:
            case Kind.SWITCH_KILLED:
                return f"the switch is killed, and started again {self.lasts_s:.1f} s later"
            case Kind.SWITCH_STOPPED:
                return f"the switch is stopped{lasts}"
            case Kind.LINKS_DOWN:
                return f"all links of the switch are down{lasts}"
            case Kind.LINK_DOWN:
                return f"the link of {worker} is down{lasts}"
            case Kind.SWITCH_CUT:
                return f"{worker} cannot reach the switch{lasts}"
            case Kind.PARTITION:
                return f"{worker} is cut off from everything{lasts}"
            case Kind.WORKER_STOPPED:
                return f"rank {self.rank} of {job} is stopped{lasts}"
            case Kind.WORKER_KILLED:
                return f"rank {self.rank} of {job} is killed"
            case Kind.CONTROLLER_KILLED:
                return f"the controller is killed, and started again {self.lasts_s:.1f} s later"
            case Kind.LOSS:
                return f"the links of {worker} lose {self.share:.1%} of the frames{lasts}"
            case Kind.JOB_LEAVES:
                return f"{job} ends after its lap"
            case Kind.JOB_JOINS:
                assert self.job is not None
                recipe = self.job.recipe
                return f"{job} joins: {recipe.workers} workers, {recipe.field}-bit fields"


@dataclass(frozen=True)
class Schedule:
    """A soak: the jobs that it begins with, and what happens to them."""

    jobs: tuple[JobSpec, ...]
    faults: tuple[Fault, ...]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All different ones, in the order of their first job."""
        joined = [each.job for each in self.faults if each.kind == Kind.JOB_JOINS]
        specs = [*self.jobs, *(job for job in joined if job is not None)]
        return tuple(dict.fromkeys(spec.recipe for spec in specs))


_SIZES = ((2, 32), (3, 8), (4, 16))
"""Workers (as far as the rack has so many) and field of one job after the other."""


def make(seed: int, seconds: float, jobs: int, workers: int) -> Schedule:
    """The schedule of a soak of ``seconds`` with ``jobs`` at a time on ``workers`` hosts.

    Every kind occurs if there is time for all of them: 5 minutes are always enough.
    """
    return _Maker(seed, jobs, workers).run(seconds)


class _Maker:
    def __init__(self, seed: int, jobs: int, workers: int) -> None:
        self._draw = random.Random(f"soak {seed}")
        self._workers = workers
        self._made = 0
        self._running = [self._spec() for _ in range(jobs)]
        self._alone = jobs == 1

    def run(self, seconds: float) -> Schedule:
        first = tuple(self._running)
        faults: list[Fault] = []
        bag: list[Kind] = []
        while True:
            bag = bag or self._bag()
            fault = self._next(bag.pop(), faults)
            if fault.ends_s > seconds:
                return Schedule(first, tuple(faults))
            faults.append(fault)

    def _spec(self) -> JobSpec:
        wanted, field = _SIZES[self._made % len(_SIZES)]
        count = min(wanted, self._workers)
        hosts = sorted((self._made + i) % self._workers for i in range(count))
        self._made += 1
        return JobSpec(self._made, Recipe(count, field), tuple(hosts))

    def _bag(self) -> list[Kind]:
        """All kinds once, the first one last. As many jobs run before as after it.

        There is always a job: the only one is joined by another one before it leaves.
        """
        kinds = list(Kind)
        self._draw.shuffle(kinds)
        joins, leaves = kinds.index(Kind.JOB_JOINS), kinds.index(Kind.JOB_LEAVES)
        if (joins > leaves) != self._alone:
            kinds[joins], kinds[leaves] = kinds[leaves], kinds[joins]
        return kinds

    def _next(self, kind: Kind, before: list[Fault]) -> Fault:
        draw = self._draw
        shortest, longest = LASTS_S.get(kind, (0.0, 0.0))
        lasts_s = round(draw.uniform(shortest, longest), 1)
        at_s = self._begin(kind, before)
        worker: int | None = draw.randrange(self._workers)
        job = rank = None
        share = 0.0
        if kind == Kind.LOSS:
            share = draw.choice(LOSSES)
            worker = draw.choice((worker, None))
        elif kind not in (Kind.LINK_DOWN, Kind.SWITCH_CUT, Kind.PARTITION):
            worker = None
        if kind in (Kind.WORKER_STOPPED, Kind.WORKER_KILLED):
            job = draw.choice(self._running)
            rank = draw.randrange(job.recipe.workers)
        elif kind == Kind.JOB_LEAVES:
            job = self._running.pop(0 if self._alone else draw.randrange(len(self._running)))
        elif kind == Kind.JOB_JOINS:
            job = self._spec()
            self._running.append(job)
        return Fault(len(before) + 1, kind, at_s, lasts_s, worker, job, rank, share)

    def _begin(self, kind: Kind, before: list[Fault]) -> float:
        """A moment while the last fault lasts, or one some seconds after all have ended."""
        draw = self._draw
        if not before:
            return FIRST_AT_S
        last = before[-1]
        meets, within = draw.random() < MEETING_SHARE, draw.random()
        gap_s = draw.uniform(*GAP_S)
        at_s = round(last.at_s + within * last.lasts_s, 1)
        lasting = [each for each in before[-12:] if each.ends_s >= at_s]
        if meets and lasting and all(frozenset({kind, e.kind}) in MAY_MEET for e in lasting):
            return at_s
        return round(max(each.ends_s for each in before[-12:]) + gap_s, 1)
