"""The counters of wiresum's own program, by name. The data plane itself knows of no program.

Counters, registers and table fields are called as in P4Info and in the P4 source.
"""

from dataclasses import dataclass, field

from wiresum.p4 import packet
from wiresum.softswitch._softswitch import Dataplane

NAME = "wiresum"
"""``pkg_info.name`` in its P4Info."""


@dataclass
class Worker:
    """One member of a job."""

    rank: int
    packets: int
    """Since its entry was written."""
    missing: int = 0
    """Open slots that it has not contributed to."""


@dataclass
class Job:
    """One epoch of a job, by its number on this switch."""

    number: int
    open_slots: int = 0
    workers: list[Worker] = field(default_factory=list)


def runs(dataplane: Dataplane, name: str) -> bool:
    """Whether the program, called ``name`` by its P4Info, is ours and as this version knows it."""
    sizes = {counter: size for counter, _, size in dataplane.counters()}
    ours = {"events": packet.JOBS * packet.EVENTS, "drops": packet.DROP_REASONS}
    return name == NAME and all(sizes.get(counter) == size for counter, size in ours.items())


def drops(dataplane: Dataplane) -> dict[str, int]:
    """Packets dropped, by reason in lower case."""
    counts = dataplane.counter_read("drops", 0, packet.DROP_REASONS)
    return {reason.name.lower(): counts[reason][0] for reason in packet.DropReason}


def events(dataplane: Dataplane) -> dict[int, dict[str, int]]:
    """For every job number that has had any: how often each event happened."""
    cells = dataplane.counter_read("events", 0, packet.JOBS * packet.EVENTS)
    found = {}
    for number in range(packet.JOBS):
        counts = [packets for packets, _ in cells[number * packet.EVENTS :][: packet.EVENTS]]
        if any(counts):
            found[number] = {event.name.lower(): counts[event] for event in packet.Event}
    return found


def jobs(dataplane: Dataplane) -> list[Job]:
    """Who has a lease, and which contributions the open slots of each wait for."""
    table = next(t for t in dataplane.tables() if t["name"] == "membership")
    keys = [name for name, _, _ in table["key"]]
    names = {action: [name for name, _ in params] for action, _, params in table["actions"]}
    epochs = dataplane.register_read("slot_epoch", 0, packet.SLOTS)
    bitmaps = dataplane.register_read("slot_bitmap", 0, packet.SLOTS)
    # Keyed by epoch, too: while a job changes its lease, the switch holds two of its epochs.
    leases: dict[tuple[int, int], tuple[Job, list[int]]] = {}
    for key, _, action, values, packets, _ in dataplane.table_entries("membership"):
        where = {name: _int(value[0]) for name, value in zip(keys, key, strict=True)}
        what = dict(zip(names[action], map(_int, values), strict=True))
        lease = where["job"], where["epoch"]
        if lease not in leases:
            slots = range(what["slot_base"], what["slot_base"] + what["slot_count"])
            mine = [_int(bitmaps[slot]) for slot in slots if _int(epochs[slot]) == lease[1]]
            waiting = [bits for bits in mine if bits != what["full"]]
            leases[lease] = Job(where["job"], len(waiting)), waiting
        job, waiting = leases[lease]
        missing = sum(not bits & what["worker_bit"] for bits in waiting)
        job.workers.append(Worker(what["worker"], packets, missing))
    return _by_number([job for job, _ in leases.values()])


def _by_number(epochs: list[Job]) -> list[Job]:
    """One job per number: two epochs of it count as one."""
    merged: dict[int, Job] = {}
    for epoch in epochs:
        job = merged.setdefault(epoch.number, Job(epoch.number))
        job.open_slots += epoch.open_slots
        ranks = {worker.rank: worker for worker in job.workers}
        for worker in epoch.workers:
            if worker.rank in ranks:
                ranks[worker.rank].packets += worker.packets
                ranks[worker.rank].missing += worker.missing
            else:
                job.workers.append(worker)
    return list(merged.values())


def _int(value: bytes) -> int:
    return int.from_bytes(value, "big")
