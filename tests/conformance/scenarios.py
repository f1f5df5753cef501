"""The tables and frames with which the fuzzer runs each of the suite's programs."""

import random
from collections.abc import Callable
from pathlib import Path

from wiresum.testbed.conformance import frames
from wiresum.testbed.conformance.frames import ETHERNET_IPV4, TCP, UDP, ethernet, ipv4, udp
from wiresum.testbed.conformance.scenario import Packet, Scenario, Step, Writes
from wiresum.testbed.conformance.target import (
    PROBE_TAIL_BYTES,
    Default,
    Delete,
    Group,
    Insert,
    MatchValue,
    Modify,
    Probe,
    Write,
)

PROGRAMS = Path(__file__).resolve().parent / "programs"
PORTS = (1, 2, 3, 4)
PROBE_IP = 0xCB007100  # 203.0.113.0: used by nothing else
CALCULATOR, SOURCE_ROUTE, PEEK = 0x1234, 0x1234, 0x88B6
INSIDE, OUTSIDE = 0x0A000000, 0xC0000200

Draw = random.Random


def ip_frame(draw: Draw, src: int, dst: int, payload: bytes | None = None) -> bytes:
    """IPv4 with TCP, UDP or something else in it; now and then a fragment or with options."""
    protocol = draw.choice([TCP, TCP, UDP, UDP, 47])
    data = draw.randbytes(draw.choice([0, 1, 7, 30])) if payload is None else payload
    ports = (draw.choice([53, 80, 443, draw.getrandbits(16)]) for _ in range(2))
    if protocol == UDP:
        data = udp(*ports, data)
    elif protocol == TCP:
        flags = draw.choice([0x02, 0x12, 0x10, draw.getrandbits(8)])
        head = b"".join(port.to_bytes(2) for port in ports) + draw.randbytes(8)
        data = head + bytes([0x50, flags]) + draw.randbytes(6) + data
    return ethernet(
        draw.getrandbits(48), draw.getrandbits(48), ETHERNET_IPV4,
        ipv4(
            src, dst, protocol, data,
            ttl=draw.choice([64, 64, 64, 0, 1, 2, 255]), tos=draw.getrandbits(8),
            fragment=draw.choice([0, 0, 0, 0, 0x2000, 5]),
            options=draw.choice([b"", b"", b"", b"", draw.randbytes(4)]),
            identification=draw.getrandbits(16),
        ),
    )  # fmt: skip


def probe_ip(port: int, *, protocol: int = UDP, ports: bytes = b"") -> bytes:
    """The head of an IPv4 probe from and to an address of its own."""
    address = PROBE_IP + port
    length = 20 + len(ports) + PROBE_TAIL_BYTES
    return ethernet(2, 2, ETHERNET_IPV4, ipv4(address, address, protocol, ports, length=length))


def mixed(
    make: Callable[[Draw], bytes], writes: Callable[[Draw], list[Write]] | None = None
) -> Callable[[Draw], list[Step]]:
    """Sequences of frames from ``make``, some of them damaged, garbage, and table writes."""

    def sequence(draw: Draw) -> list[Step]:
        steps: list[Step] = []
        if writes is not None:
            steps.append(Writes(tuple(w for _ in range(draw.randint(1, 8)) for w in writes(draw))))
        for _ in range(draw.randint(8, 40)):
            roll = draw.random()
            port = draw.choice((*PORTS, 5))
            if roll < 0.7:
                steps.append(Packet(port, make(draw)))
            elif roll < 0.88:
                steps.append(Packet(port, *frames.spoil(draw, make(draw))))
            elif roll < 0.95 or writes is None:
                steps.append(Packet(port, frames.garbage(draw), "garbage"))
            else:
                steps.append(Writes(tuple(writes(draw))))
        return steps

    return sequence


# --- the router


