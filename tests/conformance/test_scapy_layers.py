"""The scapy layers against the tests' own packets, and captures read with them."""

import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, wrpcap

from support.frames import SWITCH_IP, Chunk, ethernet, frame, host, ipv4, readers, udp
from wiresum.p4 import packet as wire
from wiresum.p4.packet import Kind, Op, Readers
from wiresum.testbed.conformance.frames import garbage, spoil
from wiresum.testbed.pcap import CaptureError, Seen, line, read
from wiresum.testbed.scapy_layers import Contributors, Lanes, Wiresum

CHUNKS = [
    Chunk(Kind.CONTRIBUTION, Op.SUM, 1023, 7, 0xFFFFFFFF, 0x80000000, 1 << 63, 0xDEADBEEF,
          lanes=tuple(range(64))),
    Chunk(Kind.RESULT, Op.MAX, 1, 0xFFFF, 1, 0, 5, 6, lanes=(0xFFFFFFFF,) * 256),
    Chunk(Kind.WAIT, Op.SUM, 3, 2, 9, 8, 7, 6, bitmap=0x8000000000000005),
    Chunk(Kind.MISMATCH, Op.MAX, 3, 2, 9, 8, 7, 6, bitmap=0),
]  # fmt: skip
by_kind = pytest.mark.parametrize("chunk", CHUNKS, ids=[Kind(c.kind).name for c in CHUNKS])


def fields(chunk: Chunk) -> dict[str, int]:
    return {name: getattr(chunk, name) for name in wire.HEADER_FIELDS}


@by_kind
def test_layers_read_the_packets_that_the_tests_write(chunk: Chunk) -> None:
    got = Ether(frame(host(1), chunk.payload()))[Wiresum]
    assert {name: got.getfieldval(name) for name in wire.HEADER_FIELDS} == fields(chunk)
    if chunk.bitmap is None:
        assert tuple(got[Lanes].lanes) == chunk.lanes
    else:
        assert got[Contributors].bitmap == chunk.bitmap
        assert got[Contributors].ranks() == [r for r in range(64) if chunk.bitmap >> r & 1]
    assert bytes(got) == chunk.payload()


@by_kind
def test_layers_write_packets_that_the_tests_read(chunk: Chunk) -> None:
    made = Wiresum(**fields(chunk))
    made /= (
        Lanes(lanes=list(chunk.lanes))
        if chunk.bitmap is None
        else Contributors(bitmap=chunk.bitmap)
    )
    assert Chunk.parse(bytes(made)) == chunk
    datagram = IP(src="10.0.0.1", dst="10.0.0.254") / UDP(sport=40001) / made
    assert (datagram[UDP].sport, datagram[UDP].dport) == (40001, wire.UDP_PORT)
    assert Wiresum in IP(bytes(datagram))


def test_scapy_matches_an_answer_with_its_question() -> None:
    asked = Wiresum(job=4, slot=3, key=9) / Lanes(lanes=[1])
    # Its key is another one.
    assert (Wiresum(kind=Kind.RESULT, job=4, slot=3, key=8, chunk=77) / Lanes(lanes=[2])).answers(
        asked
    )
    for other in ({"slot": 2}, {"job": 5}, {"epoch": 2}):
        told = {"kind": Kind.RESULT, "job": 4, "slot": 3, "key": 8, **other}
        assert not (Wiresum(**told) / Lanes(lanes=[2])).answers(asked)
    assert not asked.answers(asked)


def test_short_or_unknown_packets_stay_raw() -> None:
    whole = CHUNKS[0].payload()
    for size in range(len(whole)):
        got = UDP(udp(40001, wire.UDP_PORT, whole[:size]))
        assert bytes(got.payload) == whole[:size]
        assert got.haslayer(Lanes) == (size >= wire.HEADER_BYTES + 4)
    assert isinstance(Wiresum(CHUNKS[0].but(kind=9).payload()).payload, Raw)
    assert isinstance(Wiresum(CHUNKS[0].but(version=wire.VERSION + 1).payload()).payload, Raw)


