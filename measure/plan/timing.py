"""One step of a job on a fabric: what it computes, what it sends where, how long it takes alone."""

import math
from dataclasses import dataclass, replace

from wiresum.measure.model import collectives, limits
from wiresum.measure.model.costs import Costs
from wiresum.measure.plan import slots
from wiresum.measure.plan.fabric import Fabric
from wiresum.measure.plan.spec import JobSpec
from wiresum.measure.remedies import REMEDIES, Carrier, Remedy
from wiresum.p4.packet import HEADER_BYTES

_COSTS = Costs()
RANKS_SHARE = 0.85
"""Of gloo's own speed: what the ranks reach, who carry one bucket after the other."""
RESEND_ROUND_TRIPS = 2
"""After how many round trips a lost chunk is sent again: the engine sends it again when later
chunks have come back, at the latest after its adaptive timeout."""


@dataclass(frozen=True)
class Phase:
    """A step. Seconds and bytes; ``demand``: bytes per second that the job's flow takes if it may.

    ``crossing``: whether its flow crosses the uplinks of its racks. ``fixed_s``: of communication,
    what no bandwidth shortens: latencies and the codec.
    """

    workers: int
    compute_s: float
    hidden_s: float
    fixed_s: float
    volume: float
    demand: float
    crossing: bool

    def comm_s(self, rate: float | None = None) -> float:
        """Communication at a rate in bytes per second; its own demand, if None."""
        rate = self.demand if rate is None else min(rate, self.demand)
        return self.fixed_s + (self.volume / rate if self.volume else 0.0)

    def step_s(self, rate: float | None = None, compute_s: float | None = None) -> float:
        """A step: computation, and the communication that does not hide behind it."""
        compute = self.compute_s if compute_s is None else compute_s
        return max(compute, compute - min(self.hidden_s, compute) + self.comm_s(rate))


def window_of(job: JobSpec, fabric: Fabric, racks: int = 1) -> int:
    """The chunks that a worker has in flight: what its lease allows, or what fills its link.

    A round trip goes through every level of switches.
    """
    if job.slots:
        return max(1, job.slots // 2)
    packet = fabric.lanes * slots.LANE_BYTES + slots.FRAME_BYTES
    round_trip_us = fabric.round_trip_us * slots.levels(racks)
    return slots.window(fabric.link_gbit, round_trip_us, packet)


def phase(job: JobSpec, fabric: Fabric, racks: int = 1, remedy: str | None = None) -> Phase:
    """The step of a job whose workers sit in so many racks, under its remedy or another."""
    chosen = REMEDIES[remedy or job.remedy]
    alone = job.workers < 2 or job.gradient_bytes == 0
    if alone:
        return Phase(job.workers, job.compute_ms / 1e3, 0.0, 0.0, 0.0, 1.0, False)
    if chosen.carrier is Carrier.SWITCH:
        found = _switch(job, fabric, racks, chosen)
    else:
        found = _ring(job, fabric, chosen)
    # The last bucket can never hide, and what follows the optimizer's step cannot either.
    hidden = (
        0.0
        if chosen.every > 1
        else min(job.hidden_ms / 1e3, found.comm_s() * (1 - 1 / job.buckets))
    )
    return replace(found, hidden_s=hidden, crossing=racks > 1)


def _switch(job: JobSpec, fabric: Fabric, racks: int, remedy: Remedy) -> Phase:
    assert remedy.field is not None
    link, hops = fabric.link, slots.levels(racks)
    round_trip = 2 * link.alpha_s * hops
    headers = limits.UDP + HEADER_BYTES
    one = job.gradient_bytes / job.buckets
    volume = job.buckets * (
        collectives.framed(one * remedy.field / limits.ELEMENT_BITS, headers, fabric.mtu)
        + collectives.framed(collectives.exponents(one), headers, fabric.mtu)
    )
    packet = fabric.lanes * slots.LANE_BYTES + slots.FRAME_BYTES
    cycle = round_trip + resend_s(fabric.loss, job.workers, round_trip)
    demand = link.beta * _COSTS.switch.middle * (1 - fabric.loss)
    if cycle > 0:
        demand = min(demand, window_of(job, fabric, racks) * packet / cycle)
    fixed = job.buckets * 2 * round_trip
    codec = job.gradient_bytes / _COSTS.encode[remedy.field].middle
    codec += job.gradient_bytes / _COSTS.decode[remedy.field].middle
    # The codec runs beside the wire: the slower of them counts.
    fixed += max(0.0, codec - volume / demand)
    return Phase(job.workers, job.compute_ms / 1e3, 0.0, fixed, volume, demand, False)


def _ring(job: JobSpec, fabric: Fabric, remedy: Remedy) -> Phase:
    link, size = fabric.link, job.gradient_bytes
    share = remedy.share()
    share = _COSTS.powersgd_share.middle if share is None else share
    messages, moved = collectives.steps("all_reduce", job.workers)
    payload = size * share * moved
    volume = collectives.framed(payload, limits.TCP, fabric.mtu)
    ranks = remedy.carrier is Carrier.RANKS
    # PowerSGD has three all-reduces a bucket; exponents go ahead of the lanes.
    rounds = 3.0 if remedy.field is None else 2.0 if remedy.has_exponents else 1.0
    reached = RANKS_SHARE if ranks else 1.0
    if ranks and job.workers <= collectives.MOST_DIRECT:
        rounds = 1.0 + 1.0 / max(1, messages)  # the exponents: one message, not a ring's
    fixed = job.buckets * rounds * messages * link.alpha_s / reached / remedy.every
    if ranks and remedy.field is not None:
        fixed += size / _COSTS.encode[remedy.field].middle
        fixed += size / _COSTS.decode[remedy.field].middle
    elif remedy.field is None:
        fixed += size / _COSTS.powersgd.middle
    elif remedy.density < 1:
        fixed += size / _COSTS.blocks.middle / remedy.every
    elif remedy.hook == "fp16":
        fixed += size / _COSTS.fp16.middle
    demand = link.beta * reached * (1 - fabric.loss)
    return Phase(job.workers, job.compute_ms / 1e3, 0.0, fixed, volume, demand, False)


def resend_s(loss: float, workers: int, round_trip: float) -> float:
    """How much longer a slot is taken, on average, by chunks that are lost.

    A chunk comes late if any worker's contribution or result is lost: 1 − (1 − p)^2n. Each time it
    is sent again after :data:`RESEND_ROUND_TRIPS`.
    """
    if loss <= 0:
        return 0.0
    late = min(1 - (1 - loss) ** (2 * workers), 0.999)
    return late / (1 - late) * RESEND_ROUND_TRIPS * round_trip


def expected_compute_s(phase: Phase, fabric: Fabric) -> float:
    """The mean of the slowest worker's computation.

    The largest of n exponential shares has mean H_n, the n-th harmonic number.
    """
    n = phase.workers
    harmonic = sum(1 / k for k in range(1, n + 1)) if n < 100 else math.log(n) + 0.5772156649
    any_slow = 1 - (1 - fabric.stragglers) ** n
    factor = 1 + any_slow * (fabric.straggler_factor - 1)
    return phase.compute_s * (factor + fabric.jitter * harmonic)
