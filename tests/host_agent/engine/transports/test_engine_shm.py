"""Engines over shared memory, through a real embedded switch; UDP beside it, to the last bit."""

import os
import signal
import socket
import struct
import threading
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest
from engine_rig import LIMIT_S, normal
from group_rig import Group

from support.engines import LEASE
from support.impostor import impostor
from wiresum.host_agent._engine import shm_connect
from wiresum.host_agent.agent.network import shm_socket
from wiresum.host_agent.engine import Engine, ShmSocket, raise_for
from wiresum.host_agent.errors import EngineError, SwitchUnreachable
from wiresum.host_agent.launcher.embedded import Embedded

MAGIC = 0x77737232


@pytest.mark.parametrize("field", [32, 16, 8])
def test_the_same_bits_as_over_udp(embedded: Embedded, field: int) -> None:
    results = {}
    for kind in ("udp", "shm"):
        with Group(embedded, kind, 3, field) as group:
            arrays = normal(3, 300_007, seed=field)
            small = normal(3, 5, seed=1)
            tickets = group.start(arrays)
            group.reduce(small)
            group.finish(tickets)
            for rank in (1, 2):
                np.testing.assert_array_equal(arrays[0].view(np.uint32), arrays[rank].view("u4"))
            results[kind] = (arrays[0].tobytes(), small[0].tobytes())
            stats = group.engines[0].stats()
            # Bytes are counted as they would be on a link.
            assert stats["header_bytes_sent"] == 42 * stats["packets_sent"]
            assert stats["bytes_sent"] == 1052 * stats["packets_sent"]
            assert stats["results"] == stats["contributions"]
    assert results["udp"] == results["shm"]


def test_a_busy_pair_makes_few_calls(embedded: Embedded) -> None:
    with Group(embedded, "shm", 2, 32) as group:
        group.reduce(normal(2, 2_000_000))
        for engine in group.engines:
            stats = engine.stats()
            assert stats["packets_sent"] > 5000
            assert stats["send_calls"] + stats["receive_calls"] < stats["packets_sent"] / 4


def test_more_chunks_than_a_ring_holds(embedded: Embedded) -> None:
    """The smallest rings under a window of 256 chunks: they run full, and nothing is lost."""
    with Group(embedded, "shm", 2, 32, records=16) as group:
        arrays = normal(2, 300_000)
        expected = arrays[0].astype(np.float64) + arrays[1]
        group.reduce(arrays)
        np.testing.assert_allclose(arrays[0], expected, atol=1e-6)


def test_another_tenants_key_does_not_help(embedded: Embedded) -> None:
    """Who knows all of a lease but is another connection is nobody to the switch."""
    with Group(embedded, "shm", 2, 32) as group:
        lease = group.leases[0]
        other = shm_socket(embedded.shm, lease.switch_ip, lease.lanes, lease.slots, LIMIT_S)
        with other.socket:
            thief = group.engine(0, other, switch_timeout_s=1.0)
            array = np.ones(1000, np.float32)
            done = thief.wait(thief.all_reduce(array.ctypes.data, 1000, "float32"), LIMIT_S)
            assert done is not None
            with pytest.raises(SwitchUnreachable, match="has not answered anything"):
                raise_for(done)
            assert thief.stats()["packets_received"] == 0
        ones = [np.ones(1000, np.float32) for _ in range(2)]
        group.reduce(ones)
        assert (ones[0] == 2).all()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "has hung up on this worker"),
        (None, r"has not answered anything for 1 s \(Connection refused\)"),
    ],
)
def test_the_switch_is_killed_under_a_worker(path: str | None, why: str) -> None:
    options = {"switch_timeout_s": 1.0} | ({} if path is None else {"shm_path": path})
    with Embedded() as pair, Group(pair, "shm", 2, 32, **options) as group:
        group.reduce([np.ones(1000, np.float32) for _ in range(2)])
        array = np.ones(1_000_000, np.float32)
        engine = group.engines[0]
        # Rank 1 does not take part: it can only wait.
        ticket = engine.all_reduce(array.ctypes.data, array.size, "float32")
        pair.switch.process.send_signal(signal.SIGKILL)
        done = engine.wait(ticket, LIMIT_S)
        assert done is not None
        with pytest.raises(SwitchUnreachable, match=why):
            raise_for(done)
        # One that had nothing under way learns it with its next collective.
        ticket = group.engines[1].all_reduce(array.ctypes.data, array.size, "float32")
        done = group.engines[1].wait(ticket, LIMIT_S)
        assert done is not None
        with pytest.raises(SwitchUnreachable):
            raise_for(done)


