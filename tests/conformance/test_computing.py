"""Programs that compute: the calculator, the load balancer, the firewall."""

import binascii
from collections import Counter
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scenarios import CELLS, peek, question

from wiresum.testbed.conformance.target import Insert, Modify, Target, Write, inject

Start = Callable[[str], Target]
WORD = 1 << 32


def accepted(switch: Target, *writes: Write) -> None:
    assert switch.write(writes) == [True] * len(writes)


def signed(value: int) -> int:
    return value - WORD if value >> 31 else value


def clamp(value: int) -> int:
    return max(-(1 << 31), min((1 << 31) - 1, value)) % WORD


def gcd(a: int, b: int) -> int:
    for _ in range(200):
        if a == 0 or b == 0:
            break
        a, b = (a - b, b) if a >= b else (a, b - a)
    return a | b


MEANING: dict[int, Callable[[int, int], int]] = {
    ord("+"): lambda a, b: (a + b) % WORD,
    ord("-"): lambda a, b: (a - b) % WORD,
    ord("*"): lambda a, b: a * b % WORD,
    ord("&"): lambda a, b: a & b,
    ord("|"): lambda a, b: a | b,
    ord("^"): lambda a, b: a ^ b,
    1: lambda a, b: (a << b % 256) % WORD,
    2: lambda a, b: a >> b % 256,
    3: lambda a, b: (signed(a) >> b % 256) % WORD,
    4: lambda a, b: min(a + b, WORD - 1),
    5: lambda a, b: clamp(signed(a) - signed(b)),
    6: lambda a, b: int(a < b),
    7: lambda a, b: int(signed(a) < signed(b)),
    8: lambda a, b: a * b >> 32,
    9: gcd,
}
EDGES = [0, 1, 2, 31, 32, 33, 255, 256, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 48, 36]


def test_the_calculator_is_right(start: Start) -> None:
    switch = start("calculator")
    for op, meaning in MEANING.items():
        for a in EDGES:
            frames = [(2, question(op, a, b) + b"tail") for b in EDGES]
            switch.send(frames)
            left = switch.collect()
            assert set(left) == {2}
            for b, out in zip(EDGES, left[2], strict=True):
                want = meaning(a, b)
                assert int.from_bytes(out[26:30]) == want, f"{op}({a}, {b})"
                assert (out[:14], out[30:]) == (
                    question(op, a, b)[6:12] + question(op, a, b)[:6] + out[12:14],
                    b"tail",
                )


@pytest.mark.parametrize(
    "frame",
    [
        question(0, 1, 1),
        question(ord("+"), 1, 1).replace(b"P4\x01", b"P4\x02"),
        question(ord("+"), 1, 1).replace(b"P4\x01", b"P5\x01"),
        question(ord("+"), 1, 1)[:-1],
        question(ord("+"), 1, 1)[:16],
        question(ord("+"), 1, 1)[:14],
        question(ord("+"), 1, 1)[:3],
    ],
)
def test_the_calculator_answers_only_questions(start: Start, frame: bytes) -> None:
    assert inject(start("calculator"), 1, frame) == []


# --- the load balancer


