"""raw ports: two hosts and a switch in network namespaces of their own, joined by veth pairs."""

import hashlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from finsy.proto import p4r
from raw_lab import LIMIT_S, MACS, Lab, ip

from support.p4runtime import INSERT, Client, Names, exact, load_config
from support.switch_process import SERVE, SwitchProcess

pytestmark = pytest.mark.root

DATA = Path(__file__).parents[1] / "p4runtime" / "data"
BROADCAST = b"\xff" * 6


@pytest.fixture(scope="module")
def switch(lab: Lab) -> Iterator[SwitchProcess]:
    """A switch that forwards between the two hosts by MAC address."""
    address = f"unix:{lab.folder / 'p4rt.sock'}"
    ports = ("--port", "1=raw:s1", "--port", "2=raw:s2")
    with SwitchProcess(*ports, "--p4runtime", address, prefix=lab.enter(0)) as process:
        assert process.facts["ports"] == {"1": "raw:s1", "2": "raw:s2"}
        config = load_config(DATA / "entities.json", DATA / "entities.p4info.txtpb")
        names = Names(config.p4info)
        with Client(address, 1) as client:
            client.standing()
            client.set_config(config)
            for here, there in ((1, 2), (2, 1)):
                for mac in (MACS[there], BROADCAST):
                    entry = names.entry(
                        "Forward.exact_table", "Forward.forward", there,
                        match=[exact(1, mac), exact(2, bytes([here]))],
                    )  # fmt: skip
                    client.write_all(p4r.Update(type=INSERT, entity=p4r.Entity(table_entry=entry)))
        yield process


def test_arp_and_udp(lab: Lab, switch: SwitchProcess) -> None:
    out = lab.exchange(
        """
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("10.0.0.2", 5000)); s.settimeout(20)
        print("ready", flush=True)
        data, peer = s.recvfrom(100)
        print(data, peer[0])
        """,
        """
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"one", ("10.0.0.2", 5000))
        """,
    )
    assert out == "b'one' 10.0.0.1\n"


@pytest.mark.parametrize(("segment", "last"), [(1000, 0), (1000, 1), (1472, 700), (3, 2)])
def test_udp_trains_cross_as_single_frames(
    lab: Lab, switch: SwitchProcess, segment: int, last: int
) -> None:
    """A train on a veth pair is one frame of up to 64 KiB with an open checksum."""
    before = switch.stats()
    out = lab.exchange(
        """
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind(("10.0.0.2", 5000)); s.settimeout(20)
        print("ready", flush=True)
        while (data := s.recv(1 << 16)) != b"end":
            print(len(data), len(set(data)), data[0])
        """,
        f"""
        import socket, struct
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        segments = [bytes([n]) * {segment} for n in range(40)]
        if {last}:
            segments.append(bytes([99]) * {last})
        control = [(17, 103, struct.pack("H", {segment}))]
        s.sendmsg([b"".join(segments)], control, 0, ("10.0.0.2", 5000))
        s.sendto(b"end", ("10.0.0.2", 5000))
        """,
    )
    expected = [f"{segment} 1 {n}" for n in range(40)] + ([f"{last} 1 99"] if last else [])
    # UDP's checksum is on: the datagrams that arrive at the socket are right to the last bit.
    assert out.splitlines() == expected
    after = switch.stats()
    frames = after["1"]["frames_in"] - before["1"]["frames_in"]
    assert frames >= len(expected) + 1
    assert after["2"]["drop_out_failed"] == before["2"]["drop_out_failed"]


