"""A plan: where jobs are placed, what switches and uplinks carry, what collisions cost."""

from dataclasses import dataclass
from typing import Any

from wiresum.measure import lines
from wiresum.measure.plan import slots
from wiresum.measure.plan.errors import PlanError
from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.phases import Shifted, shift
from wiresum.measure.plan.placing import Place, place, sum_fits
from wiresum.measure.plan.simulation.jobs import Running, work
from wiresum.measure.plan.spec import JobSpec
from wiresum.measure.plan.timing import expected_compute_s, phase
from wiresum.measure.remedies import REMEDIES

KIND = "wiresum plan"
VERSION = 1
MOST_WORK = 50_000_000
"""Of a simulation, as :func:`work` counts it: some minutes."""


@dataclass(frozen=True)
class Timed:
    """An admitted job. Seconds of a step: by the closed form; simulated alone, together, shifted.

    ``what_if``: the closed form under every remedy whose fields hold the sum, on the same racks.
    """

    place: Place
    closed_s: float
    alone_s: float
    together_s: float
    shifted_s: float
    offset_s: float
    uplink_bytes: float
    what_if: dict[str, float]


@dataclass(frozen=True)
class RackUse:
    """What one rack's switch and uplinks carry. ``uplink_share``: of the uplinks' capacity, over
    time; above 1 they are overbooked."""

    hosts: int
    slots: int
    uplink_share: float


@dataclass(frozen=True)
class Plan:
    """All of it."""

    fabric: Fabric
    jobs: list[Timed]
    waiting: list[Place]
    racks: list[RackUse]
    spine_slots: int
    shift_gain: float

    @property
    def overbooked(self) -> list[int]:
        """Racks whose uplinks are asked for more than they carry."""
        return [at for at, rack in enumerate(self.racks) if rack.uplink_share > 1]

    @property
    def sram_bytes(self) -> int:
        """Of the slots of the fullest switch."""
        most = max([self.spine_slots, *(rack.slots for rack in self.racks)])
        return slots.register_bytes(most, self.fabric.lanes)


def plan(jobs: list[JobSpec], fabric: Fabric, steps: int = 30, seed: int = 0) -> Plan:
    """Place the jobs, then simulate those that are admitted.

    Raises :class:`PlanError` if that would take too long.
    """
    places = place(jobs, fabric)
    admitted = [each for each in places if not each.waits]
    running = [
        Running(
            each.job.name,
            phase(each.job, fabric, len(each.racks)),
            tuple(sorted(each.racks)) if each.crossing else (),
        )
        for each in admitted
    ]
    if work(running, steps) > MOST_WORK:
        crossing = sum(bool(job.racks) for job in running)
        raise PlanError(lines.TOO_LONG_TO_SIMULATE.of(steps=steps, jobs=crossing))
    found = shift(running, fabric, steps, seed) if running else Shifted([], [], [], [])
    timed = [
        _timed(each, job, fabric, found, at)
        for at, (each, job) in enumerate(zip(admitted, running, strict=True))
    ]
    return Plan(
        fabric=fabric,
        jobs=timed,
        waiting=[each for each in places if each.waits],
        racks=[_use(at, timed, fabric) for at in range(fabric.racks)],
        spine_slots=sum(each.place.slots for each in timed if each.place.crossing),
        shift_gain=found.gain,
    )


def _timed(place: Place, running: Running, fabric: Fabric, found: Shifted, at: int) -> Timed:
    step = running.phase
    racks = len(place.racks)
    rate = min(step.demand, fabric.uplink_bytes) if step.crossing else step.demand
    return Timed(
        place=place,
        closed_s=step.step_s(rate, expected_compute_s(step, fabric)),
        alone_s=found.alone[at],
        together_s=found.collided[at],
        shifted_s=found.shifted[at],
        offset_s=found.offsets[at],
        uplink_bytes=step.volume if step.crossing else 0.0,
        what_if={
            name: _alone(place.job, fabric, racks, name)
            for name, remedy in REMEDIES.items()
            if sum_fits(remedy, place.job.workers)
        },
    )


def _alone(job: JobSpec, fabric: Fabric, racks: int, remedy: str) -> float:
    step = phase(job, fabric, racks, remedy)
    rate = min(step.demand, fabric.uplink_bytes) if step.crossing else step.demand
    return step.step_s(rate, expected_compute_s(step, fabric))


def _use(at: int, jobs: list[Timed], fabric: Fabric) -> RackUse:
    here = [each for each in jobs if at in each.place.racks]
    asked = sum(each.uplink_bytes / each.closed_s for each in here if each.closed_s)
    return RackUse(
        hosts=sum(each.place.racks[at] for each in here),
        slots=sum(each.place.slots for each in here),
        uplink_share=asked / fabric.uplink_bytes,
    )


def as_json(made: Plan) -> dict[str, Any]:
    """The plan for programs: milliseconds, bytes, Gbit/s."""
    fabric = made.fabric
    return {
        "kind": KIND,
        "version": VERSION,
        "fabric": {
            "racks": fabric.racks,
            "hosts_per_rack": fabric.hosts,
            "link_gbit": fabric.link_gbit,
            "uplink_gbit": fabric.uplink_gbit,
            "uplinks": fabric.uplinks,
            "oversubscription": fabric.oversubscription,
            "round_trip_us": fabric.round_trip_us,
            "slots": fabric.slots,
        },
        "sram_bytes": made.sram_bytes,
        "spine_slots": made.spine_slots,
        "overbooked_racks": made.overbooked,
        "shift_gain": made.shift_gain,
        "jobs": [_job(each) for each in made.jobs],
        "waiting": [{"name": each.job.name, "why": each.waits} for each in made.waiting],
        "racks": [
            {"hosts": each.hosts, "slots": each.slots, "uplink_share": each.uplink_share}
            for each in made.racks
        ],
    }


def _job(each: Timed) -> dict[str, Any]:
    job = each.place.job
    return {
        "name": job.name,
        "workers": job.workers,
        "remedy": job.remedy,
        "racks": {str(at): hosts for at, hosts in each.place.racks.items()},
        "slots": each.place.slots,
        "window": each.place.window,
        "step_ms": {
            "closed_form": each.closed_s * 1e3,
            "alone": each.alone_s * 1e3,
            "together": each.together_s * 1e3,
            "shifted": each.shifted_s * 1e3,
        },
        "offset_ms": each.offset_s * 1e3,
        "what_if_ms": {name: step * 1e3 for name, step in each.what_if.items()},
    }
