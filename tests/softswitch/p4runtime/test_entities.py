"""Table entries, and entities that the switch does not have: written and read by a controller."""

from typing import Any

import grpc
import pytest
from finsy.proto import p4r, rpc_code

from support.p4runtime import (
    DELETE,
    INSERT,
    MODIFY,
    Client,
    Names,
    exact,
    lpm,
    optional,
    range_,
    ternary,
    update_errors,
)

INVALID = rpc_code.INVALID_ARGUMENT
DST = exact(1, b"\x02\0\0\0\0\x01")
PORT = exact(2, b"\x01")


def entity(table_entry: p4r.TableEntry) -> p4r.Entity:
    return p4r.Entity(table_entry=table_entry)


def plain(entry: p4r.TableEntry) -> p4r.TableEntry:
    """An entry without the fields that 1.4 added to reads (BMv2 speaks 1.3)."""
    copy = p4r.TableEntry()
    copy.CopyFrom(entry)
    copy.ClearField("is_const")
    return copy


KEYS = [
    ("Forward.exact_table", "Forward.forward", (3,), [DST, PORT], 0),
    ("Forward.lpm_table", "Forward.mark", (0x1234,), [lpm(1, b"\x02\0\0\0\0\0", 40)], 0),
    ("Forward.lpm_table", "Forward.mark", (1,), [], 0),
    (
        "Forward.ternary_table",
        "Forward.mark",
        (1,),
        [ternary(1, b"\x08\0", b"\xff\0"), exact(2, b"\x05")],
        10,
    ),
    ("Forward.ternary_table", "Forward.mark", (2,), [exact(2, b"\x05")], 1),
    (
        "Forward.range_table",
        "Forward.mark",
        (0,),
        [range_(1, b"\x08\0", b"\x09\0"), optional(2, b"\x07")],
        0x7FFFFFFF,
    ),
    ("Forward.range_table", "Forward.mark", (0,), [], 5),
]


@pytest.mark.parametrize("case", KEYS, ids=lambda case: f"{case[0]}-{len(case[3])}")
def test_an_entry_reads_back_as_written(primary: Client, names: Names, case: Any) -> None:
    table, action, args, match, priority = case
    entry = names.entry(table, action, *args, match=match, priority=priority)
    entry.controller_metadata = 77
    entry.metadata = b"cookie"
    primary.write(INSERT, table_entry=entry)
    (found,) = primary.read_tables(table_id=entry.table_id)
    assert plain(found) == entry
    if match:
        (found,) = primary.read_tables(table_id=entry.table_id, match=match, priority=priority)
        assert plain(found) == entry

    changed = names.entry(table, "NoAction" if "exact" not in table else "Forward.drop")
    entry.action.CopyFrom(changed.action)
    primary.write(MODIFY, table_entry=entry)
    (found,) = primary.read_tables(table_id=entry.table_id)
    assert plain(found) == entry

    key = p4r.TableEntry(table_id=entry.table_id, match=match, priority=priority)
    primary.write(DELETE, table_entry=key)
    assert primary.read_tables(table_id=entry.table_id) == []
    assert primary.write_error(DELETE, table_entry=key).canonical_code == rpc_code.NOT_FOUND
    assert primary.write_error(MODIFY, table_entry=entry).canonical_code == rpc_code.NOT_FOUND


def test_values_are_accepted_in_any_length_and_read_back_short(
    primary: Client, names: Names
) -> None:
    entry = names.entry(
        "Forward.exact_table",
        "Forward.forward",
        match=[exact(1, b"\0\0\0\0\0\0\0\x05"), exact(2, b"\0\0\0\x01")],
    )
    del entry.action.action.params[:]
    entry.action.action.params.add(param_id=1, value=b"\0\0\x01\x02")
    primary.write(INSERT, table_entry=entry)
    (found,) = primary.read_tables(table_id=entry.table_id)
    assert [match.exact.value for match in found.match] == [b"\x05", b"\x01"]
    assert found.action.action.params[0].value == b"\x01\x02"
    short = names.entry("Forward.exact_table", match=[exact(1, b"\x05"), exact(2, b"\x01")])
    again = names.entry("Forward.exact_table", "Forward.drop", match=short.match)
    error = primary.write_error(INSERT, table_entry=again)
    assert error.canonical_code == rpc_code.ALREADY_EXISTS


