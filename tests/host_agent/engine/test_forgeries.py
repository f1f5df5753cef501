"""Packets that the engine did not ask for: dropped, each under its own name, never applied."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_rig import KEY, Rig, eventually, normal

from reference_switch import Address, Faults, Header
from wiresum.p4 import packet
from wiresum.p4.packet import Kind, Op

LANES = 64


class Held:
    """A rig whose results are held back, so that forgeries meet chunks in flight."""

    def __init__(self) -> None:
        self.hold = True
        self.results: list[tuple[bytes, Address]] = []
        self.rig = Rig(2, lanes=LANES, faults=Faults(intercept=self._intercept))
        self.arrays = normal(2, 2000, seed=3)

    def _intercept(self, data: bytes, peer: Address, direction: str) -> bool:
        if self.hold and direction == "out":
            self.results.append((data, peer))
            return True
        return False

    def genuine(self) -> bytes:
        """The first exponent result on its way to rank 0."""
        eventually(lambda: any(to == self.rig.addresses[0] for _, to in self.results), "a result")
        return next(data for data, to in self.results if to == self.rig.addresses[0])


def _with(data: bytes, **fields: int) -> bytes:
    return replace(Header.unpack(data), **fields).pack() + data[packet.HEADER_BYTES :]


FORGERIES: dict[str, list[Callable[[bytes], bytes]]] = {
    "drops_version": [
        lambda d: _with(d, version=packet.VERSION - 1),
        lambda d: _with(d, version=packet.VERSION + 1),
    ],
    "drops_kind": [lambda d: _with(d, kind=Kind.CONTRIBUTION), lambda d: _with(d, kind=9)],
    "drops_job": [lambda d: _with(d, job=4)],
    "drops_epoch": [lambda d: _with(d, epoch=6), lambda d: _with(d, epoch=8)],
    # Who has seen a contribution, and no reply, cannot make one.
    "drops_key": [lambda d: _with(d, key=1), lambda d: _with(d, key=KEY)],
    "drops_op": [lambda d: _with(d, op=Op.SUM), lambda d: _with(d, op=7)],
    "drops_slot": [
        lambda d: _with(d, slot=1),
        lambda d: _with(d, slot=64),
        lambda d: _with(d, slot=65535),
    ],
    "drops_chunk": [
        lambda d: _with(d, chunk=1),
        lambda d: _with(d, chunk=2**31),
        lambda d: _with(d, chunk=2**32 - 1),
    ],
    "drops_fingerprint": [lambda d: _with(d, fingerprint=1)],
    "drops_readers": [lambda d, r=each: _with(d, readers=r) for each in (1, 1 << 6, 2 << 6 | 1)],
    "drops_length": [
        lambda d: d[:-1],
        lambda d: d + b"\0",
        lambda d: d[:20],
        lambda d: b"",
        lambda d: d[: packet.HEADER_BYTES],
        lambda d: _with(d, kind=Kind.WAIT),
        lambda d: _with(d, kind=Kind.MISMATCH),
    ],
}


@pytest.mark.parametrize("counter", FORGERIES)
def test_forgeries_from_the_switchs_address(counter: str) -> None:
    held = Held()
    rig = held.rig
    given = [each.copy() for each in held.arrays]
    with rig:
        tickets = rig.start(held.arrays)
        genuine = held.genuine()
        # Payload of a forged result: exponents that would spoil the sum.
        spoiled = genuine[: packet.HEADER_BYTES] + b"\x7f" * (4 * LANES)
        for forge in FORGERIES[counter]:
            rig.switch.send(forge(spoiled), rig.addresses[0])
        wanted = len(FORGERIES[counter])
        eventually(
            lambda: rig.engines[0].stats()[counter] == wanted, f"{counter} to count {wanted}"
        )
        assert rig.engines[0].stats()["results"] == 0
        held.hold = False
        rig.finish(tickets)
    for array in held.arrays:
        np.testing.assert_allclose(array, given[0] + given[1], rtol=1e-5, atol=1e-6)


def test_a_genuine_looking_result_from_elsewhere() -> None:
    held = Held()
    rig = held.rig
    with rig, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        tickets = rig.start(held.arrays)
        genuine = held.genuine()
        stranger.bind(("127.0.0.2", 0))  # another address
        stranger.sendto(genuine, rig.addresses[0])
        rig.sockets[1].sendto(genuine, rig.addresses[0])  # right address, wrong port
        eventually(lambda: rig.engines[0].stats()["drops_foreign"] == 2, "both dropped")
        assert rig.engines[0].stats()["results"] == 0
        held.hold = False
        rig.finish(tickets)


def test_duplicates_and_late_replies() -> None:
    replies: list[bytes] = []

    def record(data: bytes, peer: Address, direction: str) -> bool:
        if direction == "out" and peer == rig.addresses[0]:
            replies.append(data)
        return False

    patient = {"rto_initial_s": 5.0, "rto_min_s": 5.0, "rto_max_s": 9.0}  # nothing is sent twice
    rig = Rig(2, lanes=LANES, slots=16, faults=Faults(intercept=record), **patient)
    with rig:
        rig.finish(rig.start(normal(2, 3000)))
        before: dict[str, Any] = rig.engines[0].stats()
        recorded = [data for data in replies if data[1] == Kind.RESULT]
        for data in recorded:
            rig.switch.send(data, rig.addresses[0])
        late = recorded[0][: packet.HEADER_BYTES] + bytes(packet.CONTRIBUTORS_BYTES)
        rig.switch.send(_with(late, kind=Kind.WAIT), rig.addresses[0])
        rig.switch.send(_with(late, kind=Kind.MISMATCH), rig.addresses[0])
        eventually(lambda: rig.engines[0].stats()["drops_late"] == 2, "late WAIT and MISMATCH")
        after = rig.engines[0].stats()
        assert after["duplicates"] - before["duplicates"] == len(recorded)
        assert after["results"] == before["results"]
        rig.finish(rig.start(normal(2, 3000)))  # and none of it did any harm
