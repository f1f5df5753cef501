"""udp ports over loopback: real sockets, a real switch process."""

import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from echo_program import BACK, CPU_PORT, NOT_IP, NOWHERE, PORT_2, PUNT, REPLICATE, STAMPED, STRIPPED
from finsy.proto import p4r

from support.p4runtime import INSERT, Client
from support.switch_process import SwitchProcess
from wiresum.p4.packet import HEADER_BYTES, UDP_PORT

LIMIT_S = 20
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104

Serve = Callable[..., SwitchProcess]


class Peer:
    """A UDP socket that talks to one port of a switch."""

    def __init__(self, to: tuple[str, int], host: str = "127.0.0.1") -> None:
        self.to = to
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((host, 0))
        self.socket.settimeout(LIMIT_S)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.socket.sendto(payload, self.to)

    def receive(self) -> bytes:
        payload, self.sender = self.socket.recvfrom(1 << 16)
        return payload

    def train(self, payload: bytes, segment: int) -> None:
        """Send one train of datagrams of ``segment`` bytes; the last one may be shorter."""
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", segment))]
        self.socket.sendmsg([payload], control, 0, self.to)

    def is_silent(self) -> bool:
        """Whether nothing has arrived that has not been received."""
        self.socket.setblocking(False)
        try:
            self.receive()
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    with ExitStack() as stack:

        def make(to: tuple[str, int], host: str = "127.0.0.1") -> Peer:
            peer = Peer(to, host)
            stack.enter_context(peer.socket)
            return peer

        yield make


def order(code: int, rest: bytes = b"") -> bytes:
    return bytes([code]) + rest


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_datagrams_go_in_and_come_back(serve: Serve, peers: Callable[..., Peer]) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    where = switch.udp(1)
    assert where[0] == "127.0.0.1"
    peer, other = peers(where), peers(where, "127.0.0.9")
    peer.send(order(BACK, b"hello"))
    other.send(order(BACK, b"you"))
    assert peer.receive() == order(BACK, b"hello")
    assert peer.sender == where
    assert other.receive() == order(BACK, b"you")
    for length in (0, 1, 2, 1052, 1472, 9000, 65494):
        payload = (order(BACK) + bytes(range(256)) * 256)[:length]
        peer.send(payload)
        assert peer.receive() == payload
    stats = switch.stats()["1"]
    assert stats["frames_in"] == stats["frames_out"] == 9
    assert stats["bytes_in"] == stats["bytes_out"]
    assert not any(count for name, count in stats.items() if name.startswith("drop"))
    # With headers the longest datagram is longer than any program takes.
    peer.send(bytes(65507))
    until(lambda: switch.stats()["1"]["drop_in_too_long"] == 1)


def test_many_peers_at_once_get_their_own_datagrams(
    serve: Serve, peers: Callable[..., Peer]
) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    all_peers = [peers(switch.udp(1)) for _ in range(20)]
    for round_ in range(30):
        for number, peer in enumerate(all_peers):
            peer.send(order(BACK, bytes([number, round_]) + b"x" * (17 * number % 90)))
    for number, peer in enumerate(all_peers):
        got = [peer.receive() for _ in range(30)]
        # In the order in which they were sent.
        assert [(payload[1], payload[2]) for payload in got] == [(number, r) for r in range(30)]


@pytest.mark.parametrize("tail", [0, 1, 300])
def test_trains_come_back_whole(serve: Serve, peers: Callable[..., Peer], tail: int) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    peer = peers(switch.udp(1))
    segments = [order(BACK, bytes([n]) * 999) for n in range(60)]
    if tail:
        segments.append(order(BACK, b"\xee" * (tail - 1)))
    try:
        peer.train(b"".join(segments), 1000)
    except OSError as error:
        pytest.skip(f"this kernel sends no trains: {error}")
    assert [peer.receive() for _ in segments] == segments
    stats = switch.stats()["1"]
    assert stats["frames_in"] == stats["frames_out"] == len(segments)
    # The kernel was not asked for every datagram.
    assert stats["calls_out"] < len(segments) / 4
    # A peer that takes trains gets the same bytes.
    peer.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
    peer.train(b"".join(segments), 1000)
    got = b""
    while len(got) < sum(map(len, segments)):
        got += peer.receive()
    assert got == b"".join(segments)


def test_trains_are_split_by_peer_and_length(serve: Serve, peers: Callable[..., Peer]) -> None:
    """Multicast interleaves peers; lengths vary: every datagram still arrives as it was."""
    switch = serve("--port", "1=udp:127.0.0.1:0")
    peer = peers(switch.udp(1))
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        entry = p4r.PacketReplicationEngineEntry()
        entry.multicast_group_entry.multicast_group_id = 1
        for instance in (1, 2, 3):
            entry.multicast_group_entry.replicas.add(egress_port=1, instance=instance)
        client.write(INSERT, packet_replication_engine_entry=entry)
    payloads = [
        order(REPLICATE, bytes([n]) * length)
        for n, length in enumerate([100, 100, 50, 50, 50, 200, 0, 0, 7, 1400, 1400, 1399, 1, 100])
    ]
    peer.send(*payloads)
    got = [peer.receive() for _ in range(3 * len(payloads))]
    assert sorted(got) == sorted(3 * payloads)