def bad(match: list[p4r.FieldMatch], table: str, priority: int = 0, action: str = "mark") -> Any:
    return table, match, priority, action


BAD_KEYS = {
    "exact missing": bad([DST], "exact_table", action="drop"),
    "exact field twice": bad([DST, DST, PORT], "exact_table", action="drop"),
    "unknown field": bad([DST, exact(3, b"\1")], "exact_table", action="drop"),
    "too wide": bad([DST, exact(2, b"\x02\0")], "exact_table", action="drop"),
    "wrong kind": bad([DST, ternary(2, b"\1", b"\1")], "exact_table", action="drop"),
    "priority without need": bad([DST, PORT], "exact_table", 1, action="drop"),
    "prefix too long": bad([lpm(1, b"\x01", 49)], "lpm_table"),
    "prefix negative": bad([lpm(1, b"\x01", -1)], "lpm_table"),
    "prefix zero": bad([lpm(1, b"\0", 0)], "lpm_table"),
    "bits behind the prefix": bad([lpm(1, b"\x02\0\0\0\0\x01", 40)], "lpm_table"),
    "no priority": bad([exact(2, b"\1")], "ternary_table"),
    "mask zero": bad([ternary(1, b"\0", b"\0"), exact(2, b"\1")], "ternary_table", 1),
    "bits outside the mask": bad([ternary(1, b"\3", b"\1"), exact(2, b"\1")], "ternary_table", 1),
    "mask too wide": bad([ternary(1, b"\1", b"\1\0\1"), exact(2, b"\1")], "ternary_table", 1),
    "range backwards": bad([range_(1, b"\2", b"\1")], "range_table", 1),
    "whole range": bad([range_(1, b"\0\0", b"\xff\xff")], "range_table", 1),
    "no key at all": bad([], "keyless_table"),
    "empty field match": bad([DST, p4r.FieldMatch(field_id=2)], "exact_table", action="drop"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_key_is_refused(primary: Client, names: Names, name: str, target: str) -> None:
    table, match, priority, action = BAD_KEYS[name]
    args = () if action == "drop" else (1,)
    entry = names.entry(
        f"Forward.{table}", f"Forward.{action}", *args, match=match, priority=priority
    )
    code = primary.write_error(INSERT, table_entry=entry).canonical_code
    keyless_on_bmv2 = target == "bmv2" and table == "keyless_table"
    assert code == (rpc_code.UNKNOWN if keyless_on_bmv2 else INVALID)
    assert primary.read_tables(table_id=entry.table_id) == []


def test_an_empty_value_is_refused(primary: Client, names: Names, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 takes an empty value for zero; the specification refuses it")
    entry = names.entry(
        "Forward.exact_table", "Forward.drop", match=[exact(1, b""), exact(2, b"\1")]
    )
    assert primary.write_error(INSERT, table_entry=entry).canonical_code == INVALID


def test_bad_actions_are_refused(primary: Client, names: Names) -> None:
    def code(entry: p4r.TableEntry) -> int:
        return primary.write_error(INSERT, table_entry=entry).canonical_code

    def entry(action: str, *args: int, table: str = "Forward.exact_table") -> p4r.TableEntry:
        match = [DST, PORT] if table.endswith("exact_table") else [lpm(1, b"\2\0\0\0\0\0", 8)]
        return names.entry(table, action, *args, match=match)

    assert code(entry("Forward.mark", 1)) == INVALID  # an action of other tables
    assert code(entry("Forward.forward")) == INVALID  # too few
    assert code(entry("Forward.forward", 1, 2)) == INVALID  # too many
    assert code(entry("Forward.forward", 512)) == INVALID  # too wide
    assert code(entry("NoAction")) == rpc_code.PERMISSION_DENIED  # default only
    missing = entry("Forward.forward", 1)
    missing.ClearField("action")
    assert code(missing) == INVALID
    unknown = entry("Forward.forward", 1)
    unknown.action.action.action_id = 1
    assert code(unknown) == INVALID
    renamed = entry("Forward.forward", 1)
    renamed.action.action.params[0].param_id = 9
    assert code(renamed) == INVALID
    indirect = entry("Forward.forward", 1)
    indirect.action.action_profile_member_id = 1
    assert code(indirect) == INVALID
    table = entry("Forward.forward", 1)
    table.table_id = names.actions["Forward.forward"]
    assert code(table) == INVALID
    table.table_id = 0
    assert code(table) == INVALID
    timeout = entry("Forward.forward", 1)
    timeout.idle_timeout_ns = 5
    assert code(timeout) == INVALID
    unset = p4r.Update(entity=entity(entry("Forward.forward", 1)))
    with pytest.raises(grpc.RpcError) as failed:
        primary.write_all(unset)
    assert update_errors(failed.value)[0].canonical_code == INVALID


def test_default_entries(primary: Client, names: Names) -> None:
    table_id = names.tables["Forward.ternary_table"]

    def read() -> p4r.TableEntry:
        (found,) = primary.read_tables(table_id=table_id, is_default_action=True)
        return plain(found)

    declared = names.entry("Forward.ternary_table", "Forward.mark", 7)
    declared.is_default_action = True
    assert read() == declared
    changed = names.entry("Forward.ternary_table", "NoAction")
    changed.is_default_action = True
    changed.metadata = b"mine"
    for kind in (INSERT, DELETE):
        assert primary.write_error(kind, table_entry=changed).canonical_code == INVALID
    primary.write(MODIFY, table_entry=changed)
    assert read() == changed
    primary.write(MODIFY, table_entry=p4r.TableEntry(table_id=table_id, is_default_action=True))
    assert read() == declared

    with_key = names.entry("Forward.ternary_table", "NoAction", match=[exact(2, b"\1")])
    with_key.is_default_action = True
    assert primary.write_error(MODIFY, table_entry=with_key).canonical_code == INVALID
    constant = names.entry("Forward.const_table", "Forward.mark", 1)
    constant.is_default_action = True
    error = primary.write_error(MODIFY, table_entry=constant)
    assert error.canonical_code == rpc_code.PERMISSION_DENIED
    table_only = names.entry("Forward.lpm_table", "Forward.forward", 1)
    table_only.is_default_action = True
    error = primary.write_error(MODIFY, table_entry=table_only)
    assert error.canonical_code == rpc_code.PERMISSION_DENIED
    keyless = names.entry("Forward.keyless_table", "Forward.mark", 6)
    keyless.is_default_action = True
    primary.write(MODIFY, table_entry=keyless)


def test_const_entries_can_be_read_but_not_written(
    primary: Client, names: Names, target: str
) -> None:
    table_id = names.tables["Forward.const_table"]
    found = primary.read_tables(table_id=table_id)
    values = [
        (e.match[0].ternary.value, e.match[0].ternary.mask, e.action.action.params[0].value)
        for e in found
    ]
    assert sorted(values) == [
        (b"\x08\0", b"\xff\xff", b"\x04"),
        (b"\x80\0", b"\xf0\0", b"\x08"),
    ]
    # The first one declared wins: it has the higher priority.
    first = next(e for e in found if e.match[0].ternary.value == b"\x08\0")
    second = next(e for e in found if e is not first)
    assert first.priority > second.priority > 0
    if target == "bmv2":
        pytest.skip("BMv2 answers writes to const tables with UNKNOWN or crashes")
    assert all(entry.is_const for entry in found)
    added = names.entry(
        "Forward.const_table", "Forward.mark", 1, match=[ternary(1, b"\1", b"\1")], priority=9
    )
    first.is_const = False
    for kind, entry in ((INSERT, added), (MODIFY, first), (DELETE, first)):
        error = primary.write_error(kind, table_entry=entry)
        assert error.canonical_code == rpc_code.PERMISSION_DENIED


def test_wildcard_reads(primary: Client, names: Names, target: str) -> None:
    one = names.entry("Forward.exact_table", "Forward.drop", match=[DST, PORT])
    two = names.entry(
        "Forward.ternary_table", "Forward.mark", 1, match=[exact(2, b"\5")], priority=3
    )
    two.metadata = b"x"
    three = names.entry("Forward.ternary_table", "NoAction", match=[exact(2, b"\6")], priority=4)
    primary.write_all(*(p4r.Update(type=INSERT, entity=entity(e)) for e in (one, two, three)))
    const = names.tables["Forward.const_table"]
    found = [plain(e) for e in primary.read_tables() if e.table_id != const]
    assert len(found) == 3
    assert all(e in found for e in (one, two, three))
    defaults = primary.read_tables(is_default_action=True)
    assert {e.table_id for e in defaults} == set(names.tables.values())
    if target == "bmv2":
        pytest.skip("BMv2 does not filter")
    ternary_id = names.tables["Forward.ternary_table"]
    assert [plain(e) for e in primary.read_tables(table_id=ternary_id, priority=3)] == [two]
    assert [plain(e) for e in primary.read_tables(table_id=ternary_id, metadata=b"x")] == [two]
    wanted = p4r.TableAction()
    wanted.action.action_id = names.actions["NoAction"]
    assert [plain(e) for e in primary.read_tables(table_id=ternary_id, action=wanted)] == [three]


def test_a_table_can_be_full(primary: Client, names: Names, target: str) -> None:
    entries = [
        names.entry("Forward.exact_table", "Forward.drop", match=[exact(1, bytes([n])), PORT])
        for n in range(9)
    ]
    for each in entries[:8]:
        primary.write(INSERT, table_entry=each)
    error = primary.write_error(INSERT, table_entry=entries[8])
    expected = rpc_code.UNKNOWN if target == "bmv2" else rpc_code.RESOURCE_EXHAUSTED
    assert error.canonical_code == expected
    assert len(primary.read_tables(table_id=entries[0].table_id)) == 8


def test_a_batch_goes_on_after_errors_and_reports_each(primary: Client, names: Names) -> None:
    good = names.entry("Forward.exact_table", "Forward.drop", match=[DST, PORT])
    absent = names.entry("Forward.exact_table", "Forward.drop", match=[DST, exact(2, b"\2")])
    last = names.entry("Forward.lpm_table", "NoAction", match=[lpm(1, b"\2\0\0\0\0\0", 8)])
    updates = [
        p4r.Update(type=INSERT, entity=entity(good)),
        p4r.Update(type=MODIFY, entity=entity(absent)),
        p4r.Update(type=INSERT, entity=entity(good)),
        p4r.Update(type=INSERT, entity=entity(last)),
    ]
    with pytest.raises(grpc.RpcError) as failed:
        primary.write_all(*updates)
    assert failed.value.code() is grpc.StatusCode.UNKNOWN
    errors = update_errors(failed.value)
    assert [error.canonical_code for error in errors] == [
        rpc_code.OK,
        rpc_code.NOT_FOUND,
        rpc_code.ALREADY_EXISTS,
        rpc_code.OK,
    ]
    assert errors[1].message
    assert errors[1].space
    assert errors[0] == p4r.Error()
    assert [plain(e) for e in primary.read_tables(table_id=last.table_id)] == [last]


def test_atomic_batches_are_unimplemented(primary: Client, names: Names) -> None:
    entry = names.entry("Forward.exact_table", "Forward.drop", match=[DST, PORT])
    update = p4r.Update(type=INSERT, entity=entity(entry))
    for atomicity in (p4r.WriteRequest.ROLLBACK_ON_ERROR, p4r.WriteRequest.DATAPLANE_ATOMIC):
        with pytest.raises(grpc.RpcError) as failed:
            primary.write_all(update, atomicity=atomicity)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert primary.read_tables(table_id=entry.table_id) == []


def test_registers_are_unimplemented(primary: Client, names: Names) -> None:
    entry = p4r.RegisterEntry(register_id=names.registers["Forward.cells"])
    with pytest.raises(grpc.RpcError) as failed:
        primary.read(p4r.Entity(register_entry=entry))
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    error = primary.write_error(MODIFY, register_entry=entry)
    assert error.canonical_code == rpc_code.UNIMPLEMENTED


def test_an_empty_entity_is_refused(primary: Client, target: str) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        primary.read(p4r.Entity())
    expected = grpc.StatusCode.UNKNOWN if target == "bmv2" else grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.code() is expected


def test_an_empty_write_and_an_empty_read_succeed(primary: Client) -> None:
    primary.write_all()
    assert primary.read() == []


def test_wildcard_reads_of_absent_entities_are_empty(primary: Client) -> None:
    clones = p4r.PacketReplicationEngineEntry()
    clones.clone_session_entry.SetInParent()
    for nothing in (
        p4r.Entity(packet_replication_engine_entry=clones),
        p4r.Entity(action_profile_member=p4r.ActionProfileMember()),
        p4r.Entity(action_profile_group=p4r.ActionProfileGroup()),
        p4r.Entity(meter_entry=p4r.MeterEntry()),
    ):
        assert primary.read(nothing) == []
    clones.clone_session_entry.session_id = 3
    with pytest.raises(grpc.RpcError) as failed:
        primary.read(p4r.Entity(packet_replication_engine_entry=clones))
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
