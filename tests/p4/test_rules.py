"""The five rules of the switch program, packets in and packets out, on every switch present."""

import random

import pytest

from support.frames import SWITCH_IP, Host, frame, readers
from support.leased import HOSTS, MASK, lanes
from support.soft import Soft
from support.targets import Lease, Target
from wiresum.p4 import packet
from wiresum.p4.packet import DropReason, Event, Kind, Op, Readers


def test_sum_of_all_workers_goes_to_each_at_its_own_address(switch, lease):
    rack = lease(workers=3)
    before = {event: rack.event(event) for event in Event}
    parts = [lanes(switch, start) for start in (1, 0xFFFFFFF0, 0x80000000)]
    assert rack.send(0, rack.chunk(lanes=parts[0])) == []
    assert rack.send(2, rack.chunk(lanes=parts[2])) == []
    replies = rack.send(1, rack.chunk(lanes=parts[1]))
    assert rack.to_all(replies)
    total = tuple(sum(column) & MASK for column in zip(*parts, strict=True))
    for reply in replies:
        assert reply.chunk == rack.reply(kind=Kind.RESULT, lanes=total)
    change = {event: rack.event(event) - before[event] for event in Event}
    assert change == dict.fromkeys(Event, 0) | {
        Event.CLAIMED: 1,
        Event.ADDED: 2,
        Event.COMPLETED: 1,
    }


def test_max_is_unsigned(switch, lease):
    rack = lease(workers=3)
    parts = [lanes(switch, start) for start in (5, 0x7FFFFFFF, 0x90000000)]
    for rank in (1, 0):
        assert rack.send(rank, rack.chunk(op=Op.MAX, lanes=parts[rank])) == []
    replies = rack.send(2, rack.chunk(op=Op.MAX, lanes=parts[2]))
    assert rack.to_all(replies)
    want = tuple(max(column) for column in zip(*parts, strict=True))
    assert {reply.chunk.lanes for reply in replies} == {want}


def test_one_worker_is_answered_at_once(switch, lease):
    rack = lease(workers=1)
    for chunk in range(3):
        (reply,) = rack.send(0, rack.chunk(chunk=chunk, lanes=lanes(switch, chunk)))
        assert reply.chunk.chunk == chunk
        assert reply.chunk.lanes == lanes(switch, chunk)


def test_a_repeat_before_completion_gets_wait_with_the_contributors(switch, lease):
    rack = lease(workers=3)
    rack.send(0, rack.chunk(lanes=lanes(switch, 1)))
    rack.send(2, rack.chunk(lanes=lanes(switch, 2)))
    (reply,) = rack.send(0, rack.chunk(lanes=lanes(switch, 9)))
    assert reply.chunk == rack.reply(kind=Kind.WAIT, lanes=(), bitmap=0b101)
    assert (reply.port, reply.dst_port) == (HOSTS[0].port, HOSTS[0].udp_port)
    (result, *_) = rack.send(1, rack.chunk(lanes=lanes(switch, 3)))
    want = tuple(
        (a + b + c) & MASK for a, b, c in zip(*(lanes(switch, i) for i in (1, 2, 3)), strict=True)
    )
    assert result.chunk.lanes == want  # the repeat added nothing


def test_a_repeat_after_completion_gets_the_result_alone(switch, lease):
    rack = lease(workers=2)
    rack.send(0, rack.chunk(lanes=lanes(switch, 1)))
    first = rack.send(1, rack.chunk(lanes=lanes(switch, 2)))
    (again,) = rack.send(1, rack.chunk(lanes=lanes(switch, 50)))
    assert again.chunk == first[0].chunk
    assert again.port == HOSTS[1].port
    assert again.dst_port == HOSTS[1].udp_port


def test_a_reply_is_labelled_from_the_slot(switch, lease):
    """The failure of published code: a reply labelled from the request returns another sum."""
    rack = lease(workers=2)
    for chunk in (0, 8):
        rack.send(0, rack.chunk(chunk=chunk, lanes=lanes(switch, chunk)))
        rack.send(1, rack.chunk(chunk=chunk, lanes=lanes(switch, chunk)))
    (again,) = rack.send(1, rack.chunk(chunk=8))
    assert again.chunk.chunk == 8


def test_a_late_duplicate_of_the_slots_former_chunk_is_stale(switch, lease, drops):
    rack = lease(workers=2)
    for rank in (0, 1):
        rack.send(rank, rack.chunk(chunk=0, lanes=lanes(switch, 1)))
    rack.send(0, rack.chunk(chunk=8, lanes=lanes(switch, 5)))
    assert rack.send(1, rack.chunk(chunk=0, lanes=lanes(switch, 1))) == []
    assert drops(DropReason.STALE) == 1
    (reply, _) = rack.send(1, rack.chunk(chunk=8, lanes=lanes(switch, 6)))
    want = tuple((a + b) & MASK for a, b in zip(lanes(switch, 5), lanes(switch, 6), strict=True))
    assert reply.chunk.lanes == want


