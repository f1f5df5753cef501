"""Random schedules of the protocol: workers that follow the rules, a network that follows none.

A schedule drives one switch through one or two jobs. The network drops, duplicates, reorders and
delays; jobs restart; an attacker forges. What must hold is checked at every packet: no sum is ever
wrong, nothing forged is answered, every packet is accounted for by exactly one counter; and at the
end every chunk completes once the network behaves.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from support.bmv2 import takes_bare
from support.frames import Chunk, Host, delivered, frame, host, readers
from support.targets import Lease, Target
from wiresum.p4 import packet
from wiresum.p4.packet import DropReason, Event, Kind, Op, Readers

PATTERNS = 64
ANSWERED = (Event.RESENT, Event.WAITED)
KEPT = (Event.CLAIMED, Event.ADDED)


class Values:
    """The contributions of each worker: lanes from a table, so that a packet costs no loop."""

    def __init__(self, lanes: int) -> None:
        table = np.random.default_rng(7).integers(0, 2**32, (PATTERNS, lanes), dtype=np.uint64)
        self.table = table.astype(np.uint32)
        self.bytes = [row.astype(">u4").tobytes() for row in self.table]

    @staticmethod
    def index(job: int, epoch: int, rank: int, position: int) -> int:
        """The row that a contribution uses."""
        return hash((job, epoch, rank, position)) % PATTERNS

    def reduced(self, rows: Iterable[int], op: int) -> bytes:
        """The RESULT's lanes; a bare contribution has no row."""
        chosen = self.table[list(rows)]
        if len(chosen) == 0:
            return bytes(4 * self.table.shape[1])
        result = chosen.max(axis=0) if op == Op.MAX else chosen.sum(axis=0, dtype=np.uint32)
        return bytes(result.astype(">u4").tobytes())


@dataclass
class Worker:
    """One rank: sends a chunk only when the result one window before it has come."""

    place: Host
    rank: int
    next: int = 0
    done: set[int] = field(default_factory=set)

    def outstanding(self) -> list[int]:
        """Positions sent whose result has not come."""
        return [p for p in range(self.next) if p not in self.done]


@dataclass
class Job:
    """A job on the switch and the state of its workers."""

    number: int
    key: int
    slot_base: int
    slots: int
    chunks: int
    first: int  # the wire number of chunk 0
    op: int
    workers: list[Worker]
    bare: bool  # whether contributions without lanes are among them
    epoch: int = 0
    lease: Lease | None = None

    @property
    def window(self) -> int:
        """Chunks in flight."""
        return self.slots // 2

    def source(self, position: int) -> int | None:
        """The one rank that has lanes for a position, the others being bare; None: all have."""
        rank = hash((self.number, position, 1)) % (2 * len(self.workers))
        return rank if self.bare and rank < len(self.workers) else None

    def row(self, rank: int, epoch: int, position: int) -> int | None:
        """The row of a rank's contribution; None: it is bare."""
        if self.source(position) not in (None, rank):
            return None
        return Values.index(self.number, epoch, rank, position)

    def readers(self, position: int) -> tuple[Readers, int]:
        """Who reads the RESULT of a position: all, only one rank, all but one."""
        who = Readers(hash((self.number, position, 2)) % len(Readers))
        rank = hash((self.number, position, 3)) % len(self.workers)
        return who, 0 if who == Readers.ALL else rank

    def reads(self, rank: int, position: int) -> bool:
        """Whether ``rank`` gets the lanes of a position."""
        who, named = self.readers(position)
        return who == Readers.ALL or (who == Readers.ONLY) == (rank == named)

    def packet(self, worker: Worker, position: int, **changes: object) -> Chunk:
        """The CONTRIBUTION's header of a position; lanes are added as bytes."""
        fields = {
            "op": self.op, "job": self.number, "slot": position % self.slots,
            "epoch": self.epoch, "chunk": (self.first + position) & 0xFFFFFFFF, "key": self.key,
            "fingerprint": position // 3, "readers": readers(*self.readers(position)),
        }  # fmt: skip
        return Chunk(**(fields | changes))  # type: ignore[arg-type]


