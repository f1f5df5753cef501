"""Pieces through the switch program: frame by frame, also on BMv2, and in trains."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_rig import JOB, Rig
from group_rig import Group
from piece_rig import Memory, Piece, all_gather, broadcast, collect, finish, reduce_scatter, some

from reference_switch import Address, ReferenceSwitch
from support import bmv2
from support.frames import delivered, frame
from support.leased import HOSTS
from support.targets import Lease, Target, install_switch
from wiresum import p4
from wiresum.host_agent.launcher.embedded import Embedded
from wiresum.p4.packet import EVENTS, HEADER_BYTES, DropReason, Event

LANES = 64
PATIENT = {"rto_initial_s": 0.5, "rto_min_s": 0.5, "rto_max_s": 2.0}
"""Frames cross BMv2 one after the other."""


@pytest.fixture(scope="module", params=["soft", pytest.param("bmv2", marks=pytest.mark.bmv2)])
def switch(request: pytest.FixtureRequest) -> Iterator[Target]:
    program = p4.program(LANES)
    if request.param == "soft":
        from support.soft import Soft

        soft = Soft(program)
        install_switch(soft, [1, 2, 3])
        yield soft
        return
    if not bmv2.available():
        pytest.skip(f"{bmv2.BINARY} is not on PATH")
    with tempfile.TemporaryDirectory() as directory:
        target = bmv2.Bmv2(program, Path(directory))
        try:
            install_switch(target, [1, 2, 3])
            yield target
        finally:
            target.close()


class Program(ReferenceSwitch):
    """Hands each packet of a worker to a switch under test, and its frames to the workers."""

    def __init__(self, switch: Target) -> None:
        super().__init__(LANES)
        self._switch = switch
        self._installed = False

    def handle(self, data: bytes, source: Address) -> list[tuple[Address, bytes]]:
        (lease,) = self.leases
        hosts = HOSTS[: len(lease.workers)]
        if not self._installed:
            place = (lease.job, lease.epoch, lease.key, lease.slot_base, lease.slot_count)
            Lease(*place, hosts, lease.reply_key).install(self._switch)
            self._installed = True
        host = hosts[lease.workers.index(source)]
        out = self._switch.inject(host.port, frame(host, data))
        replies = (delivered(*each) for each in out)
        return [(lease.workers[each.port - 1], each.chunk.payload()) for each in replies]


def dropped(stats: dict[str, int | float]) -> dict[str, int | float]:
    """What the engine has not believed, but for a WAIT that a result has overtaken."""
    drops = {name: count for name, count in stats.items() if name.startswith("drops_") and count}
    drops.pop("drops_late", None)
    return drops


def test_every_kind_of_piece_crosses_the_program(switch: Target) -> None:
    workers, rng = 3, np.random.default_rng(9)
    collectives: list[list[Piece]] = [
        [Piece(3000, "float32", True)],
        [broadcast(2001, 1)],
        all_gather(1500, workers) + reduce_scatter(1200, workers, "float16"),
        [Piece(1100, "int32", False, -1, 1, 2), Piece(300, "max_uint32", False, -1, 2, 0)],
        [Piece(700, source=0, readers=1, reader=r) for r in (1, 2)],
        [Piece(1, "int32")],
    ]
    before = [switch.counter("drops", reason) for reason in DropReason]
    with Rig(workers, lanes=LANES, field=16, rules=Program(switch), **PATIENT) as rig:
        ticket = 0
        for pieces in collectives:
            memory = [Memory(piece, workers, rig.field, rng) for piece in pieces]
            collect(rig.engines, memory, ticket)
            finish(rig.engines, memory, ticket)
            ticket += len(pieces)
        chunks = int(rig.engines[0].stats()["results"])
        for engine in rig.engines:
            stats = engine.stats()
            assert stats["contributions"] == stats["results"] == chunks
            assert dropped(stats) == {}
            full = HEADER_BYTES + 4 * LANES
            assert HEADER_BYTES * chunks < stats["bytes_received"] < full * chunks
    assert [switch.counter("drops", reason) for reason in DropReason] == before
    assert switch.counter("events", JOB * EVENTS + Event.COMPLETED) >= chunks


@pytest.mark.parametrize("kind", ["udp", "shm"])
def test_trains_of_full_and_bare_packets_arrive_whole(embedded: Embedded, kind: str) -> None:
    """Beside each other, in large pieces; then random ones, which are in flight together."""
    workers, field, rng = 4, 16, np.random.default_rng(10)
    large = all_gather(200_001, workers) + reduce_scatter(50_003, workers)
    collectives = [large, *([some(rng, workers, (0, 1, 1500, 70_000))] * 3 for _ in range(5))]
    with Group(embedded, kind, workers, field, slots=256) as group:
        memory = [[Memory(piece, workers, field, rng) for piece in each] for each in collectives]
        firsts = np.cumsum([0, *map(len, memory)])
        for first, each in zip(firsts, memory, strict=False):
            collect(group.engines, each, int(first))
        for first, each in zip(firsts, memory, strict=False):
            finish(group.engines, each, int(first))
        for engine in group.engines:
            stats = engine.stats()
            assert dropped(stats) == {}
