"""shm ports: real shared memory, a real switch process, peers that may be honest or not."""

import fcntl
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from echo_program import BACK, NOT_IP, PORT_2
from shm_peer import (
    CONTROL_BYTES,
    LIMIT_S,
    MAGIC,
    TO_SWITCH_HEAD,
    TO_SWITCH_TAIL,
    TO_WORKER_HEAD,
    Refused,
    ShmPeer,
)

from support.switch_process import SwitchProcess
from wiresum.softswitch.ports import PortError, parse_port

Serve = Callable[..., SwitchProcess]
SEALS = 0x0002 | 0x0004  # F_SEAL_SHRINK, F_SEAL_GROW


@pytest.fixture
def switch(serve: Serve, path: Path) -> SwitchProcess:
    return serve("--port", "1=udp:127.0.0.1:0", "--port", f"2=shm:{path}")


@pytest.fixture
def peers(path: Path) -> Iterator[Callable[..., ShmPeer]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(ShmPeer(path, **options))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def counts(switch: SwitchProcess) -> dict[str, int]:
    return switch.stats()["2"]


def descriptors(switch: SwitchProcess, peer: ShmPeer | None = None) -> int:
    """How many the switch holds; ``peer`` came last: its Welcome may be under way still."""
    if peer is not None:
        peer.send(bytes([BACK]))
        assert peer.receive() == bytes([BACK])
    return len(list(Path(f"/proc/{switch.process.pid}/fd").iterdir()))


def test_datagrams_come_back(switch: SwitchProcess, peers: Callable[..., ShmPeer]) -> None:
    peer, other = peers(payload_bytes=9216), peers()
    assert switch.facts["ports"]["2"].startswith("shm:")
    assert peer.switch_ip == "127.0.0.1"  # the udp port's
    assert peer.seals() & SEALS == SEALS
    for length in (0, 1, 2, 28, 29, 1052, 1500, 9000, 9216):
        payload = (bytes([BACK]) + os.urandom(length))[:length]
        peer.send(payload)
        assert peer.receive() == payload
    other.send(bytes([BACK]) + b"other")
    assert other.receive() == bytes([BACK]) + b"other"
    assert not peer.waiting()
    stats = counts(switch)
    assert stats["frames_in"] == stats["frames_out"] == 10
    assert stats["bytes_in"] == stats["bytes_out"]
    assert not any(count for name, count in stats.items() if name.startswith("drop"))


def test_many_rounds_of_the_ring(switch: SwitchProcess, peers: Callable[..., ShmPeer]) -> None:
    peer = peers(payload_bytes=100, records=16)
    assert peer.records == 16
    for round_ in range(200):
        batch = [bytes([BACK, round_, n]) * (n + 1) for n in range(11)]
        peer.send(*batch)
        assert [peer.receive() for _ in batch] == batch


def test_the_switch_assigns_addresses(switch: SwitchProcess, peers: Callable[..., ShmPeer]) -> None:
    """A worker's bytes cannot change its address; frames reach the addressed worker."""
    all_peers = [peers() for _ in range(5)]
    addresses = [peer.address for peer in all_peers]
    assert len({ip for ip, _ in addresses}) == 5
    assert all(ip.startswith("127.77.") for ip, _ in addresses)
    for number, peer in enumerate(all_peers):
        # It looks like a whole frame of another worker, but it is only payload here.
        peer.send(bytes([BACK, number]) + b"\x45" * 42)
    for number, peer in enumerate(all_peers):
        assert peer.receive()[1] == number
        assert not peer.waiting()
    # A later worker never gets the address of one that has gone.
    all_peers.pop().close()
    assert peers().address not in addresses


def test_frames_for_unknown_addresses_are_dropped(
    switch: SwitchProcess, peers: Callable[..., ShmPeer]
) -> None:
    peer = peers()
    # Towards the switch's own address, out of the shm port: there is no such worker.
    peer.send(bytes([PORT_2]), bytes([NOT_IP]))
    until(lambda: counts(switch)["drop_out_failed"] == 1)
    until(lambda: counts(switch)["drop_out_not_udp"] == 1)


@pytest.mark.parametrize("length", [2049, 0xFFFFFFFF, 0x80000000])
def test_a_length_beyond_the_record(
    switch: SwitchProcess, peers: Callable[..., ShmPeer], length: int
) -> None:
    peer = peers(payload_bytes=2048)
    peer.send(bytes([BACK]), length=length)
    peer.send(bytes([BACK]) + b"after it")
    assert peer.receive() == bytes([BACK]) + b"after it"
    assert counts(switch)["drop_in_malformed"] == 1


@pytest.mark.parametrize("tail", [65, 1 << 31, 0xFFFFFFFF])
def test_an_index_beyond_the_ring(
    switch: SwitchProcess, peers: Callable[..., ShmPeer], tail: int
) -> None:
    honest, peer = peers(), peers(records=64)
    peer.write_word(TO_SWITCH_TAIL, tail)
    peer.wake()
    assert peer.is_cut_off()
    honest.send(bytes([BACK]))
    assert honest.receive() == bytes([BACK])
    assert counts(switch)["drop_in_malformed"] == 1


def test_a_head_that_was_never_written(
    switch: SwitchProcess, peers: Callable[..., ShmPeer]
) -> None:
    """The switch decides by its own state whether the ring is full."""
    peer = peers(records=16)
    peer.write_word(TO_WORKER_HEAD, 12345)
    peer.send(*[bytes([BACK])] * 16)
    until(lambda: peer.read_word(TO_SWITCH_HEAD) == 16)
    peer.send(bytes([BACK]))
    assert peer.is_cut_off()
    other = peers()
    other.send(bytes([BACK]))
    assert other.receive() == bytes([BACK])


def test_garbage_in_the_shared_memory_does_not_stop_the_switch(
    switch: SwitchProcess, peers: Callable[..., ShmPeer]
) -> None:
    """Random bytes over the whole memory, again and again: the switch serves the others."""
    honest = peers()
    for _ in range(20):
        with peers(records=16, payload_bytes=64) as peer:
            assert peer.memory is not None
            for _ in range(20):
                peer.memory[:] = os.urandom(len(peer.memory))
                peer.wake()
            peer.memory[CONTROL_BYTES:] = os.urandom(len(peer.memory) - CONTROL_BYTES)
        honest.send(bytes([BACK]) + b"still here")
        assert honest.receive() == bytes([BACK]) + b"still here"


def test_a_worker_cannot_make_the_switch_wait(
    switch: SwitchProcess, peers: Callable[..., ShmPeer]
) -> None:
    """It never reads its results, nor its wake-ups; its eventfd is full and blocks."""
    peer, honest = peers(records=16), peers()
    os.set_blocking(peer.wake_fd, False)
    os.write(peer.wake_fd, (0xFFFFFFFFFFFFFFFE - 1).to_bytes(8, sys.byteorder))
    os.set_blocking(peer.wake_fd, True)
    for number in range(1, 101):
        for at in range(16):
            peer.write_record(peer.sent + at, bytes([BACK]))
        peer.sent += 16
        peer.write_word(320, 1)  # it claims to sleep, so the switch tries to wake it each time
        peer.write_word(TO_SWITCH_TAIL, peer.sent)
        honest.send(bytes([BACK, number]))
        assert honest.receive() == bytes([BACK, number])
        until(lambda: peer.read_word(TO_SWITCH_HEAD) == peer.sent)
    assert counts(switch)["drop_out_full"] == 99 * 16
    assert peer.waiting() == 16


def test_the_memory_keeps_its_size(switch: SwitchProcess, peers: Callable[..., ShmPeer]) -> None:
    peer = peers()
    for size in (0, 2 * os.fstat(peer.memory_fd).st_size):
        with pytest.raises(PermissionError):
            os.ftruncate(peer.memory_fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(peer.memory_fd, fcntl.F_ADD_SEALS, 0x0008)


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"x",
        bytes(12),
        MAGIC.to_bytes(4, sys.byteorder) + bytes(8),
        MAGIC.to_bytes(4, sys.byteorder) + bytes(28),
        MAGIC.to_bytes(4, sys.byteorder) + b"\xff" * 28,
        MAGIC.to_bytes(4, sys.byteorder) * 100,
    ],
)
def test_another_hello_is_refused(
    switch: SwitchProcess, peers: Callable[..., ShmPeer], hello: bytes
) -> None:
    if hello:
        with pytest.raises(Refused):
            peers(hello=hello)
    peer = peers()
    peer.socket.send(b"again")
    assert peer.is_cut_off()