# --- captures


def capture(path: Path, *frames: bytes) -> Path:
    wrpcap(str(path), [Raw(each) for each in frames], linktype=1)
    return path


def seen(tmp_path: Path, *frames: bytes) -> list[Seen]:
    return list(read(capture(tmp_path / "a.pcap", *frames)))


def test_a_capture_shows_the_packets_that_were_sent(tmp_path: Path) -> None:
    frames = [frame(host(n), chunk.payload()) for n, chunk in enumerate(CHUNKS, 1)]
    frames.insert(1, ethernet(bytes(6), bytes(6), 0x86DD, bytes(60)))
    found = seen(tmp_path, *frames)
    assert [each.number for each in found] == [1, 3, 4, 5]
    assert [each.kind for each in found] == ["CONTRIBUTION", "RESULT", "WAIT", "MISMATCH"]
    assert [each.op for each in found] == ["SUM", "MAX", "SUM", "MAX"]
    assert (found[0].source, found[0].destination) == ("10.0.0.1:40001", "10.0.0.254:22355")
    assert (found[0].job, found[0].slot) == (1023, 7)
    assert (found[0].epoch, found[0].chunk) == (0xFFFFFFFF, 0x80000000)
    assert found[0].fingerprint == 0xDEADBEEF
    assert (found[0].lanes, found[0].first_lanes) == (64, [0, 1, 2, 3])
    assert found[1].lanes == 256
    assert (found[2].contributors, found[3].contributors) == ([0, 2, 63], [])
    assert all(each.notes == [] for each in found)
    assert "fingerprint deadbeef" in line(found[0])
    assert "contributors 0,2,63" in line(found[2])
    assert not any(str(CHUNKS[0].key) in line(each) for each in found)


def test_bare_packets_and_readers_are_shown(tmp_path: Path) -> None:
    bare = CHUNKS[0].but(lanes=())
    chunks = [
        bare,
        CHUNKS[0].but(readers=readers(Readers.ONLY, 2)),
        bare.but(kind=Kind.RESULT, readers=readers(Readers.ALL_BUT, 63)),
        CHUNKS[2].but(readers=readers(Readers.ONLY, 0)),
    ]
    found = seen(tmp_path, *(frame(host(1), chunk.payload()) for chunk in chunks))
    assert [each.readers for each in found] == ["ALL", "ONLY 2", "ALL_BUT 63", "ONLY 0"]
    assert [each.lanes for each in found] == [0, 64, 0, None]
    assert all(each.notes == [] for each in found)
    assert line(found[0]).endswith("fingerprint deadbeef  bare")
    assert line(found[2]).endswith("fingerprint deadbeef  readers ALL_BUT 63  bare")
    [cut] = seen(tmp_path, frame(host(1), CHUNKS[0].payload())[: 42 + wire.HEADER_BYTES])
    assert cut.lanes is None
    assert "truncated: 256 bytes of it were not captured" in cut.notes


def test_faults_of_a_packet_are_named(tmp_path: Path) -> None:
    good = CHUNKS[0]
    waits = CHUNKS[2]
    cases = {
        "unknown (9)": good.but(kind=9).payload(),
        "version 2 is not 3": good.but(version=2).payload(),
        "readers unknown (3) 1": good.but(readers=0xC1).payload(),
        "it names rank 4 as a reader beside all": good.but(readers=4).payload(),
        "truncated: 27 of the header's 28 bytes are there": good.payload()[:27],
        "truncated: 0 of the header's 28 bytes are there": b"",
        "truncated: it ends before its lanes": good.payload()[:30],
        "truncated: it ends before its contributors": waits.payload()[:35],
        "3 bytes more than belong there": good.payload() + b"abc",
        "4 bytes more than belong there": waits.payload() + b"abcd",
    }
    found = seen(tmp_path, *(frame(host(1), payload) for payload in cases.values()))
    for each, said in zip(found, cases, strict=True):
        assert said in line(each)
    whole = frame(host(1), good.payload())
    [cut] = seen(tmp_path, whole[:-100])
    assert (cut.lanes, cut.notes) == (39, ["truncated: 100 bytes of it were not captured"])
    [lies] = seen(tmp_path, whole[:38] + b"\0\3" + whole[40:])
    assert "UDP's length 3 is impossible" in lies.notes


