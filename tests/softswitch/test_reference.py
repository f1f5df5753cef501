"""The embedded switch against BMv2: the same frames in, the same frames out."""

import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from reference import Reference

from support import bmv2
from wiresum.softswitch import Switch

PROGRAMS = Path(__file__).resolve().parent / "programs"
GROUP = [(7, 11), (8, 12), (7, 13), (9, 14)]

pytestmark = [
    pytest.mark.bmv2,
    pytest.mark.skipif(not bmv2.available(), reason=f"{bmv2.BINARY} is not on PATH"),
]

Frames = Iterable[tuple[int, bytes]]


def parsing_frames(draw: random.Random) -> Frames:
    for kind in [1, 1, 1, 2, 3, 4, 5, 6, 6, 0x42, 0x53] * 4:
        yield draw.randrange(1, 9), bytes([kind]) + draw.randbytes(draw.randrange(50))
    yield 1, bytes([1, 0, 0, 0]) + bytes(9)  # one tag too many for the stack
    yield 1, bytes([4, 0, 0, 9]) + bytes(9)  # skips part of a byte


def state_frames(draw: random.Random) -> Frames:
    # Not those whose result is random or a time, nor the failed assert, which ends BMv2; an index
    # beyond a register or stack ends it, too.
    for what in sorted(set(range(32)) - {23, 26, 27, 31}) * 2:
        items = draw.randbytes(draw.randrange(1, 5)) if what != 29 else b"\5\5"
        x = draw.choice([0, 5, 20, 30, 0xFFFF, draw.getrandbits(16)])
        if what in (1, 2, 3, 4):
            x = draw.randrange(4)
        elif what in (9, 12):
            x = 5
        elif what == 21:
            x = draw.randrange(50)
        y = draw.randrange(len(items)) if what in (7, 8) else draw.getrandbits(32)
        head = bytes([what]) + x.to_bytes(2, "big") + y.to_bytes(4, "big") + draw.randbytes(10)
        rest = draw.randbytes(draw.randrange(20))
        yield draw.randrange(1, 5), head + bytes([len(items)]) + items + rest


def values_frames(draw: random.Random) -> Frames:
    for shape, width in enumerate([8, 13, 32, 48, 64, 100, 256]):
        for op in (*range(20), *range(32, 47)):
            edges = [draw.getrandbits(width), (1 << width) - 1, 1 << width - 1, 0, 1, width]
            operands = [draw.choice(edges) for _ in range(5)]
            if op in (9, 10, 37, 38):
                operands[1] = draw.getrandbits(min(8, width))
            packed = 0
            for operand in operands:
                packed = packed << width | operand
            pad = -5 * width % 8
            yield 1, bytes([op, shape]) + (packed << pad).to_bytes((5 * width + pad) // 8, "big")


def tables_frames(draw: random.Random) -> Frames:
    for which in [1, 3, 4, 5, 6, 7, 8] * 6:
        a = draw.choice([0x1234, 0x1200, 0x0004, draw.getrandbits(16)])
        yield 1, bytes([which]) + a.to_bytes(2, "big") + draw.randbytes(21)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("parsing", parsing_frames),
        ("state", state_frames),
        ("tables", tables_frames),
        ("values", values_frames),
    ],
)
def test_same_frames_leave(
    load: Callable[[str], Switch], name: str, frames: Callable[[random.Random], Frames]
) -> None:
    switch = load(name)
    with tempfile.TemporaryDirectory() as directory:  # a Unix socket's path must be short
        reference = Reference(PROGRAMS, name, Path(directory))
        try:
            if name == "state":
                switch.multicast_group(5, GROUP)
                reference.group(5, GROUP)
            for port, frame in frames(random.Random(7)):
                ours = sorted(switch.inject(port, frame))
                theirs = sorted(reference.exchange(port, frame, len(ours)))
                assert ours == theirs, f"{name}: port {port}, frame {frame.hex()}"
            # One frame too many would have been taken for the answer to a later one, too.
            assert reference.left_over() == []
        finally:
            reference.close()
