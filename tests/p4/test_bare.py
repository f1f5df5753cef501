"""Contributions without lanes, and results that only some ranks read, on every switch present."""

import random

import pytest

from support.bmv2 import takes_bare
from support.frames import frame, readers
from support.leased import HOSTS, lanes, summed
from support.soft import Soft
from wiresum.p4 import packet
from wiresum.p4.packet import DropReason, Event, Kind, Op, Readers

BARE = ()


@pytest.fixture
def takes_any(switch):
    """Skips where a bare contribution cannot become a RESULT with lanes."""
    if not takes_bare(switch):
        pytest.skip(f"BMv2 ends where a frame grows by the {4 * switch.lanes} bytes of its lanes")


def reads(who: Readers, named: int, rank: int) -> bool:
    """Whether ``rank`` gets the lanes."""
    return {Readers.ALL: True, Readers.ONLY: rank == named, Readers.ALL_BUT: rank != named}[who]


EVERY_READERS = [
    (Readers.ALL, 0),
    *((who, rank) for who in (Readers.ONLY, Readers.ALL_BUT) for rank in range(3)),
]


@pytest.mark.parametrize(("who", "named"), EVERY_READERS)
def test_a_result_has_lanes_for_its_readers_alone(switch, lease, who, named):
    """Lengths and checksums are right in every copy, and in what a rank gets that asks again."""
    rack = lease(workers=3)
    for number, checksummed in enumerate((False, True)):
        chunk = rack.chunk(chunk=number, slot=number, readers=readers(who, named))
        parts = [lanes(switch, start) for start in (1, 0xFFFF_FFF0, 77)]
        want = rack.reply(
            kind=Kind.RESULT, chunk=number, slot=number, readers=chunk.readers,
            lanes=summed(*parts),
        )  # fmt: skip
        for rank in (2, 0):
            assert rack.send(rank, chunk.but(lanes=parts[rank]), checksummed) == []
        replies = rack.send(1, chunk.but(lanes=parts[1]), checksummed)
        assert rack.to_all(replies)
        for rank in range(3):  # again, bare and with lanes
            for again in (parts[rank], BARE) if takes_bare(switch) else (parts[rank],) * 2:
                replies += rack.send(rank, chunk.but(lanes=again), checksummed)
        ranks = [0, 1, 2, 0, 0, 1, 1, 2, 2]
        assert [HOSTS.index(rack.host_of(reply)) for reply in replies] == ranks
        for rank, reply in zip(ranks, replies, strict=True):
            assert reply.chunk == (want if reads(who, named, rank) else want.but(lanes=BARE))
            assert reply.checksummed == checksummed


@pytest.mark.parametrize("op", [Op.SUM, Op.MAX])
def test_a_bare_contribution_adds_zero_wherever_it_comes(switch, takes_any, lease, op):
    """It opens the slot, comes in between or comes last; or none has lanes."""
    rack = lease(workers=3)
    value = lanes(switch, 0x8000_0005)
    for number, giver in enumerate((0, 1, 2, None)):
        # What an earlier chunk has left in the slot must not come up again.
        for rank in range(3):
            rack.send(rank, rack.chunk(chunk=2 * number, op=op, lanes=lanes(switch, 9)))
        chunk = rack.chunk(chunk=2 * number + 1, op=op)
        for rank in (0, 1):
            part = value if rank == giver else BARE
            assert rack.send(rank, chunk.but(lanes=part), rank == 0) == []
        replies = rack.send(2, chunk.but(lanes=value if giver == 2 else BARE), True)
        assert rack.to_all(replies)
        want = value if giver is not None else (0,) * switch.lanes
        for reply in replies:
            assert reply.chunk == rack.reply(kind=Kind.RESULT, chunk=chunk.chunk, op=op, lanes=want)
            assert reply.checksummed


def test_a_job_of_one_gets_zeros_for_a_bare_contribution(switch, takes_any, lease):
    rack = lease(workers=1)
    for number, who in enumerate((Readers.ALL, Readers.ONLY, Readers.ALL_BUT)):
        chunk = rack.chunk(chunk=number, readers=readers(who), lanes=BARE)
        want = BARE if who == Readers.ALL_BUT else (0,) * switch.lanes
        for _ in range(2):
            (reply,) = rack.send(0, chunk)
            assert reply.chunk == rack.reply(
                kind=Kind.RESULT, chunk=number, readers=chunk.readers, lanes=want
            )


