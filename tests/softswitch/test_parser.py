"""The parser and the deparser: the reports of programs/parsing.p4 about each packet."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from wiresum.softswitch import Switch

OK, TOO_SHORT, NO_MATCH, OUT_OF_BOUNDS, HEADER_SHORT, BAD_ARGUMENT, BAD_TAG = 0, 1, 2, 3, 4, 6, 100


class Report(NamedTuple):
    error: int
    path: int
    seen: int
    tags: int
    length: int
    rest: bytes


def start(kind: int, nibble: int = 0, twelve: int = 0, skip: int = 0) -> bytes:
    return bytes([kind]) + (nibble << 12 | twelve).to_bytes(2, "big") + bytes([skip])


def tag(last: int, a: int = 5, b: int = 0x123) -> bytes:
    return (a << 13 | b << 1 | last).to_bytes(2, "big")


def report(switch: Switch, frame: bytes, port: int = 2) -> Report:
    [(to, out)] = switch.inject(port, frame)
    assert to == port
    return Report(
        int.from_bytes(out[:4], "big"), out[4], out[5], out[6], int.from_bytes(out[7:11], "big"),
        out[11:],
    )  # fmt: skip


@pytest.fixture
def switch(load: Callable[[str], Switch]) -> Switch:
    return load("parsing")


def test_first_matching_case_wins_over_several_keys(switch: Switch) -> None:
    assert report(switch, start(1), port=7).path == 1
    assert report(switch, start(1) + tag(1), port=8).path == 2


@pytest.mark.parametrize("kind", [0x40, 0x4F])
def test_masked_case(switch: Switch, kind: int) -> None:
    assert report(switch, start(kind)).path == 4


@pytest.mark.parametrize(("kind", "path"), [(0x50, 0), (0x51, 5), (0x56, 5), (0x57, 0)])
def test_range_case(switch: Switch, kind: int, path: int) -> None:
    assert report(switch, start(kind)).path == path


def test_a_packet_comes_back_complete(switch: Switch) -> None:
    frame = start(1, 9, 0xABC, 7) + tag(0, 1, 2) + tag(1, 3, 4) + b"payload"
    got = report(switch, frame)
    assert got == Report(OK, 2, 0, 2, len(frame), frame)


def test_stack_overflow_stops_the_parser_and_keeps_the_extracted_headers(switch: Switch) -> None:
    frame = start(1) + tag(0) * 4 + b"x"
    got = report(switch, frame)
    assert (got.error, got.tags, got.rest) == (OUT_OF_BOUNDS, 3, frame)


def test_packet_too_short_leaves_the_header_invalid_and_its_bytes_in_the_payload(
    switch: Switch,
) -> None:
    frame = start(1) + tag(0) + b"\x01"
    got = report(switch, frame)
    assert (got.error, got.tags, got.rest) == (TOO_SHORT, 1, frame)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_frame_shorter_than_the_first_header(switch: Switch, length: int) -> None:
    got = report(switch, b"\x01" * length)
    assert (got.error, got.path, got.length, got.rest) == (TOO_SHORT, 0, length, b"\x01" * length)


def test_verify(switch: Switch) -> None:
    assert report(switch, start(5, 8, 99)).error == OK
    assert report(switch, start(5, 9, 99)).error == BAD_TAG
    assert report(switch, start(5, 8, 100)).error == HEADER_SHORT


def test_advance_drops_the_skipped_bytes(switch: Switch) -> None:
    got = report(switch, start(4, skip=24) + b"abc" + tag(1) + b"d")
    assert (got.error, got.path, got.tags) == (OK, 2, 1)
    assert got.rest == start(4, skip=24) + tag(1) + b"d"


def test_advance_by_part_of_a_byte_is_an_error(switch: Switch) -> None:
    assert report(switch, start(4, skip=9) + bytes(8)).error == BAD_ARGUMENT


def test_advance_beyond_the_end_is_an_error(switch: Switch) -> None:
    assert report(switch, start(4, skip=24) + b"ab").error == TOO_SHORT


def test_lookahead_moves_nothing(switch: Switch) -> None:
    got = report(switch, start(6) + b"\xab\xcd" + b"rest")
    # 0xabc leads on to the tags, which find the same two bytes again.
    assert (got.error, got.seen, got.tags, got.path) == (OK, 0xCD, 1, 2)
    assert report(switch, start(6) + b"\xab\x0d").tags == 0


def test_lookahead_beyond_the_end_is_an_error(switch: Switch) -> None:
    assert report(switch, start(6) + b"\xab").error == TOO_SHORT


def test_fields_that_cross_bytes(switch: Switch) -> None:
    value = 0x0123456789ABCDEF00112233445566
    wide = (0xA << 124 | value << 4 | 0x7).to_bytes(16, "big")
    numbers = b"".join((0x0100 * i + 0xFF).to_bytes(2, "big") for i in range(9)) + b"\x99"
    got = report(switch, start(2) + wide + numbers + b"end")
    assert got.path == 3 + 16  # the 120-bit value was recognised
    assert got.rest[:4] == start(2)
    assert got.rest[4:20] == (0x7 << 124 | value << 4 | 0x7).to_bytes(16, "big")
    f3 = 4 + 16 + 6
    assert got.rest[f3 : f3 + 2] == b"\x04\x00"  # 0x03ff + 1
    changed = bytearray(numbers)
    changed[6:8] = b"\x04\x00"
    assert got.rest[20:] == bytes(changed) + b"end"


def test_wide_case_does_not_match_a_neighbour(switch: Switch) -> None:
    wide = (0xA << 124 | 0x0123456789ABCDEF00112233445567 << 4).to_bytes(16, "big")
    assert report(switch, start(2) + wide + bytes(19)).path == 3


def test_longest_frame_passes_and_a_longer_one_is_dropped(switch: Switch) -> None:
    frame = start(0x40) + bytes(65536 - 4)
    assert report(switch, frame).rest == frame
    assert switch.inject(1, frame + b"x") == []
    assert switch.stats()["received"] == 2


def test_parser_errors_are_counted(switch: Switch) -> None:
    switch.inject(1, b"")
    switch.inject(1, start(0x40))
    assert switch.stats() == {"received": 2, "emitted": 2, "parser_errors": 1}