def test_chunk_numbers_wrap(switch, lease, drops):
    rack = lease(workers=2)
    for chunk in (0xFFFFFFF8, 0, 8):
        assert rack.send(0, rack.chunk(chunk=chunk, lanes=lanes(switch, chunk))) == []
        assert len(rack.send(1, rack.chunk(chunk=chunk, lanes=lanes(switch, 1)))) == 2
    assert rack.send(0, rack.chunk(chunk=0xFFFFFFF8)) == []
    assert drops(DropReason.STALE) == 1


def test_a_restart_never_adds_to_lanes_of_the_former_epoch(switch, lease, drops):
    old = lease(workers=2)
    old.send(0, old.chunk(chunk=3, slot=3, lanes=lanes(switch, 1)))
    old.withdraw()
    new = lease(workers=2)
    assert old.send(0, old.chunk(chunk=3, slot=3)) == []
    assert drops(DropReason.STRANGER) == 1
    assert new.send(0, new.chunk(chunk=3, slot=3, lanes=lanes(switch, 7))) == []
    (reply, _) = new.send(1, new.chunk(chunk=3, slot=3, lanes=lanes(switch, 8)))
    want = tuple((a + b) & MASK for a, b in zip(lanes(switch, 7), lanes(switch, 8), strict=True))
    assert reply.chunk.lanes == want


def test_disagreeing_ranks_get_mismatch_and_no_sum(switch, lease):
    rack = lease(workers=2)
    rack.send(0, rack.chunk(fingerprint=0xAAAA, lanes=lanes(switch, 1)))
    replies = rack.send(1, rack.chunk(fingerprint=0xBBBB, lanes=lanes(switch, 2)))
    assert rack.to_all(replies)  # the rank that opened the slot waits for a sum that can never come
    for reply in replies:
        assert reply.chunk == rack.reply(
            kind=Kind.MISMATCH, fingerprint=0xAAAA, lanes=(), bitmap=0b01
        )


def test_two_jobs_do_not_affect_each_other(switch, lease):
    one = lease(workers=2, job=5, slot_base=16, key=1)
    two = lease(workers=2, job=6, slot_base=24, key=2)
    one.send(0, one.chunk(lanes=lanes(switch, 1)))
    two.send(0, two.chunk(lanes=lanes(switch, 100)))
    (first, _) = one.send(1, one.chunk(lanes=lanes(switch, 2)))
    (second, _) = two.send(1, two.chunk(lanes=lanes(switch, 200)))
    assert first.chunk.lanes[0] == 3
    assert second.chunk.lanes[0] == 300


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": 0xFEED_0002}, DropReason.STRANGER),
        ({"key": Lease.reply_key}, DropReason.STRANGER),
        ({"epoch": 0}, DropReason.STRANGER),
        ({"epoch": 0xFFFFFFFF}, DropReason.STRANGER),
        ({"job": 7}, DropReason.STRANGER),
        ({"slot": 8}, DropReason.OUT_OF_LEASE),
        ({"slot": 0xFFFF}, DropReason.OUT_OF_LEASE),
        ({"version": packet.VERSION - 1}, DropReason.WRONG_VERSION),
        ({"version": packet.VERSION + 1}, DropReason.WRONG_VERSION),
        ({"readers": readers(Readers.ALL, 1)}, DropReason.WRONG_READERS),
        ({"readers": readers(Readers.ONLY, 2)}, DropReason.WRONG_READERS),
        ({"readers": readers(Readers.ONLY, 63)}, DropReason.WRONG_READERS),
        ({"readers": readers(Readers.ALL_BUT, 2)}, DropReason.WRONG_READERS),
        ({"readers": 3 << packet.READER_BITS}, DropReason.WRONG_READERS),
        ({"readers": 3 << packet.READER_BITS, "lanes": ()}, DropReason.WRONG_READERS),
        ({"version": 2, "lanes": ()}, DropReason.WRONG_VERSION),
        ({"op": 2, "lanes": ()}, DropReason.WRONG_OP),
        ({"kind": Kind.RESULT, "lanes": ()}, DropReason.FORGED_REPLY),
        ({"op": 2}, DropReason.WRONG_OP),
        ({"kind": Kind.RESULT}, DropReason.FORGED_REPLY),
        ({"kind": Kind.WAIT}, DropReason.FORGED_REPLY),
        ({"kind": Kind.MISMATCH}, DropReason.FORGED_REPLY),
        ({"kind": 0}, DropReason.FORGED_REPLY),
        ({"kind": 255}, DropReason.FORGED_REPLY),
    ],
)
def test_wrong_packets_are_dropped_and_counted_by_reason(switch, lease, drops, change, reason):
    rack = lease(workers=2)
    assert rack.send(0, rack.chunk(**change)) == []
    assert {r: drops(r) for r in DropReason} == dict.fromkeys(DropReason, 0) | {reason: 1}
    # and the slot was not touched
    rack.send(0, rack.chunk(lanes=lanes(switch, 1)))
    (reply, _) = rack.send(1, rack.chunk(lanes=lanes(switch, 2)))
    want = tuple((a + b) & MASK for a, b in zip(lanes(switch, 1), lanes(switch, 2), strict=True))
    assert reply.chunk.lanes == want


