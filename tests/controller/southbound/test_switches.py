"""Switches that restart, drift, refuse, freeze, vanish; all seen through P4Runtime."""

import asyncio
from dataclasses import replace

import pytest
from controller_rig import QUICK, Clock, Rig, until
from fake_switch import FakeSwitch
from finsy.proto import p4r

from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.office.office import Office
from wiresum.controller.southbound.apart import GoneError
from wiresum.controller.southbound.p4runtime import ELECTION_STEP, SwitchConnection
from wiresum.controller.southbound.reconcile import Batch
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import program


async def listed(rig: Rig, *, counters: bool = False) -> pb.Switch:
    (switch,) = await rig.call(lambda client: client.list_switches(counters=counters))
    return switch


async def test_an_idle_switch(rig: Rig) -> None:
    switch = await listed(rig)
    assert (switch.state, switch.reason) == (pb.SWITCH_STATE_UP, "")
    assert (switch.slots, switch.free_slots, switch.jobs) == (4096, 4096, 0)
    assert switch.program_version == program(64).version
    assert rig.switch.table("addresses") == [{"ip": 0x7F000001, "mac": 0x02007F000001}]
    assert rig.switch.table("own_source") == []
    assert {replica.egress_port for replica in rig.switch.memory.groups[1].replicas} == {1, 2}


async def test_a_restarted_switch_is_programmed_again(rig: Rig, fake: FakeSwitch) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    before = sorted(fake.table("membership"), key=str)
    await fake.kill()
    await until(lambda: "cannot be reached" in rig.office.fleet.loop("s1").reason)
    switch = await listed(rig, counters=True)
    assert switch.state == pb.SWITCH_STATE_DOWN
    assert "cannot be reached" in switch.reason
    assert "cannot be reached" in switch.counters_error
    await fake.start()
    await until(lambda: rig.office.fleet.is_up("s1"))
    assert fake.pushes == 2
    assert sorted(fake.table("membership"), key=str) == before


async def test_a_lost_connection_does_not_empty_the_switch(rig: Rig, fake: FakeSwitch) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    await fake.kill(keep_memory=True)
    await until(lambda: not rig.office.fleet.is_up("s1"))
    fake.log.clear()
    await fake.start()
    await until(lambda: rig.office.fleet.is_up("s1"))
    assert (fake.pushes, fake.log) == (1, [])


async def test_entries_that_the_store_does_not_know_are_removed(rig: Rig, fake: FakeSwitch) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    # As another controller might have left it: an entry gone, a foreign one, a changed one.
    wanted = {name: sorted(fake.table(name), key=str) for name in ("membership", "deliver", "l2")}
    keys = list(fake.memory.entries)
    schema = fake.memory.schema
    assert schema is not None
    member, deliver = schema.tables["membership"].id, schema.tables["deliver"].id
    del fake.memory.entries[next(k for k in keys if fake.memory.entries[k].table_id == member)]
    changed = next(e for e in fake.memory.entries.values() if e.table_id == deliver)
    changed.action.action.params[1].value = b"\x01"
    foreign = p4r.TableEntry(table_id=schema.tables["l2"].id)
    foreign.match.add(field_id=1).exact.value = b"\x42"
    foreign.action.action.action_id = schema.actions["to_port"].id
    foreign.action.action.params.add(param_id=1, value=b"\x09")
    fake.memory.entries[
        p4r.TableEntry(table_id=foreign.table_id, match=foreign.match).SerializeToString(
            deterministic=True
        )
    ] = foreign
    fake.memory.groups[77] = p4r.MulticastGroupEntry(multicast_group_id=77)
    fake.log.clear()
    rig.office.fleet.wake("s1")
    await until(lambda: len(fake.log) >= 4)
    assert sorted(fake.log) == ["DELETE group", "DELETE l2", "INSERT membership", "MODIFY deliver"]
    found = {name: sorted(fake.table(name), key=str) for name in wanted}
    assert found == wanted
    assert set(fake.memory.groups) == {1, 0x101}


async def test_drift_is_found_without_a_reason_to_look(
    fake: FakeSwitch, clock: Clock, tmp_path: object
) -> None:
    import dataclasses

    store = SqliteStore(":memory:")
    office = Office(store, clock=clock, loop_options=dataclasses.replace(QUICK, period_s=0.05))
    await office.start()
    try:
        facts = Rig(office, clock, fake, "127.0.0.1:1").facts()
        await office.add_switch(facts)
        await until(lambda: office.fleet.is_up("s1"))
        fake.memory.groups.clear()
        await until(lambda: 1 in fake.memory.groups)
    finally:
        await office.stop()
        store.close()


