"""Bare contributions and stripped results through real ports: each link carries its part."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bare_ranks import CHUNKS, COLLECTIVES, LIMIT_S, Rank, send_trains
from raw_lab import MACS, Lab, ip
from shm_peer import ShmPeer

from support.frames import Host
from support.p4runtime import Client
from support.remote import Remote
from support.switch_process import SwitchProcess
from support.targets import Lease
from wiresum import p4
from wiresum.p4.packet import HEADER_BYTES

HERE = Path(__file__).parent
LANES = 256
SWITCH_MAC = bytes.fromhex("0200000000fe")
BARE = 42 + HEADER_BYTES
FULL = BARE + 4 * LANES


def lease_of(*hosts: Host) -> Lease:
    return Lease(5, 9, 0xFEED_0001, 16, len(COLLECTIVES) * CHUNKS, hosts)


@contextmanager
def programmed(switch: SwitchProcess, address: str, lease: Lease) -> Iterator[None]:
    """The switch has this address, and the lease."""
    with Client(switch.p4runtime, 1) as client:
        client.standing()
        remote = Remote(client, p4.program(LANES))
        own = {"ip": int.from_bytes(socket.inet_aton(address))}
        remote.insert("addresses", own, "switch_address", {"mac": int.from_bytes(SWITCH_MAC)})
        lease.install(remote)
        yield


def local(port: int, address: tuple[str, int]) -> Host:
    """A worker behind a udp or a shm port, whose frames have a MAC made of the address."""
    at = socket.inet_aton(address[0])
    return Host(port, b"\2\0" + at, at, address[1])


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_udp_and_shm_ports_carry_to_each_rank_what_it_reads(path: Path) -> None:
    """Two ranks behind a udp port send trains, the third is behind a shm port."""
    with ExitStack() as stack:
        switch = stack.enter_context(
            SwitchProcess(
                "--port", "1=udp:127.0.0.1:0", "--port", f"2=shm:{path}", "--lanes", str(LANES),
                "--p4runtime", "127.0.0.1:0",
            )
        )  # fmt: skip
        sockets = []
        for _ in range(2):
            each = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.bind(("127.0.0.1", 0))
            each.settimeout(LIMIT_S)
            sockets.append(each)
        peer = stack.enter_context(ShmPeer(path))
        places = [local(1, each.getsockname()) for each in sockets] + [local(2, peer.address)]
        lease = lease_of(*places)
        stack.enter_context(programmed(switch, "127.0.0.1", lease))
        ranks = [Rank(lease, number, LANES) for number in range(3)]
        before = {"1": 0, "2": 0}
        for turn, collective in enumerate(COLLECTIVES, 1):
            peer.send(*ranks[2].contributions(collective))
            until(lambda turn=turn: switch.stats()["2"]["frames_in"] == turn * CHUNKS)
            for rank, each in zip(ranks, sockets, strict=False):
                send_trains(each, switch.udp(1), rank.contributions(collective))
            for rank, each in zip(ranks, sockets, strict=False):
                got = [each.recv(1 << 16) for _ in range(CHUNKS)]
                assert got == rank.results(collective)
            assert [peer.receive() for _ in range(CHUNKS)] == ranks[2].results(collective)
            stats = switch.stats()
            part = CHUNKS // 3
            reads = part if collective == "reduce-scatter" else 2 * part
            each_way = reads * FULL + (CHUNKS - reads) * BARE
            sent = {number: stats[number]["bytes_out"] for number in before}
            assert sent["1"] - before["1"] == 2 * each_way
            assert sent["2"] - before["2"] == each_way
            before = sent
        # Trains in, trains out: bare ones, too.
        assert stats["1"]["calls_out"] < stats["1"]["frames_out"] / 4
        drops = [f"{n}: {name}" for n in stats for name in stats[n] if name.startswith("drop")]
        assert not [drop for drop in drops if stats[drop.split(": ")[0]][drop.split(": ")[1]]]


@pytest.mark.root
def test_raw_ports_carry_to_each_rank_what_it_reads(lab: Lab) -> None:
    """Two hosts' own kernels check lengths and checksums of what is stripped."""
    hosts = [Host(n, MACS[n], bytes([10, 0, 0, n]), 40000 + n) for n in (1, 2)]
    lease = lease_of(*hosts)
    script = (
        "from bare_ranks import take_part; from support.frames import Host; "
        f"from support.targets import Lease; take_part({lease!r}, {{}}, {LANES}, "
        "('10.0.0.254', 22355))"
    )
    paths = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
    address = f"unix:{lab.folder / 'bare.sock'}"
    with ExitStack() as stack:
        switch = stack.enter_context(
            SwitchProcess(
                "--port", "1=raw:s1", "--port", "2=raw:s2", "--lanes", str(LANES),
                "--p4runtime", address, prefix=lab.enter(0),
            )
        )  # fmt: skip
        stack.enter_context(programmed(switch, "10.0.0.254", lease))
        processes = []
        for rank, host in enumerate(hosts):
            neighbour = ("neigh", "replace", "10.0.0.254", "lladdr", SWITCH_MAC.hex(":"))
            ip("-n", lab.namespaces[host.port], *neighbour, "dev", "eth0")
            process = subprocess.Popen(
                [*lab.enter(host.port), sys.executable, "-c", script.format(rank)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=paths,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for collective in COLLECTIVES:
            for process in processes:
                assert process.stdout.readline() == f"ready for {collective}\n"
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            for process in processes:
                assert process.stdout.readline() == f"{collective} is right\n"
        # Of either collective, each of the two ranks reads one half.
        for port in ("1", "2"):
            stats = switch.stats()[port]
            assert stats["bytes_out"] == CHUNKS * (FULL + BARE)