# Sends and receives until it is killed; goes on only while its records fit the ring, for a
# worker that overruns it is cut off (test_an_index_beyond_the_ring).
BUSY_WORKER = """
import sys
from shm_peer import TO_SWITCH_HEAD, ShmPeer
peer = ShmPeer(sys.argv[1])
while True:
    if peer.sent - peer.read_word(TO_SWITCH_HEAD) <= peer.records - 7:
        peer.send(*[bytes([1]) * 100] * 7)
    for _ in range(peer.waiting()):
        peer.receive()
"""


def test_killed_workers_leave_nothing(
    switch: SwitchProcess, path: Path, peers: Callable[..., ShmPeer]
) -> None:
    honest = peers()
    before = descriptors(switch, honest)
    for _ in range(3):
        frames = counts(switch)["frames_out"]
        child = subprocess.Popen(
            [sys.executable, "-c", BUSY_WORKER, str(path)], cwd=Path(__file__).parent
        )
        try:
            until(lambda frames=frames: counts(switch)["frames_out"] > frames + 1000)
        finally:
            child.kill()
            child.wait()
    until(lambda: descriptors(switch) == before)
    maps = Path(f"/proc/{switch.process.pid}/maps")
    until(lambda: maps.read_text().count("memfd:wiresum-shm") == 1)
    assert counts(switch)["drop_in_malformed"] == 0
    honest.send(bytes([BACK]))
    assert honest.receive() == bytes([BACK])