TRAIN = """
import os, signal, socket, struct

def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

def frame(payload, number, check=True, first=0xFFF0, extra=0):
    \"\"\"A datagram from host 1 to host 2 as a cable would carry it; None: no UDP checksum.\"\"\"
    length = 8 + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, (first + number) & 0xFFFF, 0x4000, 64,
                     17, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    udp = struct.pack("!HHHH", 6000, 5000, length, 0)
    pseudo = ip[12:] + struct.pack("!HH", 17, length)
    right = checksum(pseudo + udp + payload) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", (right + extra) if check else 0)
    return bytes.fromhex("020000000002 020000000001 0800") + ip + udp + payload

def stop(process):
    os.kill(process, signal.SIGSTOP)
    stats = [f"/proc/{process}/task/{task}/stat" for task in os.listdir(f"/proc/{process}/task")]
    while any(open(stat).read().rpartition(")")[2].split()[0] != "T" for stat in stats):
        pass

def expected(kind):
    full = [frame(bytes([n]) * 1000, n) for n in range(40)]
    return {
        "whole": full,
        "short": [*full[:20], frame(b"short", 20), *full[21:]],
        "gap": [*full[:20], *full[23:]],
        "none": [frame(bytes([n]) * 1000, n, check=False) for n in range(40)],
        "wrong": [frame(bytes([n]) * 1000, n, extra=n == 7) for n in range(40)],
    }[kind]

def large(frames):
    \"\"\"Frames as a stack hands them over: one, with an open checksum.\"\"\"
    payload = b"".join(f[42:] for f in frames)
    length = 8 + len(payload)
    ip = bytearray(frames[0][14:34])
    ip[2:4] = struct.pack("!H", 20 + length)
    ip[10:12] = b"\\0\\0"
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    pseudo = checksum(bytes(ip[12:]) + struct.pack("!HH", 17, length)) ^ 0xFFFF
    udp = frames[0][34:38] + struct.pack("!HH", length, pseudo)
    return struct.pack("=BBHHHH", 1, 5, 42, 1000, 34, 6) + frames[0][:14] + ip + udp + payload
"""


@pytest.mark.parametrize("cut", [True, False], ids=["cut by the kernel", "whole"])
@pytest.mark.parametrize("kind", ["whole", "short", "gap", "none", "wrong"])
def test_trains_leave_with_every_byte_as_it_was(
    lab: Lab, switch: SwitchProcess, kind: str, cut: bool
) -> None:
    """The cable carries exactly the program's bytes, merged into trains or not."""
    ethtool = ["ip", "netns", "exec", lab.namespaces[0], "ethtool", "-K", "s2"]
    state = "off" if cut else "on"
    if not shutil.which("ethtool"):
        pytest.skip("needs ethtool")
    subprocess.run(
        [*ethtool, "tx-udp-segmentation", state, "tx", state], check=True, capture_output=True
    )
    out = lab.exchange(
        TRAIN
        + f"""
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
s.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
s.bind(("eth0", 3)); s.settimeout(20)
print("ready", flush=True)
frames, longest = [], 0
while True:
    data = s.recv(1 << 17)
    cut, data = data[:10], data[10:]
    if data[12:14] != b"\\x08\\x00" or data[36:38] != struct.pack("!H", 5000):
        continue
    if data[42:] == b"end":
        break
    longest = max(longest, len(data))
    if cut[1] == 0:
        assert cut[0] & 1 == 0, "an open checksum"
        frames.append(data)
    else:
        size = struct.unpack("=H", cut[4:6])[0]
        first = struct.unpack("!H", data[18:20])[0]
        parts = [data[at : at + size] for at in range(42, len(data), size)]
        frames += [frame(part, n, first=first) for n, part in enumerate(parts)]
print(frames == expected({kind!r}), len(frames), longest)
""",
        TRAIN
        + f"""
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.setsockopt(263, 15, 1)
s.bind(("eth0", 0))
frames = expected({kind!r})
if {kind!r} == "whole":
    s.send(large(frames))
else:
    stop({switch.process.pid})  # so that it finds them all at once
    for one in frames:
        s.send(bytes(10) + one)
    os.kill({switch.process.pid}, signal.SIGCONT)
s.send(bytes(10) + frame(b"end", 99))
""",
    )
    right, count, longest = out.split()
    assert (right, int(count)) == ("True", {"gap": 37}.get(kind, 40))
    if cut or kind == "none":
        assert int(longest) == 1042
    else:
        # They were put together: all, or those before the gap or behind the wrong checksum.
        together = {"whole": 40_000, "short": 20_005, "gap": 20_000, "wrong": 20_000}[kind]
        assert int(longest) >= 42 + together


def test_tcp_with_offloads(lab: Lab, switch: SwitchProcess) -> None:
    """TCP over veth travels in large segments without checksums; all of it must arrive."""
    before = switch.stats()["1"]
    out = lab.exchange(
        """
        import hashlib, socket
        s = socket.create_server(("10.0.0.2", 5001))
        s.settimeout(20)
        print("ready", flush=True)
        c, _ = s.accept()
        c.settimeout(20)
        digest, total = hashlib.sha256(), 0
        while data := c.recv(1 << 20):
            digest.update(data); total += len(data)
        print(total, digest.hexdigest())
        """,
        """
        import random, socket
        data = random.Random(5).randbytes(8 << 20)
        with socket.create_connection(("10.0.0.2", 5001), 20) as c:
            c.sendall(data)
        """,
    )
    digest = hashlib.sha256(random.Random(5).randbytes(8 << 20)).hexdigest()
    assert out == f"{8 << 20} {digest}\n"
    # The large segments passed as such: fewer frames than full-sized packets.
    after = switch.stats()["1"]
    assert after["bytes_in"] - before["bytes_in"] > 8 << 20
    assert after["frames_in"] - before["frames_in"] < (8 << 20) / 1448