class Schedule:
    """One run; raises AssertionError where something that must hold does not."""

    def __init__(
        self, switch: Target, values: Values, epochs: Iterable[int], *, seed: int, jobs: int,
        workers: int, slots: int, chunks: int, loss: float, attacks: bool, restarts: bool,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.switch = switch
        self.values = values
        self.epochs = iter(epochs)
        self.loss = loss
        self.attacks = attacks
        self.restarts = 2 if restarts else 0
        self.up: list[tuple[int, bytes]] = []
        self.down: list[tuple[int, bytes]] = []
        self.past: list[tuple[int, bytes]] = []  # every contribution ever sent
        self.injected = self.replies = 0
        rng_number = self.rng.getrandbits(32)
        self.jobs = [
            Job(
                number=1 + index, key=self.rng.getrandbits(64), slot_base=index * slots,
                slots=slots, chunks=chunks, op=self.rng.choice([Op.SUM, Op.MAX]),
                first=self.rng.choice([0, 2**32 - chunks // 2, 2**31, rng_number]),
                workers=[Worker(host(1 + rank), rank) for rank in range(workers)],
                bare=takes_bare(switch),
            )
            for index in range(jobs)
        ]  # fmt: skip
        self.counts = self.read_counts()

    # -- the control plane -----------------------------------------------------------------------

    def read_counts(self) -> dict[object, int]:
        """Every counter that accounts for packets."""
        counts: dict[object, int] = {r: self.switch.counter("drops", r) for r in DropReason}
        for job in self.jobs:
            for event in Event:
                index = job.number * packet.EVENTS + event
                counts[job.number, event] = self.switch.counter("events", index)
        return counts

    def start(self, job: Job) -> None:
        """A new epoch: the former entries go before the new ones come, as the controller does."""
        if job.lease is not None:
            job.lease.withdraw(self.switch)
        job.epoch = next(self.epochs)
        for worker in job.workers:
            worker.next, worker.done = 0, set()
        job.lease = Lease(
            job.number, job.epoch, job.key, job.slot_base, job.slots,
            tuple(w.place for w in job.workers),
        )  # fmt: skip
        job.lease.install(self.switch)

    # -- workers and network ---------------------------------------------------------------------

    def send(self, job: Job, worker: Worker, position: int) -> None:
        """Put a contribution on its way."""
        row = job.row(worker.rank, job.epoch, position)
        payload = job.packet(worker, position).header()
        if row is not None:
            payload += self.values.bytes[row]
        item = (worker.place.port, frame(worker.place, payload))
        self.up.append(item)
        self.past.append(item)

    def may_send(self, job: Job, worker: Worker) -> bool:
        """Whether the rules let the worker send a new chunk."""
        before = worker.next - job.window
        return worker.next < job.chunks and (before < 0 or before in worker.done)

    def arrive_at_switch(self, port: int, data: bytes) -> None:
        """Deliver a frame to the switch and check the answers."""
        self.injected += 1
        for out in self.switch.inject(port, data):
            self.replies += 1
            self.down.append(out)

    def arrive_at_worker(self, port: int, data: bytes) -> None:
        """Deliver a reply to the worker that it is addressed to."""
        reply = delivered(port, data)
        job = self.jobs[reply.chunk.job - 1]
        worker = next(w for w in job.workers if w.place.port == port)
        assert (reply.dst_ip, reply.dst_port, reply.dst_mac) == (
            worker.place.ip, worker.place.udp_port, worker.place.mac,
        )  # fmt: skip
        chunk = reply.chunk
        assert job.lease is not None
        assert chunk.key == job.lease.reply_key != job.key
        position = (chunk.chunk - job.first) & 0xFFFFFFFF
        assert chunk.kind in (Kind.RESULT, Kind.WAIT), "no rank disagrees in these schedules"
        assert position < job.chunks
        assert chunk.readers == readers(*job.readers(position))
        if chunk.kind == Kind.RESULT:
            rows = [job.row(rank, chunk.epoch, position) for rank in range(len(job.workers))]
            want = self.values.reduced([row for row in rows if row is not None], job.op)
            if not job.reads(worker.rank, position):
                want = b""
            assert data[42 + packet.HEADER_BYTES :] == want, f"wrong sum of chunk {position}"
        else:
            assert chunk.bitmap is not None
            assert chunk.bitmap >> worker.rank & 1
            assert chunk.bitmap < (1 << len(job.workers)) - 1
        if chunk.epoch == job.epoch:
            assert position < worker.next, "an answer to what was never sent"
            if chunk.kind == Kind.RESULT:
                worker.done.add(position)

    def attack(self) -> None:
        """Forge a packet; nothing may be answered and no state change."""
        job = self.rng.choice(self.jobs)
        worker = self.rng.choice(job.workers)
        position = self.rng.randrange(job.chunks)
        row = self.values.bytes[self.rng.randrange(PATTERNS)]
        liar = worker.place
        good = job.packet(worker, position)
        kind = self.rng.randrange(10)
        if kind == 0:
            # A reply's key among them: a host that sees a reply learns no key for contributions.
            key = self.rng.choice([self.rng.getrandbits(64), Lease.reply_key])
            payload = good.but(key=key).header() + row
        elif kind == 1:
            payload = good.but(slot=self.rng.randrange(job.slots, 2**16)).header() + row
        elif kind == 2:
            forged = self.rng.choice([0, Kind.RESULT, Kind.WAIT, Kind.MISMATCH, 77])
            payload = good.but(kind=forged).header() + row
        elif kind == 3:  # truncated
            lengths = set(range(packet.HEADER_BYTES + len(row))) - {packet.HEADER_BYTES}
            payload = (good.header() + row)[: self.rng.choice(sorted(lengths))]
        elif kind == 4:  # overlong
            payload = good.header() + row + bytes(self.rng.randrange(1, 200))
        elif kind == 5:  # another's rank, from one's own port
            liar = Host(worker.place.port % 4 + 1, liar.mac, liar.ip, liar.udp_port)
            payload = good.header() + row
        elif kind == 6:
            payload = (
                good.but(epoch=self.rng.choice([0, job.epoch + 1, job.epoch - 1])).header() + row
            )
        elif kind == 7:
            payload = good.but(version=self.rng.choice([0, 2])).header() + row
        elif kind == 8:
            wrong = [readers(Readers.ALL, 1), readers(Readers.ONLY, len(job.workers)), 0xC0]
            payload = good.but(readers=self.rng.choice(wrong)).header()
        else:
            payload = good.but(op=9).header() + row
        self.injected += 1
        assert self.switch.inject(liar.port, frame(liar, payload)) == []

    def step(self) -> None:
        """One random event."""
        roll = self.rng.random()
        if roll < 0.30:
            job = self.rng.choice(self.jobs)
            worker = self.rng.choice(job.workers)
            if self.may_send(job, worker):
                self.send(job, worker, worker.next)
                worker.next += 1
        elif roll < 0.38:
            job = self.rng.choice(self.jobs)
            worker = self.rng.choice(job.workers)
            waiting = worker.outstanding()
            if waiting:
                self.send(job, worker, self.rng.choice(waiting))
        elif roll < 0.42:
            if self.past and self.loss:  # a duplicate that was on its way for very long
                self.arrive_at_switch(*self.rng.choice(self.past[-200:]))
        elif roll < 0.97:
            queue, arrive = self.rng.choice(
                [(self.up, self.arrive_at_switch), (self.down, self.arrive_at_worker)]
            )
            if queue:
                at = self.rng.randrange(len(queue)) if self.rng.random() < 0.3 else 0
                item = queue[at]
                luck = self.rng.random()
                if luck >= self.loss / 2:  # else a copy stays for later: a duplicate, or delay
                    queue.pop(at)
                if luck < self.loss / 2 or luck >= self.loss:
                    arrive(*item)
        elif roll < 0.995:
            if self.attacks:
                self.attack()
        elif self.restarts:
            self.restarts -= 1
            self.start(self.rng.choice(self.jobs))

    def settle(self) -> None:
        """From here on nothing is lost: every chunk must complete at every worker."""
        for _ in range(4 * max(job.chunks for job in self.jobs) + 8):
            for job in self.jobs:
                for worker in job.workers:
                    for position in worker.outstanding():
                        self.send(job, worker, position)
                    while self.may_send(job, worker):
                        self.send(job, worker, worker.next)
                        worker.next += 1
            while self.up:
                self.arrive_at_switch(*self.up.pop(0))
            while self.down:
                self.arrive_at_worker(*self.down.pop(0))
            if all(len(w.done) == job.chunks for job in self.jobs for w in job.workers):
                return
        raise AssertionError("some chunk never completed though nothing is lost any more")

    def account(self) -> None:
        """Each injected packet was claimed, added, answered or dropped under one name."""
        now = self.read_counts()
        change = {key: now[key] - self.counts[key] for key in now}
        events = {e: sum(change[job.number, e] for job in self.jobs) for e in Event}
        dropped = sum(change[reason] for reason in DropReason)
        kept = sum(events[e] for e in KEPT)
        answered = sum(events[e] for e in ANSWERED)
        assert self.injected == kept + answered + dropped
        copies = len(self.jobs[0].workers)
        assert self.replies == answered + copies * events[Event.COMPLETED]
        assert events[Event.MISMATCHED] == 0
        assert change[DropReason.STALE] == events[Event.STALE]
        assert change[DropReason.OUT_OF_LEASE] == events[Event.OUT_OF_LEASE]
        assert change[DropReason.UNDELIVERABLE] == 0

    def run(self, steps: int) -> None:
        """The whole schedule."""
        for job in self.jobs:
            self.start(job)
        try:
            for _ in range(steps):
                self.step()
            self.settle()
            self.account()
        finally:
            for job in self.jobs:
                if job.lease is not None:
                    job.lease.withdraw(self.switch)


def draw(seed: int) -> dict[str, object]:
    """The parameters of the schedule that ``seed`` names."""
    rng = random.Random(seed ^ 0x5EED)
    return {
        "seed": seed,
        "jobs": rng.choice([1, 1, 2]),
        "workers": rng.randint(1, 4),
        "slots": rng.choice([2, 4, 8]),
        "chunks": rng.randint(1, 20),
        "loss": rng.choice([0.0, 0.02, 0.2, 0.6]),
        "attacks": rng.random() < 0.5,
        "restarts": rng.random() < 0.3,
    }