@pytest.mark.parametrize("code", [STAMPED, STRIPPED])
def test_copies_share_their_common_bytes(
    serve: Serve, peers: Callable[..., Peer], code: int
) -> None:
    """Copies of one frame lie in memory once, also where some lack a header that others have.

    The controller and a missing port are among the places that they go to.
    """
    switch = serve("--port", "1=udp:127.0.0.1:0")
    peer = peers(switch.udp(1))
    ports = [1, 1, int(CPU_PORT), 1, 77, 1, int(CPU_PORT), int(CPU_PORT), 1, 1]
    # Every kind of copy follows every other: those of even instances have no header of their own.
    instances = [1, 3, 2, 4, 6, 5, 7, 8, 10, 9]
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        entry = p4r.PacketReplicationEngineEntry()
        entry.multicast_group_entry.multicast_group_id = 1
        for instance, port in zip(instances, ports, strict=True):
            entry.multicast_group_entry.replicas.add(egress_port=port, instance=instance)
        client.write(INSERT, packet_replication_engine_entry=entry)
        for length in (0, 1, 62, 63, 64, 1000, 30_001, 65_000):
            payload = order(code, random.Random(length).randbytes(length))
            copies = [
                (n, port, payload[1:] if code == STRIPPED and n % 2 == 0 else payload)
                for n, port in zip(instances, ports, strict=True)
            ]
            peer.send(payload)
            mine = [copy for _, port, copy in copies if port == 1]
            assert [peer.receive() for _ in mine] == mine
            told = [
                struct.pack("!H", n) + copy for n, port, copy in copies if port == int(CPU_PORT)
            ]
            frames = [client.receive().packet.payload for _ in told]
            assert [frame[40:] for frame in frames] == told
    assert switch.stats()["switch"]["drop_no_port"] == 8


@pytest.mark.parametrize("code", [STAMPED, STRIPPED])
def test_more_copies_than_there_is_memory_for(
    serve: Serve, peers: Callable[..., Peer], code: int
) -> None:
    """The frames of a batch are sent early where they fill the memory or a port's queue."""
    switch = serve("--port", "1=udp:127.0.0.1:0")
    copies = 20
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        entry = p4r.PacketReplicationEngineEntry()
        entry.multicast_group_entry.multicast_group_id = 1
        for instance in range(copies):
            entry.multicast_group_entry.replicas.add(egress_port=1, instance=instance)
        client.write(INSERT, packet_replication_engine_entry=entry)
    chance = random.Random(3)
    end = order(BACK, b"end")
    for count, length in ((16, 64_100), (200, 1_000)):
        peer = peers(switch.udp(1))
        payloads = [order(code, chance.randbytes(length)) for _ in range(count)]
        switch.process.send_signal(signal.SIGSTOP)  # so that it finds them all at once
        peer.send(*payloads)
        got: list[bytes] = []

        def receive(peer: Peer = peer, got: list[bytes] = got) -> None:
            while (payload := peer.receive()) != end:
                got.append(payload)

        receiver = threading.Thread(target=receive)
        receiver.start()
        switch.process.send_signal(signal.SIGCONT)
        while receiver.is_alive():
            peer.send(end)
            receiver.join(0.1)
        # A full socket loses datagrams; the others arrive in order and unchanged.
        position = iter(
            payload[1:] if code == STRIPPED and instance % 2 == 0 else payload
            for payload in payloads
            for instance in range(copies)
        )
        assert len(got) > count * copies // 4
        assert all(any(payload == one for one in position) for payload in got)
        assert switch.stats()["1"]["drop_out_failed"] == 0


def test_the_frame_that_the_program_sees(serve: Serve, peers: Callable[..., Peer]) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    peer = peers(switch.udp(1), "127.0.0.7")
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        for payload in (order(PUNT), order(PUNT, bytes(100))):
            peer.send(payload)
            frame = client.receive().packet.payload
            ethernet, ip, udp = frame[:14], frame[14:34], frame[34:42]
            assert ethernet == bytes.fromhex("02007f000001 02007f000007 0800")
            length = 28 + len(payload)
            assert ip[:4] == bytes([0x45, 0, length >> 8, length & 255])
            assert ip[8:10] == bytes([64, 17])
            assert ip[12:] == bytes([127, 0, 0, 7, 127, 0, 0, 1])
            total = sum(struct.unpack("!10H", ip))
            assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
            fields = (peer.address[1], UDP_PORT, length - 20, 0)
            assert struct.unpack("!4H", udp) == fields
            assert frame[42:] == payload


def test_a_port_bound_to_every_address(serve: Serve, peers: Callable[..., Peer]) -> None:
    switch = serve("--port", "1=udp:0.0.0.0:0")
    for host in ("127.0.0.1", "127.0.0.5"):
        peer = peers((host, switch.udp(1)[1]), "127.0.0.2")
        peer.send(order(BACK, b"x"))
        assert peer.receive() == order(BACK, b"x")
        assert peer.sender == peer.to  # the answer leaves from where the question went


