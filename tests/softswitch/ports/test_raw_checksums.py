"""raw ports and damaged packets: real interfaces, the switch program, a worker's own kernel."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from raw_lab import LIMIT_S, MACS, Lab, ip

from support.frames import SWITCH_IP, Host
from support.p4runtime import Client
from support.remote import Remote
from support.switch_process import SwitchProcess
from support.targets import Lease
from wiresum import p4
from wiresum.p4 import packet
from wiresum.p4.packet import DropReason

pytestmark = pytest.mark.root

TESTS = Path(__file__).parents[2]
PROGRAM = p4.program(64)
SWITCH_MAC = bytes.fromhex("0200000000fe")
JOB, EPOCH = 5, 9
LEASE = Lease(
    JOB, EPOCH, 0xFEED_0001, 16, 64,
    tuple(Host(n, MACS[n], bytes([10, 0, 0, n]), 40000 + n) for n in (1, 2)),
)  # fmt: skip

PREAMBLE = f"""
import json, random, socket, struct
from support.frames import Chunk, Host, frame, ones_complement_sum
from wiresum.p4.packet import Kind
MINE = Host(1, bytes.fromhex("{MACS[1].hex()}"), bytes([10, 0, 0, 1]), 40001)
SWITCH = bytes.fromhex("{SWITCH_MAC.hex()}")
def lanes(number, more=0):
    return tuple((0x01010001 * (i + number) + more) & 0xFFFFFFFF for i in range(64))

