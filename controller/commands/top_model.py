"""What ``wiresum top`` shows, as plain values: made from two answers of the controller.

Rates of switches and jobs are differences between two moments at which the controller read the
switches' counters. Rates of ranks come from the two latest reports of each, which may be older.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wiresum.controller.carriers import carrier_of
from wiresum.controller.commands.stragglers import Straggler, stragglers
from wiresum.controller.commands.tables import parts_below, state_name
from wiresum.controller.v1 import controller_pb2 as pb

LANE_BITS = 32


@dataclass(frozen=True)
class Moment:
    """The controller's answers at one time; ``time_s`` is of a clock that only grows."""

    time_s: float
    switches: Sequence[pb.Switch]
    jobs: Sequence[pb.Job]
    all_told: bool = True
    """False: to a tenant, who sees its jobs, and no switches."""


@dataclass(frozen=True)
class RankRow:
    """One worker, by its own reports. Rates are per second; None without two reports."""

    rank: int
    age_s: float
    """Since its latest report."""
    started: int
    ended: int
    fallback: int
    rtt_s: float
    window: int
    collectives: float | None
    bits: float | None
    """Sent on the wire, headers included."""
    retransmissions: float | None
    exposed: float | None
    """Share of the time that training stood still for collectives."""
    latency_s: float | None
    """Mean time from a collective's start to its end."""


@dataclass(frozen=True)
class JobRow:
    """One live or waiting job. Rates are per second; None without two readings of counters."""

    id: str
    name: str
    parent: str
    """The id of the job that it is a part of; empty: of none."""
    tenant: str
    state: str
    parked: bool
    """It lends its slots to others."""
    reason: str
    switch: str
    slots: int
    slots_target: int
    workers: int
    joined: int
    missing: list[int]
    queue_position: int
    heartbeat_age_s: float
    chunks: float | None
    bits: float | None
    """Sums that left the switch, lanes alone, once for all workers."""
    resent: float | None
    waited: float | None
    mismatched: float | None
    carrier: str
    """``switch`` or ``ranks``: what sums; empty before the first report."""
    carrier_reason: str
    """Why the ranks do."""
    ranks: list[RankRow]
    stragglers: list[Straggler]


@dataclass(frozen=True)
class SwitchRow:
    """One switch. Rates are per second; None without two readings of its counters."""

    name: str
    state: str
    reason: str
    draining: bool
    jobs: int
    slots: int
    free_slots: int
    chunks: float | None
    bits: float | None
    dropped: float | None
    drops: dict[str, float] = field(default_factory=dict)
    """Those that are not zero, by reason."""


@dataclass(frozen=True)
class Frame:
    """One picture."""

    controller: str
    interval_s: float
    """Between the two moments; 0: there was one, and there are no rates."""
    switches: list[SwitchRow]
    jobs: list[JobRow]
    all_told: bool
    """False: there may be switches, but this token does not see them."""


def frame(controller: str, before: Moment | None, now: Moment) -> Frame:
    """The picture of ``now``, with rates since ``before``."""
    interval = now.time_s - before.time_s if before is not None else 0.0
    old_jobs = {job.id: job for job in before.jobs} if before is not None else {}
    old_switches = {switch.name: switch for switch in before.switches} if before else {}
    jobs = [_job(old_jobs.get(job.id), job, interval) for job in parts_below(now.jobs)]
    return Frame(
        controller=controller,
        interval_s=interval,
        switches=[
            _switch(old_switches.get(switch.name), switch, jobs, interval)
            for switch in now.switches
        ],
        jobs=jobs,
        all_told=now.all_told,
    )


def _job(old: pb.Job | None, job: pb.Job, interval: float) -> JobRow:
    rates = _rates(old.events if old else {}, job.events, interval)
    chunks = rates.get("completed")
    ranks = [_rank(report) for report in sorted(job.reports, key=lambda report: report.rank)]
    return JobRow(
        id=job.id,
        name=job.name,
        parent=job.parent,
        tenant=job.tenant,
        state=state_name(pb.JobState.Name(job.state)),
        parked=job.parked,
        reason=job.reason,
        switch=job.switch,
        slots=job.slots,
        slots_target=job.slots_target,
        workers=job.workers,
        joined=len(job.joined),
        missing=list(job.missing),
        queue_position=job.queue_position,
        heartbeat_age_s=job.heartbeat_age_s,
        chunks=chunks,
        bits=None if chunks is None else chunks * job.lanes * LANE_BITS,
        resent=rates.get("resent"),
        waited=rates.get("waited"),
        mismatched=rates.get("mismatched"),
        carrier=carrier_of(job).name,
        carrier_reason=carrier_of(job).reason,
        ranks=ranks,
        stragglers=stragglers(job),
    )


