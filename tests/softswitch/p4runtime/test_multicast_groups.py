"""Multicast groups: written and read back by a controller."""

from typing import Any

import grpc
import pytest
from finsy.proto import p4r, rpc_code

from support.p4runtime import DELETE, INSERT, MODIFY, Client

INVALID = rpc_code.INVALID_ARGUMENT


def group(number: int, *replicas: tuple[int, int]) -> p4r.PacketReplicationEngineEntry:
    entry = p4r.PacketReplicationEngineEntry()
    entry.multicast_group_entry.multicast_group_id = number
    for port, instance in replicas:
        entry.multicast_group_entry.replicas.add(egress_port=port, instance=instance)
    return entry


def replicas_of(entity: p4r.Entity) -> tuple[int, set[tuple[int, int]]]:
    found = entity.packet_replication_engine_entry.multicast_group_entry
    return found.multicast_group_id, {(r.egress_port, r.instance) for r in found.replicas}


def test_multicast_groups(primary: Client) -> None:
    def read(number: int) -> list[tuple[int, set[tuple[int, int]]]]:
        found = primary.read(p4r.Entity(packet_replication_engine_entry=group(number)))
        return sorted((replicas_of(entity) for entity in found), key=lambda item: item[0])

    def write(kind: Any, entry: p4r.PacketReplicationEngineEntry) -> None:
        primary.write(kind, packet_replication_engine_entry=entry)

    def code(kind: Any, entry: p4r.PacketReplicationEngineEntry) -> int:
        return primary.write_error(kind, packet_replication_engine_entry=entry).canonical_code

    write(INSERT, group(1, (1, 1), (2, 2), (2, 3)))
    write(INSERT, group(0x101, (7, 1)))
    write(INSERT, group(9))
    assert read(0) == [(1, {(1, 1), (2, 2), (2, 3)}), (9, set()), (0x101, {(7, 1)})]
    assert code(INSERT, group(1)) == rpc_code.ALREADY_EXISTS
    write(MODIFY, group(1, (4, 4)))
    assert read(1) == [(1, {(4, 4)})]
    write(DELETE, group(1))
    assert code(DELETE, group(1)) == rpc_code.NOT_FOUND
    assert code(MODIFY, group(1)) == rpc_code.NOT_FOUND
    with pytest.raises(grpc.RpcError) as failed:
        read(1)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert code(INSERT, group(0)) == INVALID
    assert code(INSERT, group(1 << 15)) == rpc_code.OUT_OF_RANGE
    assert code(INSERT, group(2, (1, 1), (1, 1))) == INVALID
    portless = group(2)
    portless.multicast_group_entry.replicas.add(instance=1)
    assert code(INSERT, portless) == INVALID


def test_a_replica_port_can_be_a_bytestring(primary: Client) -> None:
    entry = group(5)
    entry.multicast_group_entry.replicas.add(port=b"\x03", instance=2)
    primary.write(INSERT, packet_replication_engine_entry=entry)
    (found,) = primary.read(p4r.Entity(packet_replication_engine_entry=group(5)))
    assert found.packet_replication_engine_entry == entry