def test_two_ports(serve: Serve, peers: Callable[..., Peer]) -> None:
    """A frame that leaves unchanged through another port goes where its headers say."""
    # Linux delivers to the more specific address: this receiver plays the service at UDP_PORT.
    switch = serve("--port", "1=udp:127.0.0.77:0", "--port", "2=udp:127.0.0.78:0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.77", UDP_PORT))
        service.settimeout(LIMIT_S)
        peer = peers(switch.udp(1))
        peer.send(order(PORT_2, b"over"))
        payload, sender = service.recvfrom(2048)
    assert payload == order(PORT_2, b"over")
    assert sender == switch.udp(2)


def test_frames_that_cannot_leave_are_counted(serve: Serve, peers: Callable[..., Peer]) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    peer = peers(switch.udp(1))
    peer.send(order(NOT_IP), order(NOT_IP), order(NOWHERE), order(99), order(BACK))
    assert peer.receive() == order(BACK)
    stats = switch.stats()
    assert stats["1"]["drop_out_not_udp"] == 2
    assert stats["switch"]["drop_no_port"] == 1
    assert stats["1"]["frames_in"] == 5
    assert stats["1"]["frames_out"] == 1


def test_frames_without_a_program_are_counted(peers: Callable[..., Peer]) -> None:
    with SwitchProcess("--p4runtime", "127.0.0.1:0", "--port", "1=udp:127.0.0.1:0") as switch:
        peers(switch.udp(1)).send(b"a", b"b", b"")
        until(lambda: switch.stats()["switch"]["drop_no_program"] == 3)


def lost(
    serve: Serve, peers: Callable[..., Peer], options: str, count: int
) -> tuple[list[int], dict[str, int]]:
    """Send numbered datagrams through a lossy port; returns those that came, and its counters."""
    switch = serve("--port", f"1=udp:127.0.0.1:0{options}")
    peer = peers(switch.udp(1))
    for first in range(0, count, 50):
        peer.send(*(order(BACK, struct.pack("!I", n)) for n in range(first, first + 50)))
        until(
            lambda: (s := switch.stats()["1"])["frames_in"] + s["drop_in_lost"] == first + 50  # noqa: B023
        )
    stats = switch.stats()["1"]
    expected = stats["frames_out"]
    came = [struct.unpack("!I", peer.receive()[1:])[0] for _ in range(expected)]
    assert peer.is_silent()
    return came, stats


def test_loss_is_random_seeded_and_counted(serve: Serve, peers: Callable[..., Peer]) -> None:
    count = 1000
    came, stats = lost(serve, peers, "?loss=0.1&seed=7", count)
    dropped = stats["drop_in_lost"], stats["drop_out_lost"]
    assert len(came) == count - sum(dropped)
    # Six standard deviations of a binomial distribution around 100 and 90.
    assert all(40 < number < 160 for number in dropped)
    again, _ = lost(serve, peers, "?loss=0.1&seed=7", count)
    assert again == came
    other, _ = lost(serve, peers, "?loss=0.1&seed=8", count)
    assert other != came


def test_loss_can_be_0_or_1(serve: Serve, peers: Callable[..., Peer]) -> None:
    came, stats = lost(serve, peers, "?loss=1", 50)
    assert (came, stats["drop_in_lost"]) == ([], 50)
    came, stats = lost(serve, peers, "?loss=0&seed=3", 50)
    assert came == list(range(50))


def test_the_program_can_be_replaced_under_traffic(
    serve: Serve, peers: Callable[..., Peer]
) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    peer = peers(switch.udp(1))
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        config = client.get_config()
        for number in range(20):
            peer.send(*(order(BACK, bytes([number, n])) for n in range(50)))
            client.set_config(config)
    # Nothing is lost: the frames wait while the programs change places.
    got = {peer.receive() for _ in range(1000)}
    assert len(got) == 1000


def test_many_peers_beyond_one_batch(serve: Serve, peers: Callable[..., Peer]) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    all_peers = [peers(switch.udp(1)) for _ in range(200)]
    for peer in all_peers:
        peer.send(order(BACK, struct.pack("!H", peer.address[1])))
    for peer in all_peers:
        assert peer.receive()[1:] == struct.pack("!H", peer.address[1])


def test_garbage_does_no_harm(peers: Callable[..., Peer]) -> None:
    """Garbage for wiresum's own program, which expects whole contributions."""
    options = ("--p4runtime", "127.0.0.1:0", "--port", "1=udp:127.0.0.1:0", "--lanes", "64")
    chance = random.Random(20)
    with SwitchProcess(*options) as switch:
        peer = peers(switch.udp(1))
        for first in range(0, 500, 50):
            for length in range(50):
                header = chance.randbytes(HEADER_BYTES)
                peer.send((b"\1\1\0\0" + header + chance.randbytes(300))[: length * 7])
            until(lambda: switch.stats()["1"]["frames_in"] == first + 50)  # noqa: B023
        stats = switch.stats()["1"]
    assert stats["frames_out"] == 0
    assert switch.process.returncode == 0
