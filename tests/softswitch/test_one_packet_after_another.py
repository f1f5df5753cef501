"""Nothing of one packet reaches the next, whatever the program reads, writes and leaves invalid."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wiresum.softswitch import Switch
from wiresum.softswitch._softswitch import Dataplane

PROGRAMS = Path(__file__).resolve().parent / "programs"
Json = dict[str, Any]


def field(header: str, name: str) -> Json:
    return {"type": "field", "value": [header, name]}


def constant(value: int) -> Json:
    return {"type": "hexstr", "value": hex(value)}


def header(name: str) -> Json:
    return {"type": "header", "value": name}


def element(stack: str, index: Json) -> Json:
    """``stack[index]``, picked at run time."""
    left = {"type": "header_stack", "value": stack}
    return expression("dereference_header_stack", left, index)


def expression(op: str, left: Any, right: Any) -> Json:
    return {"type": "expression", "value": {"op": op, "left": left, "right": right}}


def primitive(op: str, *parameters: Json) -> Json:
    return {"op": op, "parameters": list(parameters)}


def assign(to: Json, value: Json) -> Json:
    return primitive("assign", to, value)


def log(name: str, value: Json) -> Json:
    """Writes a value to stderr."""
    values = {"type": "parameters_vector", "value": [value]}
    return primitive("log_msg", {"type": "string", "value": f"{name} {{}}"}, values)


def in_parser(statement: Json) -> Json:
    """A statement as an operation of the parser."""
    return primitive("primitive", statement)


LEFT = 0xDEADBEEF
G, S = "ghost", "ghosts"
FIRST = field("query", "e")
"""0 in the packets of these tests; known at run time only."""


def leave(place: Json) -> Json:
    return assign(place, constant(LEFT))


def stack(name: str) -> Json:
    return {"type": "header_stack", "value": name}


def at_run_time() -> Json:
    return expression("access_field", element(S, FIRST), 2)


# Name → the reads and the later writes of each packet. Each case has headers of its own that no
# packet has: `ghost` and the stack `ghosts` of three.
CASES: dict[str, tuple[list[Json], Json, list[Json]]] = {
    "a field of a header that is never valid": (
        [], field(G, "b"), [leave(field(G, "b"))]
    ),
    "an element of a stack by name": (
        [], field(f"{S}[1]", "b"), [leave(field(f"{S}[1]", "b"))]
    ),
    "an element of a stack at run time": ([], at_run_time(), [leave(at_run_time())]),
    "an element that was written at run time": ([], field(f"{S}[0]", "b"), [leave(at_run_time())]),
    "a header that was valid for a while": (
        [], field(G, "b"),
        [
            primitive("add_header", header(G)), leave(field(G, "b")),
            primitive("remove_header", header(G)),
        ],
    ),
    "a header that was written after it became invalid": (
        [], field(G, "b"),
        [
            primitive("add_header", header(G)), primitive("remove_header", header(G)),
            leave(field(G, "b")),
        ],
    ),
    "a header that becomes valid again": (
        [primitive("add_header", header(G))], field(G, "b"),
        [leave(field(G, "b")), primitive("remove_header", header(G))],
    ),
    "a copy of a valid header": (
        [], field(G, "b"),
        [
            primitive("assign_header", header(G), header("query")), leave(field(G, "b")),
            primitive("remove_header", header(G)),
        ],
    ),
    "a header that an invalid one is copied to": (
        [], field(G, "b"),
        [leave(field(G, "b")), primitive("assign_header", header(G), header(f"{S}[0]"))],
    ),
    "elements that are pushed": (
        [], field(f"{S}[2]", "b"),
        [leave(field(f"{S}[0]", "b")), primitive("push", stack(S), constant(2))],
    ),
    "elements that are popped": (
        [], field(f"{S}[0]", "b"),
        [leave(field(f"{S}[2]", "b")), primitive("pop", stack(S), constant(2))],
    ),
    "a stack that is copied": (
        [], field(f"{S}[0]", "b"),
        [leave(field(f"{S}[0]", "b")), primitive("assign_header_stack", stack(S), stack(S))],
    ),
}  # fmt: skip

# The same, with `primitives` that the parser runs before it extracts anything.
IN_PARSER: dict[str, tuple[Json, list[Json], list[Json]]] = {
    "the parser reads what ingress left": (field(G, "b"), [], [leave(field(G, "b"))]),
    "the parser reads what it left itself": (field(G, "b"), [leave(field(G, "b"))], []),
    "the parser reads what it extracts later": (field("query", "b"), [], []),
    "the parser reads an element at run time": (
        expression("access_field", element(S, field("standard_metadata", "mcast_grp")), 2),
        [], [leave(field(f"{S}[0]", "b"))],
    ),
}  # fmt: skip


def renamed(value: Any, number: int) -> Any:
    """A case with the names of its own headers."""
    text = json.dumps(value)
    for name in (S, G):
        text = text.replace(f'"{name}"', f'"{name}{number}"').replace(
            f'"{name}[', f'"{name}{number}['
        )
    return json.loads(text)


def with_ghosts(name: str, header_type: str, count: int) -> Json:
    """A program with ``count`` times a header and a stack that no packet has."""
    program: Json = json.loads((PROGRAMS / f"{name}.json").read_text())
    free = max(h["id"] for h in program["headers"]) + 1
    for number in range(count):
        for n, ghost in enumerate((G, f"{S}[0]", f"{S}[1]", f"{S}[2]")):
            program["headers"].append(
                {"name": renamed(ghost, number), "id": free + n, "header_type": header_type,
                 "metadata": False}
            )  # fmt: skip
        program["header_stacks"].append(
            {"name": f"{S}{number}", "id": 90 + number, "header_type": header_type,
             "header_ids": [free + 1, free + 2, free + 3]}
        )  # fmt: skip
        free += 4
    return program


def run_first(program: Json, primitives: list[Json]) -> None:
    """Run these before everything else in ingress."""
    pipeline = next(p for p in program["pipelines"] if p["name"] == "ingress")
    table = next(t for t in pipeline["tables"] if t["name"] == pipeline["init_table"])
    number = table["default_entry"]["action_id"]
    action = next(a for a in program["actions"] if a["id"] == number)
    # Jumps count primitives from the action's start.
    assert not any(p["op"].startswith("_jump") for p in action["primitives"])
    action["primitives"] = [*primitives, *action["primitives"]]


def load_json(program: Json, cache: str) -> Switch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache)
        patch.setenv("CXXFLAGS", "-O0")
        return Switch(json.dumps(program).encode())


QUERY = bytes([9]) + b"\x11\x11" + b"\x22\x22\x22\x22" + bytes(16) + b"\x00"


@pytest.fixture(scope="module")
def haunted(program_cache: str) -> Switch:
    """One program with all cases."""
    program = with_ghosts("tables", "query_t", len(CASES) + len(IN_PARSER) + 2)
    ingress: list[Json] = []
    parser: list[Json] = []
    for number, (name, (before, read, after)) in enumerate(CASES.items()):
        ingress += renamed([*before, log(name, read), *after], number)
    for number, (name, (read, parsed, after)) in enumerate(IN_PARSER.items(), len(CASES)):
        parser += [in_parser(p) for p in renamed([log(name, read), *parsed], number)]
        ingress += renamed(after, number)
    # A packet reads its own writes to an invalid header.
    own = len(CASES) + len(IN_PARSER)
    ingress += renamed([leave(field(G, "b")), log("own", field(G, "b"))], own)
    parser.append(in_parser(renamed(leave(field(G, "b")), own + 1)))
    ingress.append(renamed(log("parsed", field(G, "b")), own + 1))
    run_first(program, ingress)
    state = next(s for s in program["parsers"][0]["parse_states"] if s["name"] == "start")
    state["parser_ops"] = [*parser, *state["parser_ops"]]
    return load_json(program, program_cache)


def said(switch: Switch, capfd: pytest.CaptureFixture[str], name: str) -> list[str]:
    """The reads of three packets in a case."""
    capfd.readouterr()
    for _ in range(3):
        switch.inject(1, QUERY)
    lines = capfd.readouterr().err.splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.mark.parametrize("name", [*CASES, *IN_PARSER])
def test_a_packet_sees_no_data_of_the_one_before_in(
    name: str, haunted: Switch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(haunted, capfd, name) == ["0"] * 3


@pytest.mark.parametrize("name", ["own", "parsed"])
def test_a_packet_reads_its_own_writes_to_an_invalid_header(
    name: str, haunted: Switch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(haunted, capfd, name) == [str(LEFT)] * 3


@pytest.fixture(scope="module")
def summed(program_cache: str) -> Switch:
    """A program that writes a checksum into an invalid header, and misuses its stacks."""
    program = with_ghosts("state", "order_t", 1)
    program["checksums"].append(
        {"name": "ghostly", "id": 90, "type": "generic", "target": ["ghost0", "sum"],
         "calculation": program["checksums"][0]["calculation"], "verify": False,
         "update": True, "if_cond": None}
    )  # fmt: skip
    beyond = element("ghosts0", field("order", "y"))
    run_first(
        program,
        [
            assign(field("order", "x"), field("ghost0", "sum")),
            primitive("add_header", beyond),
            primitive("remove_header", beyond),
        ],
    )
    return load_json(program, program_cache)


def test_a_checksum_of_an_invalid_header_does_not_stay(summed: Switch) -> None:
    frame = bytes([0]) + b"\x12\x34" + bytes(14) + b"\x00"
    assert [summed.inject(1, frame)[0][1][1:3] for _ in range(3)] == [b"\0\0"] * 3


def test_a_run_time_index_beyond_the_stack_changes_no_length(summed: Switch) -> None:
    frame = bytes([25]) + b"\0\0" + b"\0\0\0\x63" + bytes(10) + b"\x00"
    assert summed.inject(1, frame)[0][1][9:17] == (18).to_bytes(8, "big")


# --- whole programs: a packet after others, and the same packet alone ---


def orders(chance: random.Random) -> Iterator[bytes]:
    """Packets for state.p4 that do not depend on registers, chance or the clock."""
    alone = [n for n in range(33) if n not in (1, 2, 3, 23, 31)]
    while True:
        what = chance.choice([*alone, 7, 8, 7, 8])
        count = chance.choice([0, 0, 1, 2, 4, 5])
        items = bytes(chance.randrange(256) for _ in range(chance.choice([count, count, 0])))
        frame = bytes([what]) + chance.choice([b"\0\x01", b"\0\x05", chance.randbytes(2)])
        frame += bytes(3) + bytes([chance.choice([0, 1, 2, 3, 4, 99])]) + chance.randbytes(10)
        frame += bytes([count]) + items + chance.randbytes(chance.choice([0, 3]))
        yield frame[: chance.choice([len(frame)] * 6 + [chance.randrange(len(frame) + 1)])]


def starts(chance: random.Random) -> Iterator[bytes]:
    """Packets for parsing.p4, many of them cut short."""
    while True:
        kind = chance.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 0x40, 0x52])
        frame = bytes([kind]) + chance.randbytes(3)
        if kind == 2 and chance.random() < 0.5:
            frame += bytes.fromhex("f0123456789abcdef001122334455667")
        frame += chance.randbytes(chance.choice([0, 1, 2, 4, 6, 8, 16, 17, 40]))
        yield frame


@pytest.mark.parametrize(("name", "packets"), [("state", orders), ("parsing", starts)])
def test_a_packet_means_the_same_after_others_as_alone(
    name: str,
    packets: Callable[[random.Random], Iterator[bytes]],
    load: Callable[[str], Switch],
) -> None:
    switch = load(name)
    groups = [(5, [(7, 11), (8, 12), (9, 14)]), (1, [(2, 1), (3, 1)])]
    for number, replicas in groups:
        switch.multicast_group(number, replicas)
    stream = packets(random.Random(2027))
    for n in range(1500):
        frame = next(stream)
        alone = Dataplane(str(switch.library))
        for number, replicas in groups:
            alone.multicast_create(number, replicas)
        assert switch.inject(1, frame) == alone.inject(1, frame), (n, frame.hex())
