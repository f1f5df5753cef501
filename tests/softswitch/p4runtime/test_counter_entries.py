"""Counters and direct counters: written and read back by a controller."""

from typing import Any

import grpc
import pytest
from finsy.proto import p4r, rpc_code

from support.p4runtime import DELETE, INSERT, MODIFY, Client, Names, exact, lpm

INVALID = rpc_code.INVALID_ARGUMENT
KEY = [exact(1, b"\x02\0\0\0\0\x01"), exact(2, b"\x01")]


def counter(counter_id: int, index: int | None = None, data: Any = None) -> p4r.CounterEntry:
    entry = p4r.CounterEntry(counter_id=counter_id)
    if index is not None:
        entry.index.index = index
    if data is not None:
        entry.data.CopyFrom(data)
    return entry


def test_counters(primary: Client, names: Names, target: str) -> None:
    seen, marks = names.counters["Forward.seen"], names.counters["Forward.marks"]
    data = p4r.CounterData(packet_count=5, byte_count=600)
    primary.write(MODIFY, counter_entry=counter(seen, 3, data))
    primary.write(MODIFY, counter_entry=counter(marks, 7, p4r.CounterData(packet_count=1 << 40)))

    def read(entry: p4r.CounterEntry) -> list[p4r.CounterEntry]:
        return [e.counter_entry for e in primary.read(p4r.Entity(counter_entry=entry))]

    assert read(counter(seen, 3)) == [counter(seen, 3, data)]
    cells = read(counter(seen))
    assert [cell.index.index for cell in cells] == list(range(16))
    assert [cell.data.packet_count for cell in cells] == [0, 0, 0, 5] + 12 * [0]
    assert read(counter(marks, 7))[0].data.packet_count == 1 << 40
    assert len(read(counter(0))) == 24
    for wrong in (counter(seen, -1), counter(1), counter(names.tables["Forward.exact_table"])):
        with pytest.raises(grpc.RpcError) as failed:
            read(wrong)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    beyond = counter(seen, 16)
    with pytest.raises(grpc.RpcError) as failed:
        read(beyond)
    out_of_range = grpc.StatusCode.UNKNOWN if target == "bmv2" else grpc.StatusCode.OUT_OF_RANGE
    assert failed.value.code() is out_of_range
    error = primary.write_error(INSERT, counter_entry=counter(seen, 1, data))
    assert error.canonical_code == INVALID
    if target == "bmv2":
        pytest.skip("BMv2 has no wildcard write of counters")
    primary.write(MODIFY, counter_entry=counter(seen, None, p4r.CounterData()))
    assert all(cell.data == p4r.CounterData() for cell in read(counter(seen)))
    primary.write(MODIFY, counter_entry=counter(seen, 1))  # no data: nothing changes
    error = primary.write_error(DELETE, counter_entry=counter(seen, 1))
    assert error.canonical_code == INVALID
    error = primary.write_error(MODIFY, counter_entry=beyond)
    assert error.canonical_code == rpc_code.OUT_OF_RANGE


def test_direct_counters(primary: Client, names: Names) -> None:
    entry = names.entry(
        "Forward.exact_table",
        "Forward.drop",
        match=KEY,
    )
    entry.counter_data.packet_count = 9
    primary.write(INSERT, table_entry=entry)
    key = p4r.TableEntry(table_id=entry.table_id, match=entry.match)

    def read(table_entry: p4r.TableEntry) -> list[p4r.DirectCounterEntry]:
        wanted = p4r.Entity(direct_counter_entry=p4r.DirectCounterEntry(table_entry=table_entry))
        return [found.direct_counter_entry for found in primary.read(wanted)]

    (found,) = read(key)
    assert found.data.packet_count == 9
    assert found.table_entry.match == entry.match
    changed = p4r.DirectCounterEntry(table_entry=key)
    changed.data.packet_count = 11
    changed.data.byte_count = 1100
    primary.write(MODIFY, direct_counter_entry=changed)
    (found,) = read(p4r.TableEntry(table_id=entry.table_id))
    assert found.data == changed.data
    # As part of the table entry: only where the request asks for it.
    (read_entry,) = primary.read_tables(table_id=entry.table_id)
    assert not read_entry.HasField("counter_data")
    request = p4r.TableEntry(table_id=entry.table_id)
    request.counter_data.SetInParent()
    (read_entry,) = (e.table_entry for e in primary.read(p4r.Entity(table_entry=request)))
    assert read_entry.counter_data == changed.data
    # A MODIFY without counter_data leaves it alone.
    entry.ClearField("counter_data")
    primary.write(MODIFY, table_entry=entry)
    (found,) = read(key)
    assert found.data == changed.data
    error = primary.write_error(INSERT, direct_counter_entry=changed)
    assert error.canonical_code == INVALID
    for wrong in (
        p4r.TableEntry(table_id=names.tables["Forward.lpm_table"]),
        p4r.TableEntry(table_id=5),
    ):
        with pytest.raises(grpc.RpcError) as failed:
            read(wrong)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_counter_data_needs_a_direct_counter(primary: Client, names: Names) -> None:
    entry = names.entry("Forward.lpm_table", "NoAction", match=[lpm(1, b"\2\0\0\0\0\0", 8)])
    entry.counter_data.packet_count = 1
    assert primary.write_error(INSERT, table_entry=entry).canonical_code == INVALID
