"""The desired state, and the way from any state to it."""

import dataclasses
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from wiresum.controller.southbound.desired import (
    MEMBERSHIP,
    Action,
    Key,
    Replica,
    Tables,
    desired,
    fields,
)
from wiresum.controller.southbound.reconcile import Batch, reconcile, steps
from wiresum.controller.state.model import (
    HostRange,
    Job,
    JobState,
    Lease,
    Member,
    SlotRange,
    Switch,
    default_mac,
)

SWITCH_IP = IPv4Address("10.0.0.254")
SWITCH = Switch(
    name="s1",
    p4runtime="127.0.0.1:9559",
    device_id=0,
    ip=SWITCH_IP,
    udp_port=22355,
    mac=default_mac(SWITCH_IP),
    lanes=64,
    slots=4096,
    hosts=(
        HostRange(IPv4Network("10.0.1.0/24"), 3),
        HostRange(IPv4Network("10.0.2.0/24"), 4),
        HostRange(IPv4Network("10.0.2.7/32"), 5),
    ),
    shared_address=False,
)


def job(number: int = 9, workers: int = 2, state: JobState = JobState.READY) -> Job:
    addresses = [IPv4Address("10.0.2.1") + rank for rank in range(workers)]
    return Job(
        id=f"j-{number}",
        tenant="default",
        name="demo",
        state=state,
        reason="",
        created=0,
        attempt=0,
        epoch=77,
        key=2**64 - 1,
        reply_key=2**64 - 2,
        workers=workers,
        field=32,
        lease=Lease("s1", number, SlotRange(512, 256), counters_reset=True),
        members=tuple(
            Member(rank, ip, 4000 + rank, default_mac(ip), 4) for rank, ip in enumerate(addresses)
        ),
    )


def test_an_idle_switch_has_its_address_and_floods() -> None:
    tables = desired(SWITCH, [job(state=JobState.WAITING)])
    ip = int(SWITCH_IP)
    assert tables.entries == {
        Key("addresses", fields(ip=ip)): Action("switch_address", fields(mac=SWITCH.mac)),
        Key("own_source", fields(ip=ip)): Action("spoofed_source", ()),
        Key("hosts", fields(ip=int(IPv4Address("10.0.2.7")))): Action("behind", fields(port=5)),
        Key("routes", fields(ip=int(IPv4Address("10.0.2.7")))): Action("to_port", fields(port=5)),
    }
    assert tables.groups == {1: frozenset({Replica(3, 0), Replica(4, 0), Replica(5, 0)})}


def test_a_ready_job_has_entries_for_each_worker() -> None:
    tables = desired(SWITCH, [job()])
    assert tables.groups[0x100 + 9] == frozenset({Replica(4, 1), Replica(4, 2)})
    counts: dict[str, int] = {}
    for key in tables.entries:
        counts[key.table] = counts.get(key.table, 0) + 1
    assert counts == {
        "addresses": 1, "own_source": 1, "hosts": 3, "routes": 3, "deliver": 2, MEMBERSHIP: 2,
    }  # fmt: skip
    worker = Key("hosts", fields(ip=int(job().members[1].ip)))
    assert tables.entries[worker] == Action("behind", fields(port=4))
    assert tables.entries[Key("routes", worker.match)] == Action("to_port", fields(port=4))
    member = next(
        action
        for key, action in tables.entries.items()
        if key.table == MEMBERSHIP and dict(key.match)["udp_port"] == 4001
    )
    assert dict(member.parameters) == {
        "worker": 1,
        "worker_bit": 2,
        "full": 3,
        "slot_base": 512,
        "slot_count": 256,
        "group": 0x109,
        "reply_key": 2**64 - 2,
    }


def test_workers_may_share_the_address_of_a_softswitch_on_their_host() -> None:
    shared = dataclasses.replace(SWITCH, shared_address=True)
    itself = dataclasses.replace(job().members[0], ip=SWITCH_IP, mac=SWITCH.mac)
    tables = desired(shared, [dataclasses.replace(job(), members=(itself,))])
    assert {key.table for key in tables.entries} == {"addresses", "deliver", MEMBERSHIP}


def test_the_longest_host_range_counts() -> None:
    assert SWITCH.port_of(IPv4Address("10.0.2.6")) == 4
    assert SWITCH.port_of(IPv4Address("10.0.2.7")) == 5
    assert SWITCH.port_of(IPv4Address("10.0.3.1")) is None


def test_the_tables_are_those_of_the_program() -> None:
    from finsy import P4Schema, P4TableAction, P4TableEntry, P4TableMatch

    from wiresum.controller.rules.joining import MEMBERS_PER_SWITCH
    from wiresum.p4 import LANE_COUNTS, program

    for lanes in LANE_COUNTS:
        schema = P4Schema(program(lanes).p4info)
        for key, action in desired(SWITCH, [job()]).entries.items():
            P4TableEntry(
                key.table,
                match=P4TableMatch(dict(key.match)),
                action=P4TableAction(action.name, **dict(action.parameters)),
            ).encode(schema)
            assert len(schema.tables[key.table].match_fields) == len(key.match)
        assert schema.tables[MEMBERSHIP].size == MEMBERS_PER_SWITCH
        assert schema.tables["deliver"].size == MEMBERS_PER_SWITCH


# ---- the way there

KEYS = st.builds(
    lambda table, value: Key(table, fields(x=value)),
    st.sampled_from([MEMBERSHIP, "hosts", "deliver"]),
    st.integers(0, 5),
)
ACTIONS = st.builds(lambda value: Action("do", fields(y=value)), st.integers(0, 2))
GROUPS = st.dictionaries(
    st.integers(1, 4),
    st.frozensets(st.builds(Replica, st.integers(1, 3), st.integers(0, 2)), max_size=3),
)
TABLES = st.builds(Tables, st.dictionaries(KEYS, ACTIONS), GROUPS)


class Model:
    """A switch that refuses what P4Runtime refuses."""

    def __init__(self, tables: Tables) -> None:
        self.entries = dict(tables.entries)
        self.groups = dict(tables.groups)
        self.order: list[str] = []

    async def read(self) -> Tables:
        return Tables(dict(self.entries), dict(self.groups))

    async def write(self, change: Batch) -> None:
        for key in change.delete:
            del self.entries[key]
            self.order.append("-member" if key.table == MEMBERSHIP else "-other")
        for group in change.delete_groups:
            del self.groups[group]
            self.order.append("-other")
        for key, action in change.insert:
            assert key not in self.entries
            self.entries[key] = action
            self.order.append("+member" if key.table == MEMBERSHIP else "+other")
        for key, action in change.modify:
            assert key in self.entries
            assert key.table != MEMBERSHIP
            self.entries[key] = action
            self.order.append("+other")
        for group, replicas in change.insert_groups:
            assert group not in self.groups
            self.groups[group] = replicas
            self.order.append("+other")
        for group, replicas in change.modify_groups:
            assert group in self.groups
            self.groups[group] = replicas
            self.order.append("+other")

    async def reset_job_counters(self, numbers: object) -> None:
        self.order.append("reset")


@given(TABLES, TABLES)
async def test_any_state_leads_to_the_desired_one(actual: Tables, wanted: Tables) -> None:
    switch = Model(actual)
    writes = await reconcile(switch, wanted, [1])
    assert (switch.entries, switch.groups) == (wanted.entries, wanted.groups)
    assert writes == len(switch.order) - 1
    phases = ["-member", "-other", "reset", "+other", "+member"]
    assert switch.order == sorted(switch.order, key=phases.index)
    assert steps(await switch.read(), wanted) == ([], [])