VNET_HDR = (263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR

def flipped(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)

def errors():
    lines = [l.split() for l in open("/proc/net/snmp") if l.startswith("Udp:")]
    return int(lines[1][lines[0].index("InCsumErrors")])
"""


def run(lab: Lab, number: int, script: str) -> subprocess.Popen[str]:
    """Start a script on a host, with the tests' modules."""
    return subprocess.Popen(
        [*lab.enter(number), sys.executable, "-c", PREAMBLE + script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip


def say(process: subprocess.Popen[str], text: str = "") -> None:
    """One line to a script."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> Any:
    """The next line of a script, which is JSON."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


@pytest.fixture
def switch(lab: Lab) -> Iterator[Remote]:
    """The switch program between the two hosts, and a job of theirs."""
    address = f"unix:{lab.folder / 'sum.sock'}"
    ports = ("--port", "1=raw:s1", "--port", "2=raw:s2", "--lanes", "64")
    with (
        SwitchProcess(*ports, "--p4runtime", address, prefix=lab.enter(0)),
        Client(address, 1) as client,
    ):
        client.standing()
        remote = Remote(client, PROGRAM)
        own = {"ip": int.from_bytes(SWITCH_IP)}
        mac = {"mac": int.from_bytes(SWITCH_MAC)}
        remote.insert("addresses", own, "switch_address", mac)
        remote.insert("own_source", own, "spoofed_source", {})
        LEASE.install(remote)
        yield remote


# The first rank sends each contribution damaged first, and then undamaged. It puts frames on the
# link as a cable would carry them: their checksums are not verified yet.
DAMAGED_RANK = """
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
results = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
results.bind(("10.0.0.1", 40001)); results.settimeout(20)
bits = json.loads(input())
for number, bit in enumerate(bits):
    chunk = Chunk(job=5, slot=number % 64, epoch=9, chunk=number, key=0xFEED0001,
                  fingerprint=1, lanes=lanes(number))
    good = frame(MINE, chunk.payload(), dst_mac=SWITCH, checksummed=True)
    out.send(flipped(good, bit))
    out.send(good)
    print(number, flush=True)
    input()
    while (got := Chunk.parse(results.recv(4096))).kind != Kind.RESULT or got.chunk != number:
        pass
"""
# The other rank: an ordinary socket. Its datagrams have no finished checksum yet.
OTHER_RANK = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.0.0.2", 40002)); s.settimeout(20)
for number in range(int(input())):
    input()
    chunk = Chunk(job=5, slot=number % 64, epoch=9, chunk=number, key=0xFEED0001,
                  fingerprint=1, lanes=(7,) * 64)
    s.sendto(chunk.payload(), ("10.0.0.254", 22355))
    got = Chunk.parse(s.recv(4096))
    want = lanes(number, 7)
    print(json.dumps([got.kind == Kind.RESULT, got.chunk == number, got.lanes == want]), flush=True)
"""


def test_no_flipped_bit_of_a_contribution_makes_a_wrong_sum(lab: Lab, switch: Remote) -> None:
    """For every bit of a frame; datagrams of a socket of this machine pass."""
    draw = random.Random(3)
    heads = 8 * (42 + packet.HEADER_BYTES)
    bits = draw.sample(range(48, heads), 60) + draw.sample(range(heads, heads + 32 * 64), 60)
    with run(lab, 1, DAMAGED_RANK) as first, run(lab, 2, OTHER_RANK) as second:
        try:
            say(first, json.dumps(bits))
            say(second, str(len(bits)))
            for number, bit in enumerate(bits):
                assert heard(first) == number
                say(second)
                assert heard(second) == [True] * 3, f"bit {bit}"
                say(first)
            assert first.wait(LIMIT_S) == second.wait(LIMIT_S) == 0
        finally:
            first.kill()
            second.kill()
    assert switch.counter("drops", DropReason.DAMAGED) >= 60


# A worker's engine on host 1; "the switch" is a packet socket at the other end of its link.
ENGINE = """
import numpy as np
from wiresum.host_agent.engine import Engine, EngineOptions, Lease, UdpSocket, raise_for
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.0.0.1", 40001))
lease = Lease(switch_ip="10.0.0.254", switch_udp_port=22355, switch_name="s1", rank=0, workers=1,
              job=5, epoch=9, key=0xFEED0001, reply_key=0xFEED0002, slots=64, lanes=64, field=32)
sock = UdpSocket(fd=s.fileno(), gso=json.loads(input()))
engine = Engine(sock, lease, EngineOptions(timeout_s=20))
data = np.arange(1, 5001, dtype=np.float32)
before = errors()
ticket = engine.all_reduce(data.ctypes.data, data.size, "float32")
done = engine.wait(ticket, 20)
assert done is not None
raise_for(done)
stats = engine.stats()
drops = {name: count for name, count in stats.items() if name.startswith("drops_") and count}
right = bool((data == np.arange(1, 5001, dtype=np.float32)).all())
print(json.dumps([right, errors() - before, drops, stats["results"]]), flush=True)
engine.close()
"""
ANSWERS = """
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.setsockopt(*VNET_HDR)
link.bind(("s1", 3))
draw = random.Random(5)
print(json.dumps("ready"), flush=True)
seen, open_checksums, trains = {}, 0, 0
damaged = 0
while True:
    data = link.recv(1 << 17)
    about, data = data[:10], data[10:]
    if data[12:14] != b"\\x08\\x00" or data[30:34] != bytes([10, 0, 0, 254]):
        continue
    if data[36:38] != struct.pack("!H", 22355):
        break
    # An unfinished checksum, at its place in a UDP datagram; or a right one.
    if about[0] & 1:
        assert struct.unpack("=HH", about[6:10]) == (34, 6), about
        open_checksums += 1
    else:
        length = struct.unpack("!H", data[38:40])[0]
        pseudo = data[26:34] + struct.pack("!HH", 17, length)
        assert data[40:42] != bytes(2) and ones_complement_sum(pseudo + data[34:34 + length]) == 0
    size = struct.unpack("=H", about[4:6])[0] if about[1] == 5 else len(data) - 42
    trains += about[1] == 5
    for at in range(42, len(data), size):
        asked = Chunk.parse(data[at : at + size])
        answer = asked.but(kind=Kind.RESULT, key=0xFEED0002)
        sender = Host(0, SWITCH, bytes([10, 0, 0, 254]), 22355)
        good = frame(sender, answer.payload(), dst_ip=MINE.ip, dst_mac=MINE.mac, dst_port=40001,
                     checksummed=True)
        for bit in draw.sample(range(8 * 42, 8 * len(good)), 2):
            link.send(bytes(10) + flipped(good, bit))
            damaged += 1
        link.send(bytes(10) + good)
print(json.dumps([damaged, open_checksums, trains]), flush=True)
"""


@pytest.mark.parametrize("gso", [False, True])
def test_a_damaged_result_ends_in_the_workers_kernel(lab: Lab, gso: bool) -> None:
    """A worker's datagrams to a raw network have checksums, trains too."""
    neighbour = ["neigh", "replace", "10.0.0.254", "dev", "eth0"]
    ip("-n", lab.namespaces[1], *neighbour, "lladdr", SWITCH_MAC.hex(":"))
    with run(lab, 0, ANSWERS) as link, run(lab, 1, ENGINE) as worker:
        try:
            assert heard(link) == "ready"
            say(worker, json.dumps(gso))
            right, errors, drops, results = heard(worker)
            assert worker.wait(LIMIT_S) == 0
            bye = "import socket as s; s.socket(2, 2).sendto(b'', ('10.0.0.254', 9))"
            with run(lab, 1, bye) as last:
                assert last.wait(LIMIT_S) == 0
            damaged, open_checksums, trains = heard(link)
        finally:
            link.kill()
            worker.kill()
    assert right
    # Datagrams that came too late to be read are not counted.
    assert 0.5 * damaged < errors <= damaged
    assert drops.keys() <= {"drops_duplicate", "drops_chunk"}, drops
    assert results >= 5000 / 64
    assert open_checksums > 0
    assert (trains > 0) == gso