def test_padding_is_not_part_of_a_packet(tmp_path: Path) -> None:
    [found] = seen(tmp_path, frame(host(1), CHUNKS[0].but(lanes=()).payload()[:10]) + bytes(8))
    assert found.notes == ["truncated: 10 of the header's 28 bytes are there"]


def test_random_bytes_do_no_harm(tmp_path: Path) -> None:
    draw = random.Random(8)
    frames = [garbage(draw) for _ in range(300)]
    for chunk in CHUNKS * 100:
        frames.append(spoil(draw, frame(host(2), chunk.payload()))[0])
    frames += [
        ethernet(bytes(6), bytes(6), 0x0800, ipv4(SWITCH_IP, SWITCH_IP, 17, draw.randbytes(n)))
        for n in range(40)
    ]
    found = seen(tmp_path, *frames)
    assert len(found) > 200
    for each in found:
        assert line(each)
        json.dumps(each.as_json())


# --- the command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wiresum.cli.main", *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_command_reads_pcap_and_pcapng(tmp_path: Path) -> None:
    frames = [frame(host(n), chunk.payload()) for n, chunk in enumerate(CHUNKS, 1)]
    newer = tmp_path / "b.pcapng"
    with PcapNgWriter(str(newer)) as writer:
        for each in frames:
            writer.write(Ether(each))
    for path in (capture(tmp_path / "a.pcap", *frames), newer):
        done = command("pcap", str(path))
        assert done.returncode == 0
        kinds = [text.split()[5] for text in done.stdout.splitlines()]
        assert kinds == ["CONTRIBUTION", "RESULT", "WAIT", "MISMATCH"]
        assert done.stderr == "4 of 4 packets are wiresum's\n"
        objects = [
            json.loads(text) for text in command("pcap", str(path), "--json").stdout.splitlines()
        ]
        assert [each["kind"] for each in objects] == ["CONTRIBUTION", "RESULT", "WAIT", "MISMATCH"]
        assert objects[2]["contributors"] == [0, 2, 63]
        assert "key" not in objects[0]


def test_a_file_that_is_no_capture_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("certainly not a capture, but long enough to have a header of one")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for path, said in (
        (text, "is not a capture"),
        (empty, "is not a capture"),
        (tmp_path / "missing", "cannot be read: No such file"),
        (tmp_path, "cannot be read"),
    ):
        done = command("pcap", str(path))
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_a_truncated_capture_gives_its_complete_packets(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", *[frame(host(1), CHUNKS[0].payload())] * 2)
    whole = path.read_bytes()
    bogus = whole[:24] + struct.pack("<IIII", 0, 0, 0xFFFFFFF0, 0xFFFFFFF0) + bytes(50)
    for cut in [*(whole[:size] for size in range(24, len(whole))), bogus]:
        path.write_bytes(cut)
        found, error = [], ""
        try:
            found += read(path)
        except CaptureError as problem:
            error = str(problem)
        assert len(found) <= 2
        assert "\n" not in error


def test_a_missing_scapy_is_one_line(tmp_path: Path) -> None:
    path = capture(tmp_path / "a.pcap", frame(host(1), CHUNKS[0].payload()))
    script = (
        "import sys; sys.modules['scapy'] = None\n"
        "from wiresum.cli.main import main\n"
        f"sys.argv = ['wiresum', 'pcap', {str(path)!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        "wiresum: wiresum's scapy layers need scapy: pip install 'wiresum[pcap]'\n"
    )