async def test_a_switch_that_refuses_says_so_in_one_line(rig: Rig, fake: FakeSwitch) -> None:
    fake.refuse_writes = True
    job = await rig.create("demo")
    await until(lambda: not rig.office.fleet.is_up("s1"))
    assert (await listed(rig)).reason.endswith("answered RESOURCE_EXHAUSTED: out of TCAM")
    fake.refuse_writes = False
    await rig.join_all(job)
    assert rig.office.fleet.is_up("s1")


async def test_a_switch_that_does_not_answer(rig: Rig, fake: FakeSwitch) -> None:
    fake.freeze.clear()
    with pytest.raises(ControllerError, match=r"did not tell its counters: .* did not answer"):
        await rig.office.fleet.loop("s1").read_drops()
    fake.freeze.set()


@pytest.mark.parametrize("moment", range(6))
async def test_a_switch_that_dies_in_the_middle(rig: Rig, fake: FakeSwitch, moment: int) -> None:
    for attempt in range(3):
        job = await rig.create()
        # It dies when so many of the requests that joining causes have been answered.
        fake.patience = moment
        joins = asyncio.create_task(rig.join_all(job, 2, attempt))
        await until(lambda: fake.patience < 0)
        await fake.kill()
        await until(lambda: not rig.office.fleet.is_up("s1"))
        fake.patience = 1000
        fake.freeze.set()
        await fake.start()
        await joins
        assert rig.office.fleet.is_up("s1")


async def test_a_stream_that_ends_while_an_answer_is_outstanding(
    rig: Rig, fake: FakeSwitch
) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    # finsy then closes the channel, and gRPC cancels whoever waits for the answer.
    fake.patience = 2
    rig.office.fleet.wake("s1")
    await until(lambda: fake.patience < 0)
    fake.hang_up()
    await until(lambda: not rig.office.fleet.is_up("s1"))
    assert "was lost" in rig.office.fleet.loop("s1").reason
    fake.patience = 1000
    fake.freeze.set()
    await rig.join_all(job, attempt=1)


async def test_another_controller_is_in_charge(rig: Rig, fake: FakeSwitch, clock: Clock) -> None:
    second = Office(SqliteStore(":memory:"), clock=clock, loop_options=QUICK)
    await second.start()
    try:
        await second.add_switch(rig.facts())
        loop = second.fleet.loop("s1")
        await until(lambda: "another controller is in charge" in loop.reason)
        assert not second.fleet.is_up("s1")
        # It takes over when the first one is gone.
        await rig.office.fleet.stop()
        await until(lambda: second.fleet.is_up("s1"))
        assert fake.pushes == 1
    finally:
        await second.stop()


async def test_a_switch_obeys_the_later_leader(rig: Rig, fake: FakeSwitch, clock: Clock) -> None:
    later = replace(QUICK, election_id=QUICK.election_id + ELECTION_STEP)
    second = Office(SqliteStore(":memory:"), clock=clock, loop_options=later)
    await second.start()
    try:
        await second.add_switch(rig.facts())
        await until(lambda: second.fleet.is_up("s1"))
        await until(lambda: not rig.office.fleet.is_up("s1"))
        reason = (
            f"another controller is in charge of {fake.address} (election id {later.election_id})"
        )
        await until(lambda: reason in rig.office.fleet.loop("s1").reason)
    finally:
        await second.stop()


async def test_who_does_not_lead_any_more_writes_no_further(fake: FakeSwitch) -> None:
    """It may learn so between two requests of one batch."""
    written: list[int] = []

    class Wire:
        address = fake.address

        async def write(self, updates: list[object]) -> None:
            written.append(len(updates))

    def may_write() -> None:
        if len(written) == 2:
            raise NotLeading("UNAVAILABLE", "another controller leads")

    connection = SwitchConnection(Wire(), may_write)  # type: ignore[arg-type]
    with pytest.raises(NotLeading):
        await connection.write(Batch(delete_groups=tuple(range(1, 1200))))
    assert written == [500, 500]
    # Nor does one that another has taken the switch from.
    other = SwitchConnection(Wire())  # type: ignore[arg-type]
    other.down.set()
    with pytest.raises(GoneError, match="was lost"):
        await other.write(Batch(delete_groups=(1,)))
    assert len(written) == 2


async def test_a_wrong_device(rig: Rig) -> None:
    with pytest.raises(ControllerError, match="is already known as switch s1"):
        await rig.office.add_switch(rig.facts("s2"))
    await rig.office.add_switch(rig.facts("s2", device_id=1))
    loop = rig.office.fleet.loop("s2")
    await until(lambda: "no device 1" in loop.reason)