def test_bare_contributions_are_waiting_stale_and_mismatched_as_any_other(switch, lease, drops):
    rack = lease(workers=3)
    before = {event: rack.event(event) for event in Event}
    root = readers(Readers.ALL_BUT, 2)
    chunk = rack.chunk(chunk=8, readers=root, lanes=BARE)
    assert rack.send(1, chunk) == []  # opens the slot
    (reply,) = rack.send(1, chunk)
    waits = rack.reply(kind=Kind.WAIT, chunk=8, readers=root, lanes=(), bitmap=0b010)
    assert reply.chunk == waits
    replies = rack.send(0, chunk.but(fingerprint=1))
    assert rack.to_all(replies)
    assert {reply.chunk for reply in replies} == {waits.but(kind=Kind.MISMATCH)}
    assert rack.send(0, chunk.but(chunk=0)) == []
    assert drops(DropReason.STALE) == 1
    assert rack.send(0, chunk.but(chunk=16)) == []  # newer: the slot is its own now
    assert rack.send(1, chunk) == []
    assert drops(DropReason.STALE) == 2
    change = {event: rack.event(event) - before[event] for event in Event}
    assert change == dict.fromkeys(Event, 0) | {
        Event.CLAIMED: 2,
        Event.WAITED: 1,
        Event.MISMATCHED: 1,
        Event.STALE: 2,
    }


def test_ranks_that_name_other_readers_are_told(switch, lease):
    """Readers are part of the fingerprint: who disagrees about them has another one."""
    rack = lease(workers=2)
    first, other = readers(Readers.ONLY, 0), readers(Readers.ONLY, 1)
    rack.send(0, rack.chunk(readers=first, fingerprint=7))
    replies = rack.send(1, rack.chunk(readers=other, fingerprint=8, lanes=BARE))
    assert rack.to_all(replies)
    told = rack.reply(kind=Kind.MISMATCH, readers=other, fingerprint=7, lanes=(), bitmap=0b01)
    assert {reply.chunk for reply in replies} == {told}


def test_no_flipped_bit_of_a_bare_contribution_makes_a_wrong_sum(switch, lease, drops):
    rack = lease(workers=2)
    sender = rack.lease.hosts[0]
    other = lanes(switch, 5)
    fields = rack.chunk(readers=readers(Readers.ONLY, 1), lanes=BARE)
    bits = list(range(8 * len(frame(sender, fields.payload()))))
    if not isinstance(switch, Soft):
        bits = sorted(random.Random(7).sample(bits, 40))
    for number, bit in enumerate(bits):
        chunk = fields.but(slot=number % 8, chunk=number)
        good = frame(sender, chunk.payload(), checksummed=True)
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        for port, data in switch.inject(sender.port, bytes(bad)):
            assert data[:12] == bytes(bad[:12]), f"bit {bit}: port {port} gets a reply"
        switch.inject(sender.port, good)
        replies = rack.send(1, chunk.but(lanes=other), True)
        assert [reply.chunk.lanes for reply in replies] == [BARE, other], f"bit {bit}"
        assert all(reply.checksummed for reply in replies)
    in_header = sum(bit >= 8 * 42 for bit in bits)
    assert drops(DropReason.DAMAGED) >= in_header - 8 > 0  # but for the kind's bits


def test_every_rank_of_a_full_job_can_be_named(switch, lease, drops):
    """The bits of ``readers`` and of the bitmap reach as far as each other."""
    assert 1 << packet.READER_BITS == 8 * packet.CONTRIBUTORS_BYTES
    rack = lease(workers=2)
    for rank in range(64):
        for who in (Readers.ONLY, Readers.ALL_BUT):
            rack.send(0, rack.chunk(readers=readers(who, rank), lanes=BARE))
    assert drops(DropReason.WRONG_READERS) == 2 * 62