def _router_writes(draw: Draw) -> list[Write]:
    length = draw.choice([0, 8, 15, 16, 24, 31, 32])
    mask = (1 << 32) - (1 << (32 - length))
    key: dict[str, MatchValue] = {"dst": ((INSIDE + draw.getrandbits(18)) & mask, length)}
    action: tuple[str, dict[str, int]] = draw.choice(
        [
            ("direct", {"port": draw.choice(PORTS)}),
            ("via", {"next_hop": INSIDE + draw.randrange(4), "port": draw.choice(PORTS)}),
            ("no_route", {}),
        ]
    )
    neighbour: dict[str, MatchValue] = {"ip": INSIDE + draw.randrange(8)}
    return draw.choice(
        [
            [Insert("routes", key, *action)],
            [Insert("routes", key, *action)],
            [Modify("routes", key, *action)],
            [Delete("routes", key)],
            [Insert("neighbours", neighbour, "neighbour", {"mac": draw.getrandbits(48)})],
            [Insert("interfaces", {"port": draw.choice(PORTS)}, "from", {"mac": 7})],
            [Default("routes", *action)],
        ]
    )


def _router() -> Scenario:
    setup: list[Write] = []
    for port in PORTS:
        setup += [
            Insert("routes", {"dst": (PROBE_IP + port, 32)}, "direct", {"port": port}),
            Insert("neighbours", {"ip": PROBE_IP + port}, "neighbour", {"mac": 1}),
            Insert("neighbours", {"ip": INSIDE + port}, "neighbour", {"mac": 0x0200 + port}),
        ]
    setup += [
        Insert("routes", {"dst": (INSIDE, 16)}, "via", {"next_hop": INSIDE + 1, "port": 2}),
        Insert("routes", {"dst": (INSIDE, 29)}, "direct", {"port": 3}),
    ]
    return _scenario(
        "router",
        setup,
        [Probe(port, probe_ip(port)) for port in PORTS],
        mixed(
            lambda d: ip_frame(
                d, d.getrandbits(32), INSIDE + d.choice([d.randrange(8), d.getrandbits(18)])
            ),
            _router_writes,
        ),
    )


# --- source routing


def hops(*ports: int, last: int = 1) -> bytes:
    """A list of hops; ``last``: the mark at the end of the list."""
    marks = [0] * (len(ports) - 1) + [last]
    return b"".join((m << 15 | port).to_bytes(2) for m, port in zip(marks, ports, strict=True))


def _source_routed(draw: Draw) -> bytes:
    route = [draw.choice([*PORTS, 0, 510, 511, 512, 0x7FFF]) for _ in range(draw.randint(1, 7))]
    rest = ip_frame(draw, 1, 2)[14:]
    last = int(draw.random() < 0.9)
    return ethernet(3, 4, SOURCE_ROUTE, hops(*route, last=last) + rest)


def _source_routing() -> Scenario:
    def head(port: int) -> bytes:
        inner = ipv4(0, 0, 0, b"", length=20 + PROBE_TAIL_BYTES)
        return ethernet(2, 2, SOURCE_ROUTE, hops(port) + inner)

    probes = [Probe(port, head(port)) for port in PORTS]
    return _scenario("source_routing", [], probes, mixed(_source_routed))


# --- the calculator

OPERATIONS = [*b"+-*&|^", *range(1, 10)]


def question(op: int, a: int, b: int) -> bytes:
    """A frame with a question."""
    body = b"P4\x01" + bytes([op]) + a.to_bytes(4) + b.to_bytes(4) + bytes(4)
    return ethernet(0x0A, 0x0B, CALCULATOR, body)


def _asked(draw: Draw) -> bytes:
    edges = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, draw.randrange(40), draw.getrandbits(32)]
    op = draw.choice([*OPERATIONS, draw.getrandbits(8)])
    return question(op, draw.choice(edges), draw.choice(edges)) + draw.randbytes(
        draw.choice([0, 9])
    )


def _calculator() -> Scenario:
    probes = [Probe(port, question(ord("+"), port, 1)) for port in PORTS]
    return _scenario("calculator", [], probes, mixed(_asked))


# --- the load balancer