def _rank(report: pb.RankReport) -> RankRow:
    before = report.before if report.HasField("before") else None
    span = before.age_s - report.age_s if before is not None else 0.0

    def rate(name: str, factor: float = 1.0) -> float | None:
        if before is None or span <= 0:
            return None
        grown = getattr(report, name) - getattr(before, name)
        return float(factor * grown / span) if grown >= 0 else None

    ended, waited = rate("ended"), rate("in_flight_s")
    return RankRow(
        rank=report.rank,
        age_s=report.age_s,
        started=report.started,
        ended=report.ended,
        fallback=report.fallback,
        rtt_s=report.rtt_s,
        window=report.window,
        collectives=ended,
        bits=rate("bytes_sent", 8.0),
        retransmissions=rate("retransmissions"),
        exposed=rate("exposed_s"),
        latency_s=waited / ended if ended and waited is not None else None,
    )


def _switch(
    old: pb.Switch | None, switch: pb.Switch, jobs: Sequence[JobRow], interval: float
) -> SwitchRow:
    drops = _rates(old.drops if old else {}, switch.drops, interval)
    mine = [job for job in jobs if job.switch == switch.name and job.slots]
    told = [job for job in mine if job.chunks is not None]
    known = bool(told) or (not mine and bool(interval) and not switch.counters_error)
    return SwitchRow(
        name=switch.name,
        state=state_name(pb.SwitchState.Name(switch.state)),
        reason=switch.reason,
        draining=switch.draining,
        jobs=switch.jobs,
        slots=switch.slots,
        free_slots=switch.free_slots,
        chunks=sum(job.chunks or 0.0 for job in told) if known else None,
        bits=sum(job.bits or 0.0 for job in told) if known else None,
        dropped=sum(drops.values()) if drops else None,
        drops={reason: rate for reason, rate in sorted(drops.items()) if rate > 0},
    )


def _rates(old: Mapping[str, int], new: Mapping[str, int], interval: float) -> dict[str, float]:
    """Per second; empty if one of the two is not known, or the counters began anew."""
    if not old or not new or interval <= 0:
        return {}
    if any(new[name] < old.get(name, 0) for name in new):
        return {}
    return {name: (new[name] - old.get(name, 0)) / interval for name in new}


def as_json(picture: Frame) -> dict[str, Any]:
    """A frame as JSON values; the unit of every number is in its name."""
    return {
        "controller": picture.controller,
        "interval_s": picture.interval_s,
        "switches": [
            {
                "name": switch.name,
                "state": switch.state,
                "reason": switch.reason,
                "draining": switch.draining,
                "jobs": switch.jobs,
                "slots": switch.slots,
                "free_slots": switch.free_slots,
                "chunks_per_s": switch.chunks,
                "summed_bits_per_s": switch.bits,
                "drops_per_s": switch.dropped,
                "drops_by_reason_per_s": switch.drops,
            }
            for switch in picture.switches
        ],
        "jobs": [_job_json(job) for job in picture.jobs],
    }


def _job_json(job: JobRow) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "parent": job.parent,
        "tenant": job.tenant,
        "state": job.state,
        "parked": job.parked,
        "reason": job.reason,
        "switch": job.switch,
        "slots": job.slots,
        "slots_target": job.slots_target,
        "workers": job.workers,
        "joined": job.joined,
        "missing": job.missing,
        "queue_position": job.queue_position,
        "heartbeat_age_s": job.heartbeat_age_s,
        "chunks_per_s": job.chunks,
        "summed_bits_per_s": job.bits,
        "resent_per_s": job.resent,
        "waited_per_s": job.waited,
        "mismatched_per_s": job.mismatched,
        "carrier": job.carrier,
        "carrier_reason": job.carrier_reason,
        "stragglers": [{"rank": one.rank, "why": one.why} for one in job.stragglers],
        "ranks": [
            {
                "rank": rank.rank,
                "report_age_s": rank.age_s,
                "started": rank.started,
                "ended": rank.ended,
                "fallback": rank.fallback,
                "rtt_s": rank.rtt_s,
                "window": rank.window,
                "collectives_per_s": rank.collectives,
                "sent_bits_per_s": rank.bits,
                "retransmissions_per_s": rank.retransmissions,
                "exposed_share": rank.exposed,
                "latency_s": rank.latency_s,
            }
            for rank in job.ranks
        ],
    }