def test_a_full_port_refuses_connections(serve: Serve, path: Path) -> None:
    switch = serve("--port", f"2=shm:{path}?net=10.9.8.0/29")
    with ExitStack() as stack:
        made = [stack.enter_context(ShmPeer(path)) for _ in range(5)]
        assert {peer.switch_ip for peer in made} == {"10.9.8.1"}
        with pytest.raises(Refused):
            ShmPeer(path)
        before = descriptors(switch, made[-1])
        made[0].close()
        until(lambda: descriptors(switch) == before - 2)
        made[1].send(bytes([BACK]))
        assert made[1].receive() == bytes([BACK])
        again = stack.enter_context(ShmPeer(path))
        assert again.address[0] == made[0].address[0] != again.address[1]


def test_a_silent_connection_loses_its_place(serve: Serve, path: Path) -> None:
    switch = serve("--port", f"2=shm:{path}?net=10.9.8.0/29")
    with ExitStack() as stack:
        honest = stack.enter_context(ShmPeer(path))
        before = descriptors(switch, honest)
        silent = [
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            for _ in range(4)
        ]
        for each in silent:
            each.settimeout(LIMIT_S)
            each.connect(str(path))
        with pytest.raises(Refused):
            ShmPeer(path)
        for each in silent:
            assert each.recv(1) == b""
        until(lambda: descriptors(switch) == before)
        for _ in silent:
            peer = stack.enter_context(ShmPeer(path))
            peer.send(bytes([BACK]))
            assert peer.receive() == bytes([BACK])
        honest.send(bytes([BACK]))
        assert honest.receive() == bytes([BACK])


def test_the_files_mode_and_its_end(serve: Serve, path: Path) -> None:
    with SwitchProcess("--port", f"2=shm:{path}?mode=620", "--p4runtime", "127.0.0.1:0"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        with pytest.raises(AssertionError, match="another process listens there"):
            serve("--port", f"2=shm:{path}")
    assert not path.exists()
    killed = serve("--port", f"2=shm:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with ShmPeer(path) as peer:
        killed.process.kill()
        assert peer.is_cut_off()
    killed.process.wait()
    assert path.exists()  # it could not clean up
    assert stat.S_IMODE(path.with_name(path.name + ".key").stat().st_mode) == 0o600
    serve("--port", f"2=shm:{path}")
    with ShmPeer(path) as peer:
        peer.send(bytes([BACK]))
        assert peer.receive() == bytes([BACK])
    path.unlink()
    path.write_text("precious")
    with pytest.raises(AssertionError, match="the file is no socket"):
        serve("--port", f"2=shm:{path}")
    assert path.read_text() == "precious"


def test_loss_loses_in_both_directions(serve: Serve, path: Path) -> None:
    switch = serve("--port", f"2=shm:{path}?loss=0.5&seed=3")
    with ShmPeer(path, records=256) as peer:
        peer.send(*[bytes([BACK])] * 256)
        until(lambda: peer.read_word(TO_SWITCH_HEAD) == 256)
        stats = counts(switch)
        assert 80 < stats["drop_in_lost"] < 176
        until(lambda: counts(switch)["frames_out"] == peer.waiting())
        assert stats["drop_in_lost"] + stats["drop_out_lost"] + peer.waiting() == 256
        assert stats["drop_out_lost"] > 30


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2=shm:", "must have 1 to 107 bytes"),
        ("2=shm:/" + "x" * 107, "must have 1 to 107 bytes"),
        ("2=shm:/x?net=1.2.3.4/5", "host bits"),
        ("2=shm:/x?net=1.2.3.4/30", "net is a network|host bits"),
        ("2=shm:/x?mode=9", "invalid literal"),
        ("2=shm:/x?mode=1777", "mode is a file mode"),
        ("2=shm:/x?ip=somewhere", "somewhere"),
        ("2=shm:/x?speed=3", "the options are loss, seed, net, ip and mode"),
        ("1=udp:127.0.0.1:0?mode=600", "the options are loss and seed"),
    ],
)
def test_impossible_ports_are_refused(text: str, why: str) -> None:
    with pytest.raises(PortError, match=why):
        parse_port(text)
