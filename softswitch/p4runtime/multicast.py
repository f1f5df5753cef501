"""MulticastGroupEntry: what the packet replication engine copies where."""

from collections.abc import Iterator

from finsy.proto import p4r

from wiresum.softswitch.p4runtime.dataplane import DataplaneControl, Replica
from wiresum.softswitch.p4runtime.status import (
    already_exists,
    invalid,
    not_found,
    out_of_range,
    unimplemented,
)

FIRST_RESERVED_GROUP = 1 << 15
"""BMv2 keeps the groups from here on for clone sessions; so does this server."""

MAX_REPLICA_PORT = 511
MAX_INSTANCE = 0xFFFF


class MulticastGroups:
    """The multicast groups of one running program.

    They are kept here as the controller wrote them, so that a read gives back the same bytes.
    """

    def __init__(self, dataplane: DataplaneControl) -> None:
        self._dataplane = dataplane
        self._groups: dict[int, p4r.MulticastGroupEntry] = {}

    def write(self, kind: "p4r.Update.Type.ValueType", entry: p4r.MulticastGroupEntry) -> None:
        """Apply one update; raises P4RuntimeError."""
        group = entry.multicast_group_id
        if group == 0:
            raise invalid("0 is not a valid multicast group id")
        if group >= FIRST_RESERVED_GROUP:
            raise out_of_range(f"multicast group ids end at {FIRST_RESERVED_GROUP - 1}")
        if kind == p4r.Update.INSERT:
            if group in self._groups:
                raise already_exists("Multicast group already exists")
            self._dataplane.create_multicast_group(group, _replicas(entry))
            self._remember(entry)
        elif kind == p4r.Update.MODIFY:
            self._require(group)
            self._dataplane.modify_multicast_group(group, _replicas(entry))
            self._remember(entry)
        elif kind == p4r.Update.DELETE:
            self._require(group)
            self._dataplane.delete_multicast_group(group)
            del self._groups[group]
        else:
            raise invalid("the update's type is not set")

    def _remember(self, entry: p4r.MulticastGroupEntry) -> None:
        kept = p4r.MulticastGroupEntry()
        kept.CopyFrom(entry)
        self._groups[entry.multicast_group_id] = kept

    def _require(self, group: int) -> None:
        if group not in self._groups:
            raise not_found("Multicast group does not exist")

    def read(self, request: p4r.MulticastGroupEntry) -> Iterator[p4r.MulticastGroupEntry]:
        """Yield one group, or all where the id is 0; raises P4RuntimeError."""
        group = request.multicast_group_id
        if group >= FIRST_RESERVED_GROUP:
            raise out_of_range(f"multicast group ids end at {FIRST_RESERVED_GROUP - 1}")
        if group:
            self._require(group)
            yield self._groups[group]
        else:
            yield from self._groups.values()


def _port(replica: p4r.Replica) -> int:
    kind = replica.WhichOneof("port_kind")
    if kind is None:
        raise invalid("a replica has no port")
    if kind == "port":
        if not replica.port:
            raise invalid("a replica's port is an empty bytestring")
        port = int.from_bytes(replica.port, "big")
    else:
        port = replica.egress_port
    if port > MAX_REPLICA_PORT:
        raise invalid(f"a replica's port {port} is above {MAX_REPLICA_PORT}")
    return port


def _replicas(entry: p4r.MulticastGroupEntry) -> list[Replica]:
    replicas: list[Replica] = []
    for message in entry.replicas:
        if message.backup_replicas:
            raise unimplemented("backup replicas are not supported")
        if message.instance > MAX_INSTANCE:
            raise invalid(f"a replica's instance {message.instance} is above {MAX_INSTANCE}")
        replica = Replica(_port(message), message.instance)
        if replica in replicas:
            raise invalid("Duplicate replica in multicast group")
        replicas.append(replica)
    return replicas