class Pretender:
    """A switch's shm port that answers each Hello as it is told."""

    def __init__(self, path: Path, *answers: bytes) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(LIMIT_S)
        self.hellos: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, args=answers)
        self._thread.start()

    def _serve(self, *answers: bytes) -> None:
        for answer in answers:
            with self._listener.accept()[0] as worker:
                worker.settimeout(LIMIT_S)
                self.hellos.append(worker.recv(64))
                if answer:
                    worker.send(answer)

    def __enter__(self) -> "Pretender":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (struct.pack("=8IQ", MAGIC, 4, 0, 0, 0, 0, 0, 0, 0), "does not give this worker its add"),
        (struct.pack("=8IQ", MAGIC, 0, 2048, 64, 1, 2, 3, 0, 4), "that cannot be trusted"),
        (struct.pack("=8IQ", MAGIC, 0, 64, 64, 1, 2, 3, 0, 4), "rings take 64 bytes"),
        (b"nonsense", "speaks another version"),
    ],
)
def test_another_switch_where_the_old_one_was(answer: bytes, why: str) -> None:
    """The worker shows who it was, twice, since the first time nobody talks; then it gives up."""
    with Embedded() as pair, Group(pair, "shm", 2, 32) as group:
        pair.switch.process.kill()
        array = np.ones(1000, np.float32)
        with Pretender(Path(pair.shm), b"", b"", answer, answer) as pretender:
            tickets = [
                engine.all_reduce(array.ctypes.data, array.size, "float32")
                for engine in group.engines
            ]
            for engine, ticket in zip(group.engines, tickets, strict=True):
                done = engine.wait(ticket, LIMIT_S)
                assert done is not None
                with pytest.raises(SwitchUnreachable, match=f"has hung up, and then: .*{why}"):
                    raise_for(done)
        claims = {struct.unpack("=6IQ", hello)[3:] for hello in pretender.hellos}
        assert len(claims) == 2
        assert {(str(IPv4Address(ip)), port) for ip, port, _, _ in claims} == {
            (place.ip, place.udp_port) for place in group.places
        }


def test_a_fork_does_not_hang_up(embedded: Embedded) -> None:
    with Group(embedded, "shm", 2, 32) as group:
        child = os.fork()
        if child == 0:
            try:
                for engine in group.engines:
                    engine.close()
                group.engines.clear()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        ones = [np.ones(1000, np.float32) for _ in range(2)]
        group.reduce(ones)
        assert (ones[1] == 2).all()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be reached: No such file"):
        shm_connect(str(tmp_path / "nothing"), 1052, 64, 1.0)
    with pytest.raises(EngineError, match="cannot be the path"):
        shm_connect("", 1052, 64, 1.0)


@pytest.mark.parametrize("answer", [b"", b"nonsense", bytes(40)])
def test_a_switch_that_talks_nonsense(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "socket"
    refused = pytest.raises(EngineError, match=r"hung up|another version")
    with impostor(path, answer), refused:
        shm_connect(str(path), 1052, 64, LIMIT_S)


def test_a_switch_that_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(EngineError, match="no answer in time"):
            shm_connect(str(path), 1052, 64, 0.1)


def test_a_lease_that_does_not_fit_the_rings(embedded: Embedded) -> None:
    fd, *_ = shm_connect(embedded.shm, 100, 64, LIMIT_S)
    with (
        socket.socket(fileno=fd) as sock,
        pytest.raises(EngineError, match="take 100 bytes, a chunk of this lease has 1052"),
    ):
        Engine(ShmSocket(fd=sock.fileno()), LEASE.replace(lanes=256))
