"""Admission: which job gets which racks and slots, in the order of the file."""

from dataclasses import dataclass

from wiresum.measure.plan import slots
from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.spec import JobSpec
from wiresum.measure.plan.timing import window_of
from wiresum.measure.remedies import REMEDIES, Carrier, Remedy
from wiresum.p4 import MAX_WORKERS


@dataclass(frozen=True)
class Place:
    """Where a job is. ``racks``: hosts by rack. ``slots``: of each of its switches; 0: none.

    ``waits``: why it is not admitted; empty: it is.
    """

    job: JobSpec
    racks: dict[int, int]
    slots: int = 0
    window: int = 0
    waits: str = ""

    @property
    def crossing(self) -> bool:
        """Whether its traffic crosses uplinks."""
        return len(self.racks) > 1


@dataclass
class _Rack:
    hosts: int
    slots: int


def racks_needed(jobs: list[JobSpec], hosts: int) -> int:
    """Racks whose hosts hold all workers, one on each."""
    return max(1, -(-sum(job.workers for job in jobs) // hosts))


def sum_fits(remedy: Remedy, workers: int) -> bool:
    """Whether a remedy can sum for so many workers; gloo's floats always can."""
    if remedy.carrier is Carrier.GLOO or remedy.field is None:
        return True
    return slots.sum_fits(remedy.field, workers)


def place(jobs: list[JobSpec], fabric: Fabric) -> list[Place]:
    """Place the jobs one after the other.

    A job goes into the fullest rack that holds all of it; else over as few racks as possible. With
    a switch it needs a lease in each of them, and in the spine if there are several.
    """
    racks = [_Rack(fabric.hosts, fabric.slots) for _ in range(fabric.racks)]
    spine = _Rack(0, fabric.slots)
    return [_place(job, fabric, racks, spine) for job in jobs]


def _place(job: JobSpec, fabric: Fabric, racks: list[_Rack], spine: _Rack) -> Place:
    remedy = REMEDIES[job.remedy]
    switched = remedy.carrier is Carrier.SWITCH
    wanted = _wanted(job, fabric, 1)
    if not sum_fits(remedy, job.workers):
        return Place(job, {}, waits=f"{remedy.field}-bit fields hold no sum of {job.workers}")
    if wanted > fabric.slots:
        return Place(job, {}, waits=f"a lease of {wanted} slots, a switch has {fabric.slots}")
    most = MAX_WORKERS if switched else fabric.hosts
    whole = [
        at
        for at, rack in enumerate(racks)
        if rack.slots >= wanted and min(rack.hosts, most) >= job.workers
    ]
    taken: dict[int, int] = {}
    if whole:
        taken[min(whole, key=lambda at: (racks[at].hosts, at))] = job.workers
    else:
        left = job.workers
        wanted = _wanted(job, fabric, max(2, -(-left // min(most, fabric.hosts))))
        if wanted > fabric.slots:
            return Place(job, {}, waits=f"a lease of {wanted} slots, a switch has {fabric.slots}")
        open_ = [at for at, rack in enumerate(racks) if rack.hosts and rack.slots >= wanted]
        for at in sorted(open_, key=lambda at: (-racks[at].hosts, at)):
            taken[at] = min(left, racks[at].hosts, most)
            left -= taken[at]
            if not left:
                break
        if left:
            return Place(job, {}, waits=_why(job, racks, wanted))
    if len(taken) > 1 and spine.slots < wanted:
        return Place(job, {}, waits=f"the spine has {spine.slots} slots left, it needs {wanted}")
    for at, hosts in taken.items():
        racks[at].hosts -= hosts
        racks[at].slots -= wanted
    if len(taken) > 1:
        spine.slots -= wanted
    return Place(job, taken, wanted, wanted // 2)


def _wanted(job: JobSpec, fabric: Fabric, racks: int) -> int:
    """Slots of a lease on each switch; 0 without a switch."""
    if REMEDIES[job.remedy].carrier is not Carrier.SWITCH:
        return 0
    return slots.lease_slots(window_of(job, fabric, racks))


def _why(job: JobSpec, racks: list[_Rack], wanted: int) -> str:
    free = sum(rack.hosts for rack in racks)
    if free < job.workers:
        return f"{free} hosts are free, it has {job.workers} workers"
    return f"the racks with room have fewer than {wanted} slots left"
