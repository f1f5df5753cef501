"""Registers, counters, stacks, multicast, drops, checksums, hashes (programs/state.p4)."""

import binascii
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from wiresum.softswitch import Counter, Switch
from wiresum.softswitch.errors import (
    AlreadyExists,
    IndexOutOfRange,
    InvalidArgument,
    NotFound,
)


class Order(NamedTuple):
    """The program's first header, and its items."""

    what: int
    x: int = 0
    y: int = 0
    sum: int = 0
    z: int = 0
    items: bytes = b""
    rest: bytes = b""

    def frame(self) -> bytes:
        head = struct.pack(">BHIHQ", self.what, self.x, self.y, self.sum, self.z)
        return head + bytes([len(self.items)]) + self.items + self.rest


def parse(frame: bytes) -> Order:
    return Order(*struct.unpack(">BHIHQ", frame[:17]), b"", frame[17:])


def run(switch: Switch, order: Order, port: int = 1) -> Order:
    [(to, out)] = switch.inject(port, order.frame())
    assert to == port
    return parse(out)


@pytest.fixture
def switch(load: Callable[[str], Switch]) -> Switch:
    return load("state")


# --- registers and counters ---


def test_registers_keep_their_values(switch: Switch) -> None:
    assert [run(switch, Order(1, 3, y)).y for y in (5, 0xFFFFFFFF, 1)] == [5, 4, 5]
    assert switch.registers("cells", 0, 8) == [0, 0, 0, 5, 0, 0, 0, 0]
    switch.set_register("TestIngress.cells", 4, 1000)
    assert run(switch, Order(1, 4, 1)).y == 1001


def test_registers_of_other_widths(switch: Switch) -> None:
    assert [run(switch, Order(2, 1, 0xFFF)).y for _ in range(2)] == [0xFFF, 0xFFE]
    assert switch.register("narrow", 1) == 0xFFE
    for _ in range(3):
        run(switch, Order(3, 2, z=1 << 63))
    assert switch.register("broad", 2) == 3 * (1 << 93) % (1 << 100)


def test_index_beyond_a_register_reads_zero_and_writes_nothing(switch: Switch) -> None:
    for _ in range(2):
        assert run(switch, Order(1, 8, 7)).y == 7
        assert run(switch, Order(1, 0xFFFF, 7)).y == 7
    assert switch.registers("cells", 0, 8) == [0] * 8
    with pytest.raises(IndexOutOfRange, match="below 8"):
        switch.register("cells", 8)
    with pytest.raises(InvalidArgument, match="12 bits"):
        switch.set_register("narrow", 0, 0x1000)


def test_indirect_counters_count_packets_and_bytes(switch: Switch) -> None:
    sizes = [len(run(switch, Order(4, 2, rest=b"x" * n)).rest) for n in (0, 10)]
    assert sizes == [1, 11]
    assert switch.counter("seen", 2) == Counter(2, 18 + 28)
    run(switch, Order(4, 4))  # beyond the array: counted nowhere
    assert [switch.counter("seen", i).packets for i in range(4)] == [0, 0, 2, 0]
    with pytest.raises(IndexOutOfRange):
        switch.counter("seen", 4)
    with pytest.raises(NotFound, match="no counter unseen"):
        switch.counter("unseen", 0)


def test_errors_of_the_native_part_have_the_codes_of_their_lines(switch: Switch) -> None:
    with pytest.raises(IndexOutOfRange) as caught:
        switch.counter("seen", 4)
    assert str(caught.value).endswith("seen[4]: the index must be below 4")
    assert caught.value.line_code == "N006"


# --- header stacks ---


def test_push_front(switch: Switch) -> None:
    # Two are pushed, the first of them becomes valid; of four elements two are left.
    assert run(switch, Order(5, items=b"\x01\x02\x03\x04")).rest == b"\x04\xee\x01\x02"


def test_pop_front(switch: Switch) -> None:
    assert run(switch, Order(6, items=b"\x01\x02\x03")).rest == b"\x03\x02\x03"
    assert run(switch, Order(6)).rest == b"\x00"