def crc16(data: bytes) -> int:
    """CRC-16/ARC, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def csum16(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def five_tuple(frame: Ether) -> bytes:
    raw = bytes(frame)
    return raw[26:34] + raw[23:24] + raw[34:38]


@pytest.mark.parametrize(
    ("action", "function"),
    [("by_crc16", crc16), ("by_crc32", binascii.crc32), ("by_sum", csum16)],
)
def test_flows_are_spread_by_the_hash(
    start: Start, action: str, function: Callable[[bytes], int]
) -> None:
    switch = start("balancer")
    key = {"ip": 0x0A000064, "port": 80}
    accepted(switch, Insert("services", key, action, {"service": 1, "base": 100, "count": 5}))
    for n in range(5):
        place = {"mac": n, "ip": 0x0A010000 + n, "port": n + 1}
        accepted(switch, Insert("backends", {"service": 1, "number": 100 + n}, "backend", place))
    picked: Counter[int] = Counter()
    for source in range(60):
        kind = TCP if source % 2 else UDP
        frame = (
            Ether() / IP(src=f"192.0.2.{source}", dst="10.0.0.100") / kind(sport=source, dport=80)
        )
        [(port, data)] = inject(switch, 9, bytes(frame))
        want = function(five_tuple(frame)) % 5
        out = Ether(data)
        assert (port, out[IP].id, out[IP].dst) == (want + 1, 100 + want, f"10.1.0.{want}")
        assert inject(switch, 9, bytes(frame)) == [(port, data)]  # the same flow, the same way
        picked[port] += 1
    assert len(picked) == 5
    counts = {dict(k[1])["number"]: c.packets for k, c in switch.direct_counters().items()}
    assert {n: counts[100 + n - 1] // 2 for n in picked} == picked


def test_a_rule_can_select_another_hash(start: Start) -> None:
    switch = start("balancer")
    key = {"ip": 0x0A000064, "port": 80}
    accepted(
        switch,
        Insert("services", key, "by_crc16", {"service": 1, "base": 0, "count": 2}),
        Insert(
            "backends", {"service": 1, "number": 0xFFFF}, "backend", {"mac": 1, "ip": 1, "port": 7}
        ),
        Modify("services", key, "by_crc32", {"service": 1, "base": 0xFFFF, "count": 1}),
    )
    frame = Ether() / IP(src="192.0.2.1", dst="10.0.0.100") / UDP(sport=1, dport=80)
    assert [port for port, _ in inject(switch, 1, bytes(frame))] == [7]
    fragment = Ether() / IP(src="192.0.2.1", dst="10.0.0.100", frag=3, proto=17) / bytes(20)
    assert inject(switch, 1, bytes(fragment)) == []


# --- the firewall

OPEN, ANSWER, DATA = "S", "SA", "A"


def segment(src: str, dst: str, sport: int, dport: int, flags: str) -> bytes:
    return bytes(Ether() / IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags) / b"x")


@pytest.fixture
def firewall(start: Start) -> Target:
    return start("firewall")


def out_to(switch: Target, flags: str, host: int = 1) -> list[int]:
    frame = segment(f"10.0.0.{host}", "192.0.2.1", 1000, 80, flags)
    return [port for port, _ in inject(switch, 1, frame)]


def in_from(switch: Target, flags: str, host: int = 1) -> list[int]:
    frame = segment("192.0.2.1", f"10.0.0.{host}", 80, 1000, flags)
    return [port for port, _ in inject(switch, 2, frame)]


def cell(switch: Target, index: int) -> tuple[int, int, int, int]:
    """Both filters, how often it was asked for, and how many were blocked."""
    [(port, out)] = inject(switch, 3, peek(index))
    assert port == 3
    bits = int.from_bytes(out[18:20])
    return bits >> 15, bits >> 14 & 1, int.from_bytes(out[20:26]), int.from_bytes(out[26:30])


def test_answers_come_in_only_for_open_connections(firewall: Target) -> None:
    assert in_from(firewall, ANSWER) == []
    assert out_to(firewall, DATA) == [2]  # goes out, but opens nothing
    assert in_from(firewall, ANSWER) == []
    assert out_to(firewall, OPEN) == [2]
    assert in_from(firewall, ANSWER) == [1]
    assert in_from(firewall, DATA) == [1]
    assert in_from(firewall, ANSWER, host=2) == []
    assert inject(firewall, 4, segment("10.0.0.1", "192.0.2.1", 1000, 80, OPEN)) == []


def test_registers_hold_the_open_connections(firewall: Target) -> None:
    wanted: dict[int, int] = {}
    second = set()
    for host in (1, 2, 3, 1, 1):
        assert out_to(firewall, OPEN, host) == [2]
        data = bytes([10, 0, 0, host, 192, 0, 2, 1, 6]) + (1000).to_bytes(2) + (80).to_bytes(2)
        place = crc16(data) % CELLS
        wanted[place] = wanted.get(place, 0) + 1
        second.add(binascii.crc32(data) % CELLS)
    assert in_from(firewall, ANSWER, host=9) == []
    for index in range(CELLS):
        assert cell(firewall, index) == (
            int(index in wanted), int(index in second), wanted.get(index, 0), 1,
        )  # fmt: skip
    assert inject(firewall, 1, peek(CELLS)) == []


def test_bad_checksums_and_short_segments_do_not_pass(firewall: Target) -> None:
    frame = segment("10.0.0.1", "192.0.2.1", 1000, 80, OPEN)
    assert inject(firewall, 1, frame[:24] + b"\0\0" + frame[26:]) == []
    assert inject(firewall, 1, frame[:50]) == []
    assert in_from(firewall, ANSWER) == []
    assert out_to(firewall, OPEN) == [2]
