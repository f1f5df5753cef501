"""Arithmetic from 8 to 2048 bits against Python's integers (programs/values.p4)."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.softswitch import Switch

SHAPES = {8: 0, 13: 1, 32: 2, 48: 3, 64: 4, 100: 5, 256: 6}
HALVES = {8: 4, 13: 7, 32: 16, 48: 24, 64: 32, 100: 50, 256: 128}
SIGNED_RESULT = {32, 33, 34, 35, 36, 37, 38, 41, 42, 44}


def unsigned(width: int) -> dict[int, Callable[[int, int], int]]:
    """The results of ops 0 to 19 for the operands a and b (before cutting to the width)."""
    top, half = (1 << width) - 1, HALVES.get(width, 1)
    return {
        0: lambda a, b: a + b,
        1: lambda a, b: a - b,
        2: lambda a, b: a * b,
        3: lambda a, b: a & b,
        4: lambda a, b: a | b,
        5: lambda a, b: a ^ b,
        6: lambda a, b: ~a,
        7: lambda a, b: min(a + b, top),
        8: lambda a, b: max(a - b, 0),
        9: lambda a, b: a << (b & 255),
        10: lambda a, b: a >> (b & 255),
        11: lambda a, b: int(a < b),
        12: lambda a, b: int(a >= b),
        13: lambda a, b: int(a == b),
        14: lambda a, b: max(a, b),
        15: lambda a, b: a >> 1 & (1 << half) - 1,
        16: lambda a, b: 0 | b & (1 << half + 1) - 1,
        17: lambda a, b: -a,
        18: lambda a, b: (a + b & top) >> 3,
        19: lambda a, b: a,
    }


def signed(width: int) -> dict[int, Callable[[int, int, int], int]]:
    """The results of ops 32 to 46 for the signed s and t and for b."""
    low, high = -(1 << width - 1), (1 << width - 1) - 1
    return {
        32: lambda s, t, b: s + t,
        33: lambda s, t, b: s - t,
        34: lambda s, t, b: s * t,
        35: lambda s, t, b: min(max(s + t, low), high),
        36: lambda s, t, b: min(max(s - t, low), high),
        37: lambda s, t, b: s >> (b & 255),
        38: lambda s, t, b: s << (b & 255),
        39: lambda s, t, b: int(s < t),
        40: lambda s, t, b: int(s >= t),
        41: lambda s, t, b: max(s, t),
        42: lambda s, t, b: -s,
        43: lambda s, t, b: s,
        44: lambda s, t, b: s + t,
        45: lambda s, t, b: s >> width,
        46: lambda s, t, b: int(s * t < 0),
    }


def ask(switch: Switch, op: int, width: int, a: int, b: int, s: int, t: int) -> tuple[int, int]:
    """(r, s) after the op; r is 0 before it."""
    fields = [a, b, 0, s, t]
    bits = 5 * width
    packed = 0
    for value in fields:
        packed = packed << width | value & (1 << width) - 1
    pad = -bits % 8
    body = (packed << pad).to_bytes((bits + pad) // 8, "big")
    [(_, out)] = switch.inject(1, bytes([op, SHAPES[width]]) + body)
    result = int.from_bytes(out[2:], "big") >> pad
    mask = (1 << width) - 1
    assert result >> 4 * width == a
    assert result >> 3 * width & mask == b
    assert result & mask == t & mask
    return result >> 2 * width & mask, result >> width & mask


def edges(width: int) -> st.SearchStrategy[int]:
    """Numbers of ``width`` bits, with more of those near the limits."""
    top = (1 << width) - 1
    special = {0, 1, 2, 7, width - 1, width, width + 1, 255, top, top - 1, top >> 1, (top >> 1) + 1}
    powers = st.integers(0, width - 1).map(lambda n: 1 << n)
    return st.sampled_from(sorted(x & top for x in special)) | powers | st.integers(0, top)


def to_signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> width - 1 else value


@pytest.mark.parametrize("width", sorted(SHAPES))
def test_unsigned(load: Callable[[str], Switch], width: int) -> None:
    switch, ops = load("values"), unsigned(width)

    @settings(max_examples=examples(60))
    @given(edges(width), edges(width))
    @example((1 << width) - 1, 255)
    def check(a: int, b: int) -> None:
        for op, model in ops.items():
            r, s = ask(switch, op, width, a, b, 5, 6)
            assert (op, r, s) == (op, model(a, b) % (1 << width), 5)

    check()


@pytest.mark.parametrize("width", sorted(SHAPES))
def test_signed(load: Callable[[str], Switch], width: int) -> None:
    switch, ops = load("values"), signed(width)

    @settings(max_examples=examples(60))
    @given(edges(width), edges(width), edges(width))
    @example(1 << width - 1, (1 << width) - 1, 1)
    @example(1 << width - 1, 1 << width - 1, 255)
    def check(raw_s: int, raw_t: int, b: int) -> None:
        s, t = to_signed(raw_s, width), to_signed(raw_t, width)
        for op, model in ops.items():
            r, got = ask(switch, op, width, 1, b, raw_s, raw_t)
            want = model(s, t, b) % (1 << width)
            assert (op, got if op in SIGNED_RESULT else r) == (op, want)

    check()


@settings(max_examples=examples(60))
@given(edges(2048), edges(2048))
def test_2048_bits(load: Callable[[str], Switch], a: int, b: int) -> None:
    switch = load("values")
    for op, model in unsigned(2048).items():
        if op not in (0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 14):
            continue
        frame = bytes([op, 7]) + a.to_bytes(256, "big") + b.to_bytes(256, "big") + bytes(256)
        [(_, out)] = switch.inject(1, frame)
        assert out[:514] == frame[:514]
        assert (op, int.from_bytes(out[514:], "big")) == (op, model(a, b) % (1 << 2048))
