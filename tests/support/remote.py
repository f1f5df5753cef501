"""A switch process under test, programmed from outside."""

from finsy.proto import p4r

from support.p4runtime import INSERT, Client, Names, exact, load_config
from wiresum.p4 import Program


class Remote:
    """A switch that is programmed over P4Runtime, as :class:`support.targets.Target` is."""

    def __init__(self, client: Client, program: Program) -> None:
        self.lanes = program.lanes
        config = load_config(program.json, program.p4info)
        self._client = client
        self._names = Names(config.p4info)
        self._bits = {
            t.preamble.name: [f.bitwidth for f in t.match_fields] for t in config.p4info.tables
        }

    def insert(
        self, table: str, match: dict[str, int], action: str, params: dict[str, int]
    ) -> None:
        fields = [
            exact(number, value.to_bytes((bits + 7) // 8))
            for number, (value, bits) in enumerate(
                zip(match.values(), self._bits[table], strict=True), 1
            )
        ]
        entry = self._names.entry(table, action, *params.values(), match=fields)
        self._client.write(INSERT, table_entry=entry)

    def remove(self, table: str, match: dict[str, int]) -> None:
        raise NotImplementedError

    def group(self, number: int, replicas: list[tuple[int, int]]) -> None:
        group = p4r.MulticastGroupEntry(multicast_group_id=number)
        for port, instance in replicas:
            group.replicas.add(egress_port=port, instance=instance)
        self._client.write(
            INSERT,
            packet_replication_engine_entry=p4r.PacketReplicationEngineEntry(
                multicast_group_entry=group
            ),
        )

    def inject(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        raise NotImplementedError

    def counter(self, name: str, index: int) -> int:
        entry = p4r.CounterEntry(
            counter_id=self._names.counters[name], index=p4r.Index(index=index)
        )
        (found,) = self._client.read(p4r.Entity(counter_entry=entry))
        return int(found.counter_entry.data.packet_count)