def test_run_time_index(switch: Switch) -> None:
    items = b"\x0a\x0b\x0c"
    assert [run(switch, Order(7, 9, y, items=items)).x for y in range(3)] == [10, 11, 12]
    assert run(switch, Order(8, 0x55, 1, items=items)).rest == b"\x03\x0a\x55\x0c"


def test_run_time_index_beyond_the_stack(switch: Switch) -> None:
    assert run(switch, Order(7, 9, 4, items=b"\x01")).x == 0
    assert run(switch, Order(8, 9, 0xFFFFFFFF, items=b"\x01")).rest == b"\x01\x01"
    assert run(switch, Order(7, 9, 4, items=b"\x01")).x == 0


def test_copying_headers(switch: Switch) -> None:
    got = run(switch, Order(24, 0x1299, items=b"\x07"))
    assert got.rest == b"\x99\x07\x07"  # count, items[0], its copy in items[3]
    assert run(switch, Order(24, 1)).rest == b"\x01"  # an invalid header copies as invalid


def test_comparing_headers(switch: Switch) -> None:
    assert run(switch, Order(29, items=b"\x07\x07")).y == 1
    assert run(switch, Order(29, items=b"\x07\x08")).y == 2
    assert run(switch, Order(29, items=b"\x07")).y == 2


# --- where packets go ---


def test_multicast_copies_are_independent(switch: Switch) -> None:
    switch.multicast_group(5, [(7, 11), (8, 12), (7, 13), (9, 14)])
    out = switch.inject(1, Order(9, 5, 100, 0, 1, b"\x01\x02").frame())
    assert [port for port, _ in out] == [7, 8, 9]  # instance 13 is dropped in egress
    for (port, frame), rid in zip(out, (11, 12, 14), strict=True):
        got = parse(frame)
        # instance_type 5 is a copy; push_front left an invalid first element.
        assert (got.x, got.y, got.z, got.rest) == (rid, 105, port, b"\x02\x01\x02")


def test_multicast_group_that_does_not_exist_drops(switch: Switch) -> None:
    assert switch.inject(1, Order(9, 6).frame()) == []


def test_multicast_groups_change(switch: Switch) -> None:
    switch.multicast_group(5, [(7, 1)])
    switch.multicast_group(5, [(8, 2)])
    assert [port for port, _ in switch.inject(1, Order(9, 5).frame())] == [8]
    switch.multicast_delete(5)
    assert switch.inject(1, Order(9, 5).frame()) == []
    with pytest.raises(NotFound, match="group 5"):
        switch.multicast_delete(5)
    with pytest.raises(InvalidArgument, match="group 0"):
        switch.multicast_group(0, [(1, 1)])
    with pytest.raises(InvalidArgument, match="twice"):
        switch.multicast_group(9, [(1, 1), (1, 1)])
    switch.multicast_group(9, [])
    with pytest.raises(AlreadyExists):
        switch.dataplane.multicast_create(9, [])


@pytest.mark.parametrize("what", [10, 12, 30])
def test_drops(switch: Switch, what: int) -> None:
    switch.multicast_group(5, [(7, 1)])
    assert switch.inject(1, Order(what, 5).frame()) == []


def test_egress_spec_after_mark_to_drop_revives_the_packet(switch: Switch) -> None:
    assert [port for port, _ in switch.inject(1, Order(11).frame())] == [3]


def test_unicast_sees_instance_type_zero(switch: Switch) -> None:
    assert run(switch, Order(0, z=41)).z == 42


def test_truncate(switch: Switch) -> None:
    order = Order(13, 20, rest=b"0123456789")
    [(_, out)] = switch.inject(1, order.frame())
    assert out == order._replace(z=1).frame()[:20]
    [(_, out)] = switch.inject(1, order._replace(x=1000).frame())
    assert len(out) == 28


def test_exit_and_return(switch: Switch) -> None:
    got = run(switch, Order(14, z=5))
    assert (got.y, got.z) == (0xDEAD, 5)  # the rest of ingress did not run
    assert [run(switch, Order(22, x)).y for x in (1, 2)] == [1, 2]