async def test_counters(rig: Rig, fake: FakeSwitch) -> None:
    # What somebody who had the number before has left.
    for index in range(8, 16):
        fake.count("events", index, 999)
    job = await rig.create("demo")
    (lease, _) = await rig.join_all(job)
    assert lease.job == 1
    assert set((await rig.get(job, counters=True)).events.values()) == {0}
    fake.count("events", 8 + 2, 41)
    fake.count("drops", 8, 7)
    events = dict((await rig.get(job, counters=True)).events)
    assert events["completed"] == 41
    assert sum(events.values()) == 41
    assert (await listed(rig, counters=True)).drops["stranger"] == 7
    # A restart of the job's workers does not take the counters back.
    await rig.join_all(job, attempt=1)
    assert (await rig.get(job, counters=True)).events["completed"] == 41
    await rig.call(lambda client: client.release_job(job.id, job.token))
    assert (await rig.get(job, counters=True)).events["completed"] == 41
    assert list((await rig.get(job)).events) == []


async def test_removing_a_switch_empties_it(rig: Rig, fake: FakeSwitch) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    with pytest.raises(ControllerError, match=r"switch s1 has live jobs \(demo"):
        await rig.call(lambda client: client.remove_switch("s1"))
    await rig.call(lambda client: client.release_job(job.id, job.token))
    await rig.call(lambda client: client.remove_switch("s1"))
    assert (fake.memory.entries, fake.memory.groups) == ({}, {})
    assert await rig.call(lambda client: client.list_switches()) == []
    with pytest.raises(ControllerError, match=r"no switch 's1' \(known: none"):
        await rig.call(lambda client: client.remove_switch("s1"))
    with pytest.raises(ControllerError, match="knows no switch"):
        await rig.create("other")
    # What is over is still told.
    assert (await rig.get(job)).switch == "s1"


async def test_facts_of_a_busy_switch(rig: Rig, fake: FakeSwitch) -> None:
    await rig.create("demo")
    with pytest.raises(ControllerError, match="cannot be changed now"):
        await rig.office.add_switch(rig.facts(lanes=256))
    # The way to its P4Runtime may change at any time.
    await fake.kill()
    fake.address += "2"
    await fake.start()
    await rig.office.add_switch(rig.facts(p4runtime=fake.address))
    await until(lambda: rig.office.fleet.is_up("s1"))
    assert fake.pushes == 2


@pytest.mark.parametrize(
    ("pattern", "changes"),
    [
        ("'' is no P4Runtime address", {"p4runtime": ""}),
        ("'http://x:1' is no P4Runtime address", {"p4runtime": "http://x:1"}),
        (r"'unix:/a\\x1b\[31m' is no P4Runtime", {"p4runtime": "unix:/a\x1b[31m"}),
        (r"'a\\nb:1' is no P4Runtime", {"p4runtime": "a\nb:1"}),
        ("'10.0.0' is not an IPv4", {"ip": "10.0.0"}),
        ("no program of 65 lanes: choose 64 or 256", {"lanes": 65}),
        ("no hosts", {"hosts": []}),
        ("'10.0.0.1/8' is not an IPv4 network", {"hosts": [("10.0.0.1/8", 1)]}),
        ("511 is not a switch port", {"hosts": [("10.0.0.0/8", 511)]}),
        ("behind two ports", {"hosts": [("10.0.0.0/8", 1), ("10.0.0.0/8", 2)]}),
        ("port 70000 is not a UDP port", {"udp_port": 70000}),
        ("'zz' is not a MAC", {"mac": "zz"}),
    ],
)
async def test_impossible_switches(rig: Rig, pattern: str, changes: dict[str, object]) -> None:
    with pytest.raises(ControllerError, match=pattern) as caught:
        await rig.office.add_switch(rig.facts("s2", **changes))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert [switch.name for switch in rig.office.store.switches()] == ["s1"]


async def test_the_switch_s_own_address_is_its_own(rig: Rig) -> None:
    await rig.office.add_switch(rig.facts(ip="10.0.2.254"))
    await until(lambda: rig.switch.table("own_source") == [{"ip": 0x0A0002FE}])
    job = await rig.create("demo")
    with pytest.raises(ControllerError, match="has the address of switch s1 itself"):
        await rig.join(job, 0, ip="10.0.2.254")
    await asyncio.gather(rig.join(job, 0, ip="10.0.2.1"), rig.join(job, 1))
