"""The Python model of the switch, which tests of engines use, does what the program does."""

import itertools
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from reference_switch import Lease as ReferenceLease
from reference_switch import ReferenceSwitch
from support.examples import examples
from support.frames import Chunk, delivered, frame
from support.leased import HOSTS, lanes
from support.targets import Lease
from wiresum.p4 import packet
from wiresum.p4.packet import DropReason, Event, Kind, Op, Readers

JOB, KEY, SLOT_BASE, SLOTS = 77, 0xFEED_0077, 100, 2
EPOCHS = itertools.count(3_000_000)
PLAIN = ("chunk", "slot", "fingerprint", "op", "version", "kind")

contributions = st.fixed_dictionaries(
    {
        "rank": st.sampled_from([0, 0, 0, 1, 1, 1, 2, 2, 2, 3]),  # 3: rank 0 with another key
        "chunk": st.sampled_from([0, 1, 1, 1, 2, 3, 0xFFFFFFFE]),
        "slot": st.sampled_from([0, 0, 0, 0, 1, SLOTS]),
        "fingerprint": st.sampled_from([5, 5, 5, 5, 6]),
        "op": st.sampled_from([Op.SUM, Op.SUM, Op.SUM, Op.MAX, Op.MAX, 2]),
        "version": st.sampled_from([packet.VERSION] * 7 + [2]),
        "kind": st.sampled_from([Kind.CONTRIBUTION] * 7 + [Kind.RESULT]),
        "who": st.sampled_from([*Readers, *Readers, *Readers, 3]),
        "reader": st.sampled_from([0, 0, 0, 1, 2, 3]),
        "value": st.one_of(st.none(), st.integers(0, 2**32 - 1)),  # None: bare
        "more": st.sampled_from([0] * 7 + [1, 8]),  # bytes behind its end
    }
)


@settings(max_examples=examples(60), deadline=None)
@given(steps=st.lists(contributions, max_size=60))
def test_the_reference_switch_does_what_the_program_does(soft_switch, steps):
    epoch = next(EPOCHS)
    lease = Lease(JOB, epoch, KEY, SLOT_BASE, SLOTS, HOSTS)
    lease.install(soft_switch)
    addresses = tuple((socket.inet_ntoa(host.ip), host.udp_port) for host in HOSTS)
    oracle = ReferenceSwitch(lanes=soft_switch.lanes)
    oracle.leases.append(
        ReferenceLease(JOB, epoch, KEY, lease.reply_key, SLOT_BASE, SLOTS, addresses)
    )

    def counts():
        drops = {reason: soft_switch.counter("drops", reason) for reason in DropReason}
        events = {e: soft_switch.counter("events", JOB * packet.EVENTS + e) for e in Event}
        return drops, events

    before = counts()
    try:
        for step in steps:
            value, rank = step["value"], step["rank"]
            payload = Chunk(
                job=JOB, epoch=epoch, key=KEY if rank < len(HOSTS) else KEY + 1,
                readers=step["who"] << packet.READER_BITS | step["reader"],
                lanes=() if value is None else lanes(soft_switch, value),
                **{name: step[name] for name in PLAIN},
            ).payload() + bytes(step["more"])  # fmt: skip
            sender = HOSTS[rank % len(HOSTS)]
            said = []
            for out in soft_switch.inject(sender.port, frame(sender, payload)):
                reply = delivered(*out)
                address = (socket.inet_ntoa(reply.dst_ip), reply.dst_port)
                said.append((address, reply.chunk.payload()))
            assert sorted(said) == sorted(oracle.handle(payload, addresses[HOSTS.index(sender)]))
        after = counts()
        for reason in DropReason:
            assert after[0][reason] - before[0][reason] == oracle.drops[reason], reason.name
        for event in Event:
            assert after[1][event] - before[1][event] == oracle.events[JOB, event], event.name
    finally:
        lease.withdraw(soft_switch)