SERVICE_IP = INSIDE + 100


def _to_service(draw: Draw) -> bytes:
    frame = bytearray(ip_frame(draw, draw.getrandbits(32), SERVICE_IP + draw.randrange(3)))
    if draw.random() < 0.8:
        frame[14] = 0x45  # so that the ports are where they are looked for
        frame[36:38] = draw.choice([53, 80, 443]).to_bytes(2)
    return bytes(frame)


def _balancer_writes(draw: Draw) -> list[Write]:
    key: dict[str, MatchValue] = {
        "ip": SERVICE_IP + draw.randrange(3),
        "port": draw.choice([53, 80, 443]),
    }
    how = draw.choice(["by_crc16", "by_crc32", "by_sum", "by_odd_fields"])
    base = draw.choice([0, 7, 0xFFFC])
    params = {"service": 1, "base": base, "count": draw.choice([1, 2, 3, 8, 1000, 0xFFFFFFFF])}
    backend: dict[str, MatchValue] = {"service": 1, "number": (base + draw.randrange(8)) & 0xFFFF}
    place = {"mac": draw.getrandbits(48), "ip": draw.getrandbits(32), "port": draw.choice(PORTS)}
    return draw.choice(
        [
            [Insert("services", key, how, params)],
            [Modify("services", key, how, params)],
            [Delete("services", key)],
            [Insert("backends", backend, "backend", place)],
            [Insert("backends", backend, "backend", place)],
            [Delete("backends", backend)],
        ]
    )


def _balancer() -> Scenario:
    setup: list[Write] = []
    for port in PORTS:
        one = {"service": 9, "base": 60000 + port, "count": 1}
        place = {"mac": 1, "ip": 1, "port": port}
        setup += [
            Insert("services", {"ip": PROBE_IP + port, "port": 9}, "by_crc32", one),
            Insert("backends", {"service": 9, "number": 60000 + port}, "backend", place),
        ]
    probes = [Probe(port, probe_ip(port, ports=b"\0\x09\0\x09")) for port in PORTS]
    sequence = mixed(_to_service, _balancer_writes)

    def after_services(draw: Draw) -> list[Step]:
        writes: list[Write] = []
        for number in range(16):
            place = {"mac": number, "ip": number, "port": PORTS[number % 4]}
            writes.append(Insert("backends", {"service": 1, "number": number}, "backend", place))
        for ip in range(2):
            for port in (53, 80, 443):
                key: dict[str, MatchValue] = {"ip": SERVICE_IP + ip, "port": port}
                params = {"service": 1, "base": draw.randrange(8), "count": draw.randint(1, 8)}
                how = draw.choice(["by_crc16", "by_crc32", "by_sum", "by_odd_fields"])
                writes.append(Insert("services", key, how, params))
        return [Writes(tuple(writes)), *sequence(draw)]

    return _scenario("balancer", setup, probes, after_services)


# --- the firewall

CELLS = 64


def peek(index: int) -> bytes:
    """A frame that asks for the registers' values at ``index``."""
    return ethernet(5, 6, PEEK, index.to_bytes(4) + bytes(12))


def _conversation(draw: Draw) -> list[Packet]:
    """Frames between a host inside and a host outside."""
    one, other = INSIDE + draw.randrange(20), OUTSIDE + draw.randrange(20)
    ports = (draw.choice([1000, 1001]).to_bytes(2), draw.choice([80, 443]).to_bytes(2))

    def tcp(src: int, dst: int, ends: bytes, flags: int) -> bytes:
        segment = ends + bytes(8) + bytes([0x50, flags]) + bytes(6) + draw.randbytes(3)
        return ethernet(1, 2, ETHERNET_IPV4, ipv4(src, dst, TCP, segment))

    out = Packet(1, tcp(one, other, ports[0] + ports[1], draw.choice([2, 2, 0x10])))
    back = Packet(2, tcp(other, one, ports[1] + ports[0], 0x12))
    return draw.choice([[out, back], [back], [out], [back, out, back]])