def test_failed_assert_drops_the_packet_and_says_where(
    switch: Switch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert switch.inject(1, Order(26, 9).frame()) == []
    assert "state.p4" in capfd.readouterr().err
    assert run(switch, Order(26, 8)).y == 26


def test_log_msg(switch: Switch, capfd: pytest.CaptureFixture[str]) -> None:
    run(switch, Order(27, 17, z=0x1_0000_0000))
    assert capfd.readouterr().err == "x is 17 and 4294967296\n"


# --- calculations ---


def rfc1071(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def crc16_arc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def test_checksum_is_verified_and_updated(switch: Switch) -> None:
    good = rfc1071(struct.pack(">BHI", 20, 0x1234, 0x89ABCDEF))
    for given, wrong in ((good, 0), (good ^ 1, 1)):
        got = run(switch, Order(20, 0x1234, 0x89ABCDEF, given))
        assert got.y == wrong
        assert got.sum == rfc1071(struct.pack(">BHIB", 20, 0x1234, wrong, 0xFF))


def test_checksum_over_the_payload(switch: Switch) -> None:
    # Headers that the parser extracted after the last field are not part of v1model's payload.
    payload = b"some bytes, an odd number"
    got = run(switch, Order(1, 1, 77, rest=payload))
    assert got.sum == rfc1071(struct.pack(">BHI", 1, 1, 77) + payload)


def test_hashes(switch: Switch) -> None:
    x, z = 0x31F2, 0x0123456789ABCDEF
    data = struct.pack(">HQ", x, z)
    assert run(switch, Order(15, x, z=z)).y == binascii.crc32(data)
    assert run(switch, Order(16, x, z=z)).y == crc16_arc(data) % 1000 + 7
    assert run(switch, Order(17, x, z=z)).y == (x << 16 | 17 << 8 | (x & 7) << 5)
    words = struct.unpack(">6H", data + b"\x12\x00")
    folded = 0
    for word in words:
        folded ^= word
    assert run(switch, Order(18, x, z=z)).y == folded
    assert run(switch, Order(19, x, z=z)).y == rfc1071(data)


def test_random_stays_in_its_range(switch: Switch) -> None:
    got = {run(switch, Order(23)).y for _ in range(200)}
    assert got == {10, 11, 12, 13}


def test_loop_in_an_action(switch: Switch) -> None:
    assert [run(switch, Order(21, x)).y for x in (0, 1, 10, 999, 5000)] == [
        0, 1, 55, 499500, 499500,
    ]  # fmt: skip


def test_packet_length_follows_the_headers(switch: Switch) -> None:
    got = run(switch, Order(25, items=b"\x01\x02", rest=b"abc"))
    assert (got.y, got.z) == (23, 22)  # ingress; egress after one setInvalid()


def test_removed_header_is_not_emitted(switch: Switch) -> None:
    [(_, out)] = switch.inject(1, Order(28, items=b"\x05", rest=b"tail").frame())
    assert out == b"\x01\x05tail"


def test_timestamps_grow(switch: Switch) -> None:
    times = [run(switch, Order(31)).z for _ in range(50)]
    assert times == sorted(times)


def test_reset(switch: Switch) -> None:
    switch.multicast_group(5, [(7, 1)])
    run(switch, Order(1, 3, 5))
    run(switch, Order(4, 2))
    switch.reset()
    assert switch.register("cells", 3) == 0
    assert switch.counter("seen", 2) == Counter(0, 0)
    assert switch.inject(1, Order(9, 5).frame()) == []


def test_nothing_of_one_packet_reaches_the_next(switch: Switch) -> None:
    run(switch, Order(0, items=b"\xaa\xbb\xcc\xdd"))
    got = run(switch, Order(7, 9, 3))
    assert (got.x, got.rest) == (0, b"\x00")  # items[3] of this packet is not valid
    assert run(switch, Order(6, items=b"\x01")).rest == b"\x01"