def test_a_rank_cannot_be_forged(switch, lease, drops):
    """Rank 1's address from rank 0's port, and rank 0's port with another UDP port."""
    rack = lease(workers=2)
    one, two = rack.lease.hosts
    assert rack.send(Host(one.port, two.mac, two.ip, two.udp_port), rack.chunk()) == []
    assert rack.send(Host(one.port, one.mac, one.ip, 9), rack.chunk()) == []
    assert drops(DropReason.STRANGER) == 2


def test_wrong_lengths_are_dropped(switch, lease, drops):
    rack = lease(workers=2)
    whole = rack.chunk().payload()
    sender = rack.lease.hosts[0]
    bare = whole[: packet.HEADER_BYTES]
    for payload in (whole[:-4], whole + bytes(4), whole + bytes(300), bare + bytes(4), bare + b"x"):
        assert switch.inject(sender.port, frame(sender, payload)) == []
    for trailer in (b"x", whole[packet.HEADER_BYTES :]):
        for payload in (whole, bare):
            assert switch.inject(sender.port, frame(sender, payload) + trailer) == []
    torn = bytearray(frame(sender, whole))  # bare for UDP, with lanes for IPv4
    torn[38:40] = (packet.UDP_BYTES + len(bare)).to_bytes(2)
    assert switch.inject(sender.port, bytes(torn)) == []
    assert drops(DropReason.WRONG_LENGTH) == 10


def test_truncated_frames_are_dropped(switch, lease, drops):
    rack = lease(workers=2)
    sender = rack.lease.hosts[0]
    whole = frame(sender, rack.chunk().payload())
    cuts = (1, 13, 20, 33, 40, 45, 69, 70, len(whole) - 1)
    for cut in cuts:
        assert switch.inject(sender.port, whole[:cut]) == []
    assert drops(DropReason.TRUNCATED) == len(cuts)


def test_a_result_has_a_checksum_where_the_contribution_had_one(switch, lease):
    rack = lease(workers=3)
    chunk = rack.chunk(lanes=lanes(switch, 0xFFFF_0001))

    def send(rank, checksummed):
        replies = rack.send(rank, chunk, checksummed)
        return {(reply.chunk.kind, reply.checksummed) for reply in replies}

    assert send(0, True) == set()
    assert send(0, True) == {(Kind.WAIT, False)}
    assert send(1, False) == set()
    assert send(2, True) == {(Kind.RESULT, True)}
    assert send(0, False) == {(Kind.RESULT, False)}
    assert send(0, True) == {(Kind.RESULT, True)}
    later = chunk.but(chunk=1)
    assert rack.send(0, later, True) == []
    assert [r.checksummed for r in rack.send(1, later.but(fingerprint=1), True)] == [False] * 3
    rack.send(1, later, True)
    assert [r.checksummed for r in rack.send(2, later, False)] == [False] * 3


def test_a_reply_carries_another_key_than_contributions(switch, lease):
    """RESULT (multicast and alone), WAIT and MISMATCH: none shows the key for contributions."""
    rack = lease(workers=2)
    chunk = rack.chunk(lanes=lanes(switch, 3))
    before = rack.event(Event.CLAIMED)
    rack.send(0, chunk)
    replies = rack.send(0, chunk)
    replies += rack.send(1, chunk.but(fingerprint=1))
    replies += rack.send(1, chunk)
    replies += rack.send(1, chunk)
    kinds = [Kind.WAIT, Kind.MISMATCH, Kind.MISMATCH, Kind.RESULT, Kind.RESULT, Kind.RESULT]
    assert [each.chunk.kind for each in replies] == kinds
    assert {each.chunk.key for each in replies} == {rack.lease.reply_key} != {rack.lease.key}
    # Neither does the key of another job on the same ports open anything.
    other = lease(workers=2, job=6, slot_base=24, key=0xFEED_0003)
    for key in (other.lease.key, rack.lease.reply_key):
        assert rack.send(0, chunk.but(chunk=1, key=key)) == []
        assert rack.send(1, chunk.but(chunk=1, key=key)) == []
    assert rack.event(Event.CLAIMED) == before + 1