def _firewall() -> Scenario:
    setup: list[Write] = [
        Insert("ports", {"from": 1}, "to", {"port": 2, "inside": 1}),
        Insert("ports", {"from": 2}, "to", {"port": 1, "inside": 0}),
    ]
    noise = mixed(lambda d: ip_frame(d, INSIDE + d.randrange(4), OUTSIDE + d.randrange(4)))

    def sequence(draw: Draw) -> list[Step]:
        steps: list[Step] = [p for _ in range(draw.randint(1, 8)) for p in _conversation(draw)]
        steps += noise(draw)
        draw.shuffle(steps)
        look = [*draw.sample(range(CELLS), 8), CELLS, 0xFFFFFFFF]
        return [*steps, *(Packet(draw.choice(PORTS), peek(index)) for index in look)]

    return _scenario("firewall", setup, [Probe(port, peek(0)) for port in PORTS], sequence)


# --- the access list


def _rule(draw: Draw) -> Write:
    key: dict[str, MatchValue] = {"has_ports": draw.randrange(2)}
    for name, base in (("src", INSIDE), ("dst", OUTSIDE)):
        mask = draw.choice([0, 0xFFFFFF00, 0xFFFFFFFC, 0xFFFFFFFF, 0x00000003])
        key[name] = ((base + draw.randrange(8)) & mask, mask)
    low = draw.choice([0, 50, 80])
    key["port"] = (low, draw.choice([0xFFFF, low, low + 100]))
    if draw.random() < 0.5:
        key["protocol"] = draw.choice([TCP, UDP, 47])
    # No two rules have the same priority: each switch may choose another one of them.
    priority = draw.randint(2, 1 << 20)
    kind = draw.randrange(4)
    if kind == 0:
        return Insert("rules", key, "deny", {}, priority)
    if kind == 1:
        return Insert("rules", key, "redirect", {"port": draw.choice(PORTS)}, priority)
    group = draw.choice([0, 20, 21, 22, 23])  # 0 is none, 23 does not exist
    return Insert("rules", key, "allow", {"class": draw.getrandbits(8), "group": group}, priority)


def _acl_writes(draw: Draw) -> list[Write]:
    if draw.random() < 0.2:
        ports = draw.sample(PORTS, draw.randint(0, 4))
        copies = [(port, draw.randrange(9)) for port in ports]
        return [Group(draw.choice([20, 21, 22]), tuple(copies))]
    return [_rule(draw)]


def _acl() -> Scenario:
    setup: list[Write] = [
        Group(20, tuple((port, port) for port in PORTS)),
        # One copy for a port: P4Runtime does not say in which order several would leave.
        Group(21, ((1, 1), (2, 7), (4, 0xFFFF))),
        Group(22, ()),
        *(Insert("rules", {"has_ports": n}, "allow", {"class": n, "group": 20}, 1) for n in (0, 1)),
    ]
    for port in PORTS:
        key: dict[str, MatchValue] = {"src": (PROBE_IP + port, 0xFFFFFFFF), "has_ports": 1}
        setup.append(Insert("rules", key, "redirect", {"port": port}, 1 << 24))
    probes = [Probe(port, probe_ip(port, ports=b"\0\x09\0\x09")) for port in PORTS]

    def make(draw: Draw) -> bytes:
        return ip_frame(draw, INSIDE + draw.randrange(8), OUTSIDE + draw.randrange(8))

    return _scenario("acl", setup, probes, mixed(make, _acl_writes))


def _scenario(
    name: str,
    setup: list[Write],
    probes: list[Probe],
    sequence: Callable[[Draw], list[Step]],
) -> Scenario:
    json, p4info = PROGRAMS / f"{name}.json", PROGRAMS / f"{name}.p4info.txtpb"
    return Scenario(name, json, p4info, setup, probes, lambda draw, number: sequence(draw))


ALL = {
    made.name: made
    for made in (_router(), _source_routing(), _calculator(), _balancer(), _firewall(), _acl())
}
