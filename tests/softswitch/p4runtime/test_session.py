"""Arbitration, the forwarding-pipeline config, and the right to write."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from finsy.proto import p4r, rpc_code

from support.p4runtime import DELETE, INSERT, Client, Names, SetConfig, exact, uint128

Connect = Callable[..., Client]
GetConfig = p4r.GetForwardingPipelineConfigRequest


def code_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failed:
        call(*args, **kwargs)
    return failed.value.code()


def entry(names: Names) -> p4r.TableEntry:
    match = [exact(1, b"\1"), exact(2, b"\1")]
    return names.entry("Forward.exact_table", "Forward.drop", match=match)


# -- arbitration -------------------------------------------------------------------------------

BASE = 1 << 100  # above the ids of the other fixtures


def test_the_highest_election_id_is_primary(connect: Connect) -> None:
    low = connect(BASE + 10)
    assert low.standing() == (rpc_code.OK, BASE + 10)
    backup = connect(BASE + 5)
    assert backup.standing() == (rpc_code.ALREADY_EXISTS, BASE + 10)
    high = connect(BASE + 20)
    assert high.standing() == (rpc_code.OK, BASE + 20)
    # All clients are told of the change, and so is the former primary.
    assert low.standing() == (rpc_code.ALREADY_EXISTS, BASE + 20)
    assert backup.standing() == (rpc_code.ALREADY_EXISTS, BASE + 20)
    # The primary leaves: the next one takes over.
    high.close()
    assert low.standing() == (rpc_code.OK, BASE + 10)
    assert backup.standing() == (rpc_code.ALREADY_EXISTS, BASE + 10)
    # A backup raises its id.
    backup.arbitrate(BASE + 30)
    assert backup.standing() == (rpc_code.OK, BASE + 30)
    assert low.standing() == (rpc_code.ALREADY_EXISTS, BASE + 30)
    # The primary steps down.
    backup.arbitrate(BASE + 1)
    assert backup.standing() == (rpc_code.ALREADY_EXISTS, BASE + 10)
    assert low.standing() == (rpc_code.OK, BASE + 10)


def test_an_election_id_cannot_be_used_twice(connect: Connect, target: str) -> None:
    first = connect(BASE + 10)
    assert first.standing()[0] == rpc_code.OK
    second = connect(BASE + 10)
    error = second.end()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "election id already exists" in error.details().lower()  # finsy checks for it
    if target == "bmv2":
        pytest.skip("BMv2 forgets to remove a controller that changes to an id in use, and hangs")
    third = connect(BASE + 9)
    assert third.standing()[0] == rpc_code.ALREADY_EXISTS
    third.arbitrate(BASE + 10)
    assert third.end().code() is grpc.StatusCode.INVALID_ARGUMENT
    first.arbitrate(BASE + 11)
    assert first.standing() == (rpc_code.OK, BASE + 11)


def test_a_stale_primary_is_refused(primary: Client, connect: Connect, names: Names) -> None:
    primary.write(INSERT, table_entry=entry(names))
    newer = connect((primary.election_id or 0) + (1 << 80))
    assert newer.standing()[0] == rpc_code.OK
    assert primary.standing()[0] == rpc_code.ALREADY_EXISTS
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert code_of(primary.write, INSERT, table_entry=entry(names)) is denied
    assert code_of(primary.set_config, primary.get_config()) is denied
    assert len(primary.read_tables(table_id=entry(names).table_id)) == 1  # anyone may read
    newer.close()
    assert primary.standing()[0] == rpc_code.OK
    primary.write_all()


def test_a_write_needs_the_election_id_of_the_primary(
    primary: Client, connect: Connect, names: Names
) -> None:
    denied = grpc.StatusCode.PERMISSION_DENIED
    nobody = connect()
    assert code_of(nobody.write, INSERT, table_entry=entry(names)) is denied
    nobody.election_id = (primary.election_id or 0) + 1
    assert code_of(nobody.write, INSERT, table_entry=entry(names)) is denied
    # The election id alone identifies the client, as in BMv2 and as the specification says.
    nobody.election_id = primary.election_id
    nobody.write(INSERT, table_entry=entry(names))


def test_without_a_primary_no_client_may_write(connect: Connect, names: Names, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 lets anyone write while no controller is connected")
    nobody = connect()
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert code_of(nobody.write, INSERT, table_entry=entry(names)) is denied
    nobody.election_id = 1
    assert code_of(nobody.write, INSERT, table_entry=entry(names)) is denied


def test_the_device_must_exist(connect: Connect, names: Names, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 makes a device of any number")
    not_found = grpc.StatusCode.NOT_FOUND
    stranger = connect(BASE, device_id=7)
    assert stranger.end().code() is not_found
    assert code_of(stranger.write, INSERT, table_entry=entry(names)) is not_found
    assert code_of(stranger.read_tables) is not_found
    assert code_of(stranger.get_config) is not_found
    assert code_of(stranger.set_config, None) is not_found


def test_the_device_cannot_change_on_a_stream(primary: Client) -> None:
    primary.device_id = 7
    primary.arbitrate(primary.election_id)
    assert primary.end().code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_controller_without_an_election_id_is_a_backup(connect: Connect, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 takes it for election id 0")
    standby = connect()
    standby.arbitrate(None)
    assert standby.standing() == (rpc_code.NOT_FOUND, 0)
    other = connect()
    other.arbitrate(None)
    assert other.standing() == (rpc_code.NOT_FOUND, 0)
    # Zero is an id like any other.
    zero = connect(0)
    assert zero.standing() == (rpc_code.OK, 0)
    assert standby.standing() == (rpc_code.ALREADY_EXISTS, 0)


def test_roles_are_refused(connect: Connect, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 ignores roles")
    client = connect()
    client.arbitrate(BASE, role=p4r.Role(name="reader"))
    assert client.end().code() is grpc.StatusCode.FAILED_PRECONDITION


def test_too_many_controllers_are_refused(connect: Connect) -> None:
    clients = [connect(BASE + n) for n in range(16)]
    for client in clients:
        client.standing()
    assert connect(BASE + 99).end().code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# -- the config --------------------------------------------------------------------------------


def test_get_config(primary: Client, config: p4r.ForwardingPipelineConfig) -> None:
    assert primary.get_config() == config
    assert primary.get_config(GetConfig.COOKIE_ONLY) == p4r.ForwardingPipelineConfig(
        cookie=config.cookie
    )
    assert primary.get_config(GetConfig.P4INFO_AND_COOKIE) == p4r.ForwardingPipelineConfig(
        p4info=config.p4info, cookie=config.cookie
    )
    assert primary.get_config(GetConfig.DEVICE_CONFIG_AND_COOKIE) == p4r.ForwardingPipelineConfig(
        p4_device_config=config.p4_device_config, cookie=config.cookie
    )


def test_a_new_config_clears_all_entries(
    primary: Client, names: Names, config: p4r.ForwardingPipelineConfig
) -> None:
    primary.write(INSERT, table_entry=entry(names))
    without_cookie = p4r.ForwardingPipelineConfig()
    without_cookie.CopyFrom(config)
    without_cookie.ClearField("cookie")
    primary.set_config(without_cookie)
    assert primary.read_tables(table_id=entry(names).table_id) == []
    assert not primary.get_config().HasField("cookie")


def test_reconcile_keeps_the_entries(
    primary: Client, names: Names, config: p4r.ForwardingPipelineConfig, target: str
) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 cannot reconcile a program with counters or const entries")
    primary.write(INSERT, table_entry=entry(names))
    counter = p4r.CounterEntry(counter_id=names.counters["Forward.seen"])
    counter.index.index = 2
    counter.data.packet_count = 4
    primary.write(p4r.Update.MODIFY, counter_entry=counter)
    primary.set_config(config, SetConfig.RECONCILE_AND_COMMIT)
    (found,) = primary.read_tables(table_id=entry(names).table_id)
    assert found.match == entry(names).match
    (kept,) = primary.read(p4r.Entity(counter_entry=counter))
    assert kept.counter_entry.data.packet_count == 4


def test_reconcile_refuses_a_config_that_loses_entries(
    primary: Client, names: Names, config: p4r.ForwardingPipelineConfig, target: str
) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 finds out too late")
    one, two = entry(names), entry(names)
    two.match[0].exact.value = b"\2"
    primary.write(INSERT, table_entry=one)
    primary.write(INSERT, table_entry=two)
    smaller, without, const = (p4r.ForwardingPipelineConfig() for _ in range(3))
    for each in (smaller, without, const):
        each.CopyFrom(config)
    assert config.p4info.tables[0].preamble.id == one.table_id
    smaller.p4info.tables[0].size = 1
    const.p4info.tables[0].is_const_table = True
    del without.p4info.tables[0]
    for each in (smaller, without, const):
        code = code_of(primary.set_config, each, SetConfig.RECONCILE_AND_COMMIT)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert primary.get_config() == config
        assert len(primary.read_tables(table_id=one.table_id)) == 2
    primary.write(DELETE, table_entry=two)
    primary.set_config(smaller, SetConfig.RECONCILE_AND_COMMIT)
    assert len(primary.read_tables(table_id=one.table_id)) == 1


def test_verify_changes_nothing(
    primary: Client, names: Names, config: p4r.ForwardingPipelineConfig
) -> None:
    primary.write(INSERT, table_entry=entry(names))
    other = p4r.ForwardingPipelineConfig()
    other.CopyFrom(config)
    other.cookie.cookie = 5
    primary.set_config(other, SetConfig.VERIFY)
    assert primary.get_config(GetConfig.COOKIE_ONLY).cookie.cookie == config.cookie.cookie
    assert len(primary.read_tables(table_id=entry(names).table_id)) == 1


def test_save_and_commit(
    primary: Client, names: Names, config: p4r.ForwardingPipelineConfig, target: str
) -> None:
    if target == "bmv2":
        pytest.skip("BMv2's COMMIT needs no config and finds no error")
    assert code_of(primary.set_config, None, SetConfig.COMMIT) is grpc.StatusCode.NOT_FOUND
    primary.write(INSERT, table_entry=entry(names))
    other = p4r.ForwardingPipelineConfig()
    other.CopyFrom(config)
    other.cookie.cookie = 5
    primary.set_config(other, SetConfig.VERIFY_AND_SAVE)
    assert primary.get_config(GetConfig.COOKIE_ONLY).cookie.cookie == config.cookie.cookie
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(primary.set_config, other, SetConfig.COMMIT) is invalid
    primary.set_config(None, SetConfig.COMMIT)
    assert primary.get_config(GetConfig.COOKIE_ONLY).cookie.cookie == 5
    assert primary.read_tables(table_id=entry(names).table_id) == []
    assert code_of(primary.set_config, None, SetConfig.COMMIT) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("action", [SetConfig.VERIFY, SetConfig.VERIFY_AND_COMMIT])
def test_bad_configs_are_refused(
    primary: Client, config: p4r.ForwardingPipelineConfig, target: str, action: Any
) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 believes most of what it is given")

    def changed(**fields: Any) -> p4r.ForwardingPipelineConfig:
        copy = p4r.ForwardingPipelineConfig()
        copy.CopyFrom(config)
        for name, value in fields.items():
            setattr(copy, name, value)
        return copy

    other_key = changed()
    other_key.p4info.tables[0].match_fields[0].match_type = 3
    other_table = changed()
    other_table.p4info.tables[0].preamble.name = "Forward.nothing"
    other_size = changed()
    other_size.p4info.counters[0].size += 1
    same_id = changed()
    same_id.p4info.tables[1].preamble.id = same_id.p4info.tables[0].preamble.id
    bad = [
        None,
        p4r.ForwardingPipelineConfig(p4info=config.p4info),
        changed(p4_device_config=b"\0\1garbage"),
        changed(p4_device_config=b"[]"),
        changed(p4_device_config=b"{}"),
        other_key,
        other_table,
        other_size,
        same_id,
    ]
    for each in bad:
        assert code_of(primary.set_config, each, action) is grpc.StatusCode.INVALID_ARGUMENT
    assert primary.get_config() == config


def test_the_action_must_be_set(primary: Client, config: p4r.ForwardingPipelineConfig) -> None:
    code = code_of(primary.set_config, config, SetConfig.UNSPECIFIED)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_capabilities(connect: Connect) -> None:
    answer = connect().stub.Capabilities(p4r.CapabilitiesRequest(), timeout=30)
    major, *_ = answer.p4runtime_api_version.split(".")
    assert major == "1"


def test_a_write_of_another_role_is_refused(primary: Client, target: str) -> None:
    if target == "bmv2":
        pytest.skip("BMv2 ignores roles")
    request = p4r.WriteRequest(device_id=0, role="reader")
    request.election_id.CopyFrom(uint128(primary.election_id or 0))
    assert code_of(primary.stub.Write, request, timeout=30) is grpc.StatusCode.NOT_FOUND