def bits_of(switch: Target, frame_bytes: int) -> list[int]:
    """The bits to flip: all, or a sample on a switch that is slow."""
    every = list(range(8 * frame_bytes))
    if isinstance(switch, Soft) and switch.lanes == 64:
        return every
    heads = 8 * (42 + packet.HEADER_BYTES)
    draw = random.Random(7)
    count = 60 if isinstance(switch, Soft) else 15
    return sorted(draw.sample(every[:heads], count) + draw.sample(every[heads:], count))


def test_no_flipped_bit_makes_a_wrong_sum(switch, lease, drops):
    """A damaged contribution with a checksum is dropped, or has the effect of the right one."""
    rack = lease(workers=2)
    sender = rack.lease.hosts[0]
    mine, other = lanes(switch, 0x0101_0001), lanes(switch, 5)
    want = tuple((a + b) & MASK for a, b in zip(mine, other, strict=True))
    damaged = 0
    bits = bits_of(switch, len(frame(sender, rack.chunk().payload())))
    for number, bit in enumerate(bits):
        chunk = rack.chunk(slot=number % 8, chunk=number, lanes=mine)
        good = frame(sender, chunk.payload(), checksummed=True)
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        before = drops(DropReason.DAMAGED)
        for port, data in switch.inject(sender.port, bytes(bad)):
            assert data[:12] == bytes(bad[:12]), f"bit {bit}: port {port} gets a reply"
        damaged += drops(DropReason.DAMAGED) - before
        switch.inject(sender.port, good)  # sent again, as there was no answer
        replies = rack.send(1, chunk.but(lanes=other), True)
        assert rack.to_all(replies), f"bit {bit}: not complete"
        assert {reply.chunk.lanes for reply in replies} == {want}, f"bit {bit}: a wrong sum"
        assert {reply.checksummed for reply in replies} == {True}
    # All bits of the lanes, and those that no table or length check finds.
    assert damaged >= sum(bit >= 8 * (42 + packet.HEADER_BYTES) for bit in bits) > 0


def test_every_value_of_a_right_checksum_is_accepted(switch, lease, drops):
    """Also 0xFFFF, which UDP sends for 0, and none at all."""
    rack = lease(workers=1)
    sender = rack.lease.hosts[0]
    chunk = rack.chunk(lanes=lanes(switch, 77))
    plain = frame(sender, chunk.payload(), checksummed=True)
    # The addition to the last lane that makes the sum of all 0xFFFF.
    missing = int.from_bytes(plain[40:42])
    last = (chunk.lanes[-1] & 0xFFFF) + missing
    last = (last & 0xFFFF) + (last >> 16)
    chunk = chunk.but(lanes=(*chunk.lanes[:-1], chunk.lanes[-1] & 0xFFFF_0000 | last))
    made = frame(sender, chunk.payload(), checksummed=True)
    assert made[40:42] == b"\xff\xff"
    for checksum in (b"\xff\xff", b"\0\0"):
        assert len(switch.inject(sender.port, made[:40] + checksum + made[42:])) == 1
    for checksum in (b"\0\1", b"\xff\xfe"):
        assert switch.inject(sender.port, made[:40] + checksum + made[42:]) == []
    assert drops(DropReason.DAMAGED) == 2


def test_a_bad_ip_checksum_is_dropped(switch, lease, drops):
    rack = lease(workers=2)
    sender = rack.lease.hosts[0]
    whole = bytearray(frame(sender, rack.chunk().payload()))
    whole[24] ^= 1
    assert switch.inject(sender.port, bytes(whole)) == []
    assert drops(DropReason.BAD_CHECKSUM) == 1


def test_the_switchs_own_address_cannot_be_borrowed(switch, drops):
    liar = Host(1, HOSTS[0].mac, SWITCH_IP, packet.UDP_PORT)
    data = frame(liar, b"x" * 40, dst_ip=HOSTS[1].ip, dst_mac=HOSTS[1].mac, dst_port=40002)
    assert switch.inject(1, data) == []
    assert drops(DropReason.SPOOFED_SOURCE) == 1


def test_a_worker_without_an_address_is_undeliverable(switch, lease, drops):
    rack = lease(workers=2)
    switch.remove("deliver", {"job": rack.lease.job, "worker": 1})
    rack.send(0, rack.chunk())
    replies = rack.send(1, rack.chunk())
    assert [r.port for r in replies] == [HOSTS[0].port]
    assert drops(DropReason.UNDELIVERABLE) == 1
    switch.insert(
        "deliver",
        {"job": rack.lease.job, "worker": 1},
        "deliver_to",
        {"mac": 0, "ip": 0, "udp_port": 0},
    )