def test_tagged_frames_keep_their_tag(lab: Lab, switch: SwitchProcess) -> None:
    frame = (MACS[2] + MACS[1] + bytes.fromhex("8100 0123 88b5") + bytes(range(60))).hex()
    out = lab.exchange(
        """
        import socket
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind(("eth0", 3)); s.settimeout(20)
        s.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
        print("ready", flush=True)
        while True:
            data, control, _, address = s.recvmsg(2048, 256)
            tags = [c[2][16:18] for c in control if c[0] == 263]
            if data[-1] == 59 and data[-60:] == bytes(range(60)):
                print(data[:-60].hex(), int.from_bytes(tags[0], "little") if tags else None)
                break
        """,
        f"""
        import socket
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        s.bind(("eth0", 0))
        s.send(bytes.fromhex("{frame}"))
        """,
    )
    untagged = (MACS[2] + MACS[1] + bytes.fromhex("88b5")).hex()
    tagged = (MACS[2] + MACS[1] + bytes.fromhex("8100012388b5")).hex()
    # The receiving kernel may take the tag off again and report it on the side.
    assert out.split() in ([untagged, str(0x123)], [tagged, "0"], [tagged, "None"])


def test_too_long_frames_are_counted(lab: Lab, switch: SwitchProcess) -> None:
    """Host 1 may send longer frames than the interface to host 2 takes."""
    ip("-n", lab.namespaces[1], "link", "set", "eth0", "mtu", "3000")
    ip("-n", lab.namespaces[0], "link", "set", "s1", "mtu", "3000")
    before = switch.stats()["2"]["drop_out_failed"]
    out = lab.exchange(
        """
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("10.0.0.2", 5000)); s.settimeout(20)
        print("ready", flush=True)
        print(len(s.recv(9000)))
        """,
        """
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(bytes(2500), ("10.0.0.2", 5000))
        s.sendto(bytes(500), ("10.0.0.2", 5000))
        """,
    )
    assert out == "500\n"
    assert switch.stats()["2"]["drop_out_failed"] == before + 1


def test_an_interface_that_goes_away_does_not_stop_the_others(lab: Lab) -> None:
    namespace = lab.namespaces[0]
    ip("-n", namespace, "link", "add", "t1", "type", "veth", "peer", "name", "t2")
    ip("-n", namespace, "link", "set", "t1", "up")
    address = f"unix:{lab.folder / 'other.sock'}"
    ports = ("--port", "1=raw:t1", "--port", "2=udp:127.0.0.1:0")
    with SwitchProcess(*ports, "--p4runtime", address, prefix=lab.enter(0)) as other:
        ip("-n", namespace, "link", "del", "t1")
        host, port = other.udp(2)
        script = f"""
        import socket
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"x", ("{host}", {port}))
        """
        with lab.start(0, script) as sender:
            sender.communicate(timeout=LIMIT_S)
        limit = time.monotonic() + LIMIT_S
        while other.stats()["switch"]["drop_no_program"] == 0:
            assert time.monotonic() < limit
        # ... and the thread sleeps again: it is not woken over and over by a dead socket.
        calls = other.stats()["1"]["calls_in"]
        assert other.stats()["1"]["calls_in"] <= calls + 1


@pytest.mark.parametrize(("spec", "reason"), [("1=raw:nosuch0", "there is no such interface here")])
def test_a_missing_interface(lab: Lab, spec: str, reason: str) -> None:
    command = [*lab.enter(0), *SERVE, "--port", spec, "--p4runtime", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert done.stdout == ""
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_raw_ports_need_a_capability(lab: Lab) -> None:
    drop = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv to give up CAP_NET_RAW")
    command = [*lab.enter(0), *drop, *SERVE, "--port", "1=raw:s1", "--p4runtime", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert "CAP_NET_RAW" in done.stderr
    assert len(done.stderr.splitlines()) == 1
