"""An attacker's frames against the switch program: no state of another's job changes.

On the embedded switch, in memory, after every single frame: the registers of the victim's slots,
its counters, and what leaves. BMv2 tells no registers: there it is the counters, what leaves, and
that every sum of the victim stays right. ``WIRESUM_ATTACKS`` sets how many frames are forged.
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import bmv2
from support.forger import Forger, Scene
from support.frames import SWITCH_IP, SWITCH_MAC, Host, host
from support.soft import Soft
from support.targets import Lease, Target, install_hosts, install_switch, remove_hosts
from support.victim import Victim, harm
from wiresum import p4
from wiresum.p4 import packet
from wiresum.p4.packet import Event

PORTS = [1, 2, 3, 4]
FRAMES = int(os.environ.get("WIRESUM_ATTACKS", "6000"))
FRAMES_BMV2 = FRAMES // 15
EPOCHS = itertools.count(100, 2)
WORKERS = tuple(host(number) for number in (1, 2, 3))
ATTACKER = host(4)
SEEDS = (1, 2)


@pytest.fixture(scope="module", params=["soft", pytest.param("bmv2", marks=pytest.mark.bmv2)])
def switch(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The program with 64 lanes on each switch that is here."""
    program = p4.program(64)
    if request.param == "soft":
        soft = Soft(program)
        install_switch(soft, PORTS)
        yield soft
        return
    if not bmv2.available():
        pytest.skip(f"{bmv2.BINARY} is not on PATH: attacked on the softswitch only")
    with tempfile.TemporaryDirectory() as directory:
        target = bmv2.Bmv2(program, Path(directory))
        try:
            install_switch(target, PORTS)
            yield target
        finally:
            target.close()


def state_of(switch: Target, lease: Lease) -> list[object]:
    """All that the switch holds for a lease and can tell."""
    state: list[object] = [
        switch.counter("events", lease.job * packet.EVENTS + event) for event in Event
    ]
    if isinstance(switch, Soft):
        for name in ("slot_epoch", "slot_chunk", "slot_fingerprint", "slot_bitmap"):
            state.append(switch.switch.registers(name, lease.slot_base, lease.slots))
        lanes = switch.lanes
        state.append(
            switch.switch.dataplane.register_read(
                "lanes", lease.slot_base * lanes, lease.slots * lanes
            )
        )
        for rank in range(len(lease.hosts)):
            state.append(switch.switch.direct_counter("membership", lease.match(rank)))
    return state


class Attack:
    """A victim's job, an attacker, and the state that must not change."""

    def __init__(self, switch: Target, seed: int, *, tenant: bool) -> None:
        first = next(EPOCHS)
        self.switch = switch
        victim = Lease(5, first, 0xFEED_0001_0BAD_CAFE, 64, 8, WORKERS)
        ports = (40004, 40005)
        ranks = tuple(Host(4, ATTACKER.mac, ATTACKER.ip, port) for port in ports)
        # The slots next to the victim's.
        own = Lease(6, first + 1, 0x0B0E, 72, 8, ranks, 0x0B0F) if tenant else None
        self.scene = Scene(switch.lanes, victim, ATTACKER, own, chunk=2**32 - 5)
        self.forger = Forger(self.scene, seed)
        self.victim = Victim(switch, self.scene, seed, self.strike)
        self.struck = 0
        self.burst = 0

    def strike(self) -> None:
        """Forge a burst of frames."""
        for _ in range(self.burst):
            self.one(self.forger.frame())

    def one(self, frame: bytes) -> None:
        """One frame from the attacker's port must affect no other host."""
        before = state_of(self.switch, self.scene.victim)
        out = self.switch.inject(ATTACKER.port, frame)
        self.struck += 1
        found = harm(self.scene, frame, out)
        if found is None and state_of(self.switch, self.scene.victim) != before:
            found = "the victim's state has changed"
        assert found is None, f"{found}: {frame.hex()}"

    def run(self, frames: int, burst: int) -> None:
        """The victim reduces; between any two frames of its, the attacker sends ``burst``."""
        while self.struck < frames:
            self.burst = 0 if self.struck == 0 else burst  # the first chunks give it something
            self.victim.step()
            if self.struck == 0:
                self.victim.step()
                self.burst = burst
                self.strike()
        self.burst = 0
        for _ in range(2 * self.scene.victim.slots):
            self.victim.step()


@pytest.fixture
def attack(switch: Target) -> Iterator[Callable[..., Attack]]:
    """Makes attacks; takes all leases off the switch at the end."""
    made: list[Attack] = []

    def make(seed: int, *, tenant: bool = False) -> Attack:
        new = Attack(switch, seed, tenant=tenant)
        made.append(new)
        new.scene.victim.install(switch)
        if new.scene.own is not None:
            new.scene.own.install(switch)
        return new

    install_hosts(switch, WORKERS)
    yield make
    for each in made:
        each.scene.victim.withdraw(switch)
        if each.scene.own is not None:
            each.scene.own.withdraw(switch)
    remove_hosts(switch, WORKERS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tenant", [False, True], ids=["outsider", "tenant"])
def test_forged_frames_change_nothing(switch, attack, seed, tenant):
    attacker = attack(seed, tenant=tenant)
    if isinstance(switch, Soft):
        attacker.run(FRAMES // 4, burst=6)
    else:
        attacker.run(FRAMES_BMV2 // 4, burst=6)


@pytest.fixture
def bare() -> Soft:
    """A switch in memory without a single entry."""
    return Soft(p4.program(64))


@pytest.mark.parametrize("left_out", ["own_source", "hosts", "ingress port"])
def test_the_forger_finds_each_missing_defence(bare, left_out):
    """The forger must find each defence that is disabled: the test above can fail."""
    ip = int.from_bytes(SWITCH_IP)
    bare.insert("addresses", {"ip": ip}, "switch_address", {"mac": int.from_bytes(SWITCH_MAC)})
    bare.group(packet.FLOOD_GROUP, [(port, port) for port in PORTS])
    if left_out != "own_source":
        bare.insert("own_source", {"ip": ip}, "spoofed_source", {})
    if left_out != "hosts":
        install_hosts(bare, WORKERS)
    attacker = Attack(bare, seed=1, tenant=False)
    attacker.scene.victim.install(bare)
    if left_out == "ingress port":
        for rank in range(len(WORKERS)):
            match = attacker.scene.victim.match(rank)
            entry = bare.switch.table_entries("membership")[rank]
            bare.insert("membership", match | {"ingress_port": 4}, "member", entry.params)
    with pytest.raises(AssertionError, match=r"port|changed|chunk"):
        attacker.run(2000, burst=6)
