"""Tables of every kind (programs/tables.p4), and the control plane's operations on them."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.softswitch import Counter, Switch
from wiresum.softswitch.errors import (
    AlreadyExists,
    ConstViolation,
    InvalidArgument,
    NotFound,
    TableFull,
)

EXACT, LPM, TERNARY, RANGE, CONST, KEYLESS, SLICED, RUN, INVALID = range(9)
LARGE = 0xFEDCBA98765432100123456789ABCDEF


class Answer(NamedTuple):
    action: int
    after: int
    small: int
    large: int


def query(which: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0) -> bytes:
    return (
        bytes([which]) + a.to_bytes(2, "big") + b.to_bytes(4, "big") + c.to_bytes(16, "big")
        + bytes([d << 1 | e])
    )  # fmt: skip


def ask(switch: Switch, which: int, **fields: int) -> Answer:
    [(_, out)] = switch.inject(1, query(which, **fields))
    answer = out[-20:]
    return Answer(
        answer[0], answer[1], int.from_bytes(answer[2:4], "big"), int.from_bytes(answer[4:], "big")
    )


@pytest.fixture
def switch(load: Callable[[str], Switch]) -> Switch:
    return load("tables")


def test_exact_hit_and_miss(switch: Switch) -> None:
    match = {"hdr.query.a": 7, "c": LARGE, "hdr.query.e": 1}
    switch.table_add("exact_table", match, "set", {"small": 0xABCD, "large": LARGE + 1})
    assert ask(switch, EXACT, a=7, c=LARGE, e=1) == (1, 101, 0xABCD, LARGE + 1)
    for other in ({"a": 6}, {"c": LARGE ^ 1 << 127}, {"c": LARGE ^ 1}, {"e": 0}):
        assert ask(switch, EXACT, **({"a": 7, "c": LARGE, "e": 1} | other)) == (0, 102, 0, 0)


def test_exit_ends_the_pipeline(switch: Switch) -> None:
    switch.table_add("exact_table", {"hdr.query.a": 1, "c": 0, "hdr.query.e": 0}, "stop")
    assert ask(switch, EXACT, a=1) == (77, 0, 0, 0)


def test_names_with_and_without_their_control_and_a_leading_dot(switch: Switch) -> None:
    assert "TestIngress.exact_table" in switch.tables()
    for name in ("keyless", "absolute", ".absolute"):
        if name == "keyless":
            with pytest.raises(NotFound, match="absolute"):
                switch.set_default(name, "mark", {"number": 1})
        else:
            switch.set_default(name, "TestIngress.mark", {"number": 6})
    assert ask(switch, KEYLESS).action == 6
    switch.dataplane.table_reset_default("absolute")
    assert ask(switch, KEYLESS).action == 5


def test_lpm_takes_the_longest_prefix(switch: Switch) -> None:
    for prefix, length, number in ((0, 0, 1), (0x0A000000, 8, 2), (0x0A0B0000, 16, 3),
                                   (0x0A0B0C0D, 32, 4)):  # fmt: skip
        switch.table_add(
            "lpm_table", {"hdr.query.d": 3, "hdr.query.b": (prefix, length)}, "mark",
            {"number": number},
        )  # fmt: skip
    got = [ask(switch, LPM, d=3, b=b).action for b in (1, 0x0A010101, 0x0A0B0101, 0x0A0B0C0D)]
    assert got == [1, 2, 3, 4]
    assert ask(switch, LPM, d=4, b=1).action == 200
    switch.table_delete("lpm_table", {"hdr.query.d": 3, "hdr.query.b": (0x0A0B0000, 16)})
    assert ask(switch, LPM, d=3, b=0x0A0B0101).action == 2


def test_ternary_takes_the_largest_priority(switch: Switch) -> None:
    add = switch.table_add
    add("ternary_table", {"hdr.query.b": (0x1000, 0xF000)}, "mark", {"number": 1}, priority=5)
    add("ternary_table", {"hdr.query.b": (0x1200, 0xFF00)}, "mark", {"number": 2}, priority=9)
    add("ternary_table", {"hdr.query.c": (1 << 127, 1 << 127)}, "mark", {"number": 3}, priority=7)
    add("ternary_table", {"hdr.query.d": (0x40, 2)}, "mark", {"number": 4}, priority=1)
    assert ask(switch, TERNARY, b=0x1234).action == 2
    assert ask(switch, TERNARY, b=0x1134).action == 1
    assert ask(switch, TERNARY, b=0x1134, c=1 << 127).action == 3
    assert ask(switch, TERNARY, d=0x5F).action == 4
    assert ask(switch, TERNARY, d=0x7F).action == 201


def test_same_key_with_another_priority_is_another_entry(switch: Switch) -> None:
    match = {"hdr.query.b": (0x1000, 0xF000)}
    switch.table_add("ternary_table", match, "mark", {"number": 1}, priority=5)
    switch.table_add("ternary_table", match, "mark", {"number": 2}, priority=6)
    assert ask(switch, TERNARY, b=0x1234).action == 2
    switch.table_delete("ternary_table", match, priority=6)
    assert ask(switch, TERNARY, b=0x1234).action == 1
    # The bits that the mask leaves out do not make another key.
    with pytest.raises(AlreadyExists):
        switch.table_add(
            "ternary_table", {"hdr.query.b": (0x1FFF, 0xF000)}, "mark", {"number": 1}, priority=5
        )


def test_range_and_optional(switch: Switch) -> None:
    add = switch.table_add
    valid = {"hdr.answer.$valid$": 1}
    add("range_table", valid | {"hdr.query.a": (10, 20)}, "mark", {"number": 1}, priority=1)
    add("range_table", valid | {"hdr.query.a": (15, 65535), "hdr.query.b": (5, 0xFFFFFFFF)},
        "mark", {"number": 2}, priority=2)  # fmt: skip
    got = [ask(switch, RANGE, a=a, b=b).action for a, b in
           ((9, 0), (10, 0), (20, 0), (21, 0), (15, 5), (14, 5), (65535, 5))]  # fmt: skip
    assert got == [202, 1, 1, 202, 2, 1, 2]
    with pytest.raises(InvalidArgument, match="empty"):
        add("range_table", valid | {"hdr.query.a": (2, 1)}, "mark", {"number": 1}, priority=1)


def test_const_entries(switch: Switch) -> None:
    # The first one that matches wins, although the second is more specific.
    assert [ask(switch, CONST, a=a).action for a in (0x1234, 0x12FF, 0x1111)] == [10, 10, 203]
    assert ask(switch, CONST, a=0x0004).action == 77
    for change in (
        lambda: switch.table_add("const_table", {}, "mark", {"number": 1}, priority=1),
        lambda: switch.table_clear("const_table"),
        lambda: switch.set_default("ternary_table", "mark", {"number": 1}),
    ):
        with pytest.raises(ConstViolation, match="const"):
            change()
    assert [e.priority for e in switch.table_entries("const_table")] == [3, 2, 1]
    assert switch.table_entries("const_table")[0].match == {"hdr.query.a": (0x1200, 0xFF00)}


def test_slices_and_static_masks(switch: Switch) -> None:
    switch.table_add("sliced", {"slice": 0xAB, "masked": 0x0120}, "mark", {"number": 8})
    assert ask(switch, SLICED, b=0x1234AB56, a=0xF12F) == (8, 100, 0, 0)
    assert ask(switch, SLICED, b=0x1234AC56, a=0xF12F) == (0, 109, 0, 0)


def test_action_run(switch: Switch) -> None:
    switch.table_add("run_table", {"hdr.query.d": 1}, "mark", {"number": 1})
    switch.table_add("run_table", {"hdr.query.d": 2}, "set", {"small": 1, "large": 2})
    assert [ask(switch, RUN, d=d).after for d in (1, 2, 3)] == [131, 132, 133]


def test_fields_of_an_invalid_header_match_as_zero(switch: Switch) -> None:
    switch.table_add(
        "invalid_table", {"hdr.query.d": 0, "hdr.query.b": (0, 0xFF)}, "mark", {"number": 55},
        priority=1,
    )  # fmt: skip
    assert ask(switch, INVALID, d=9, b=0x12345678).action == 55


def test_table_is_full_at_its_size(switch: Switch) -> None:
    for a in range(4):
        switch.table_add("exact_table", {"hdr.query.a": a, "c": 0, "hdr.query.e": 0}, "stop")
    with pytest.raises(TableFull, match="4 entries"):
        switch.table_add("exact_table", {"hdr.query.a": 4, "c": 0, "hdr.query.e": 0}, "stop")
    switch.table_delete("exact_table", {"hdr.query.a": 2, "c": 0, "hdr.query.e": 0})
    switch.table_add("exact_table", {"hdr.query.a": 4, "c": 0, "hdr.query.e": 0}, "stop")
    assert [ask(switch, EXACT, a=a).action for a in range(5)] == [77, 77, 0, 77, 77]


def test_direct_counters(switch: Switch) -> None:
    match = {"hdr.query.a": 1, "c": 2, "hdr.query.e": 0}
    switch.table_add("exact_table", match, "mark", {"number": 1})
    for _ in range(3):
        ask(switch, EXACT, a=1, c=2)
    ask(switch, EXACT, a=2)
    size = len(query(0))
    assert switch.direct_counter("exact_table", match) == Counter(3, 3 * size)
    assert switch.default("exact_table").counter == Counter(1, size)
    switch.table_modify("exact_table", match, "mark", {"number": 2})
    assert ask(switch, EXACT, a=1, c=2).action == 2
    assert switch.direct_counter("exact_table", match).packets == 4


def test_entries_read_back(switch: Switch) -> None:
    match = {"hdr.query.a": 1, "c": LARGE, "hdr.query.e": 1}
    switch.table_add("exact_table", match, "set", {"small": 3, "large": LARGE})
    [entry] = switch.table_entries("exact_table")
    assert entry.match == match
    assert (entry.action, entry.params) == ("TestIngress.set", {"small": 3, "large": LARGE})
    assert switch.default("lpm_table").params == {"number": 200}


@pytest.mark.parametrize(
    ("match", "action", "params", "complaint"),
    [
        ({"hdr.query.a": 1 << 16, "c": 0, "hdr.query.e": 0}, "stop", {}, "fit in 16 bits"),
        ({"hdr.query.a": 1, "hdr.query.e": 0}, "stop", {}, "must be given"),
        ({"hdr.query.a": 1, "c": 0, "hdr.query.e": 0, "x": 1}, "stop", {}, "no key field x"),
        ({"hdr.query.a": (1, 2), "c": 0, "hdr.query.e": 0}, "stop", {}, "one value"),
        ({"hdr.query.a": -1, "c": 0, "hdr.query.e": 0}, "stop", {}, "from 0 on"),
        ({"hdr.query.a": 1, "c": 0, "hdr.query.e": 0}, "mark", {}, "needs the parameter number"),
        ({"hdr.query.a": 1, "c": 0, "hdr.query.e": 0}, "mark", {"number": 256}, "fit in 8 bits"),
        ({"hdr.query.a": 1, "c": 0, "hdr.query.e": 0}, "stop", {"n": 1}, "no parameter n"),
    ],
)
def test_bad_entries_are_refused(
    switch: Switch, match: dict[str, int], action: str, params: dict[str, int], complaint: str
) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        switch.table_add("exact_table", match, action, params)
    assert switch.table_entries("exact_table") == []


def test_priorities_are_required_and_refused_by_match_kind(switch: Switch) -> None:
    with pytest.raises(InvalidArgument, match="priority"):
        switch.table_add("ternary_table", {}, "mark", {"number": 1})
    with pytest.raises(InvalidArgument, match="priority"):
        switch.table_add("run_table", {"hdr.query.d": 1}, "NoAction", priority=3)


def test_absent_objects_are_named(switch: Switch) -> None:
    match = {"hdr.query.d": 1}
    with pytest.raises(NotFound, match="no entry"):
        switch.table_delete("run_table", match)
    with pytest.raises(NotFound, match="no entry"):
        switch.table_modify("run_table", match, "NoAction")
    with pytest.raises(NotFound, match="no table nowhere"):
        switch.table_clear("nowhere")
    with pytest.raises(NotFound, match="no action"):
        switch.table_add("run_table", match, "stop")


@settings(max_examples=examples(30))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(1, 5), st.integers(0, 190)
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=8),
)
def test_ternary_agrees_with_a_model(
    load: Callable[[str], Switch], rules: list[tuple[int, int, int, int]], probes: list[int]
) -> None:
    switch = load("tables")
    kept: dict[tuple[int, int, int], int] = {}
    for value, mask, priority, number in rules:
        key = (value & mask, mask, priority)
        if key not in kept:
            kept[key] = number
            switch.table_add(
                "ternary_table", {"hdr.query.b": (value, mask)}, "mark", {"number": number},
                priority=priority,
            )  # fmt: skip
    for probe in probes:
        hits = [(p, -n, k) for n, ((v, m, p), k) in enumerate(kept.items()) if probe & m == v]
        assert ask(switch, TERNARY, b=probe).action == (max(hits)[2] if hits else 201)


@settings(max_examples=examples(30))
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 0xFF), st.integers(0, 32)), st.integers(0, 190), max_size=12
    ),
    st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=8),
)
def test_lpm_agrees_with_a_model(
    load: Callable[[str], Switch], rules: dict[tuple[int, int], int], probes: list[int]
) -> None:
    switch = load("tables")
    kept: dict[tuple[int, int], int] = {}
    for (top, length), number in rules.items():
        prefix = (top << 24) & ~((1 << (32 - length)) - 1)
        if (prefix, length) not in kept:
            kept[prefix, length] = number
            switch.table_add(
                "lpm_table", {"hdr.query.d": 1, "hdr.query.b": (prefix, length)}, "mark",
                {"number": number},
            )  # fmt: skip
    for probe in [*probes, *(prefix for prefix, _ in kept)]:
        hits = [(n, k) for (v, n), k in kept.items() if probe >> (32 - n) == v >> (32 - n)]
        assert ask(switch, LPM, d=1, b=probe).action == (max(hits)[1] if hits else 200)
