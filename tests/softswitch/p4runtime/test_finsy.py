"""The embedded switch under finsy, which the controller uses, running wiresum's own program."""

import asyncio
from collections.abc import Iterator

import finsy as fy
import pytest

from support.switch_process import SwitchProcess
from wiresum import p4
from wiresum.p4.packet import FLOOD_GROUP

LIMIT_S = 30
OWN = p4.program(64)

MEMBER = {
    "ingress_port": 1, "ip": 0x7F000001, "udp_port": 4000, "job": 3, "epoch": 9, "key": 1 << 63,
}  # fmt: skip


@pytest.fixture(scope="module", params=["empty", "preloaded"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    options = ["--p4runtime", "127.0.0.1:0", "--port", "1=udp:127.0.0.1:0"]
    if request.param == "preloaded":
        options += ["--lanes", "64"]
    with SwitchProcess(*options) as switch:
        yield switch.p4runtime


async def connected(address: str) -> fy.Switch:
    options = fy.SwitchOptions(
        p4info=OWN.p4info, p4blob=OWN.json, device_id=0, initial_election_id=10
    )
    return fy.Switch("one", address, options)


async def test_a_controller_programs_the_switch(address: str) -> None:
    entries = [
        fy.P4TableEntry("addresses", match=fy.Match(ip=0x7F000001),
                        action=fy.Action("switch_address", mac=0x020000000001)),
        fy.P4TableEntry("membership", match=fy.Match(**MEMBER),
                        action=fy.Action("member", worker=1, worker_bit=2, full=3, slot_base=0,
                                         slot_count=8, group=0x103, reply_key=2**64 - 1)),
        fy.P4TableEntry("deliver", match=fy.Match(job=3, worker=1),
                        action=fy.Action("deliver_to", mac=2, ip=0x7F000001, udp_port=4000)),
        fy.P4MulticastGroupEntry(0x103, replicas=[(1, 1), (1, 2)]),
        fy.P4MulticastGroupEntry(FLOOD_GROUP, replicas=[1]),
    ]  # fmt: skip
    async with asyncio.timeout(LIMIT_S), await connected(address) as switch:
        await switch.delete_all()
        await switch.insert(entries)
        found = [entry async for entry in switch.read(fy.P4TableEntry("membership"))]
        assert [e.match["key"] for e in found if e.match] == [1 << 63]
        assert isinstance(found[0].action, fy.Action)
        assert found[0].action.args["slot_count"] == 8
        counters = [e async for e in switch.read(fy.P4CounterEntry("drops"))]
        assert counters
        assert all(entry.packet_count == 0 for entry in counters)
        direct = [e async for e in switch.read(fy.P4DirectCounterEntry("membership_packets"))]
        assert [entry.packet_count for entry in direct] == [0]
        groups = [e async for e in switch.read(fy.P4MulticastGroupEntry())]
        assert {group.multicast_group_id for group in groups} == {0x103, FLOOD_GROUP}
        with pytest.raises(fy.P4ClientError) as refused:
            await switch.insert([entries[0]])
        assert refused.value.details
        await switch.modify(
            [fy.P4TableEntry("l2", is_default_action=True, action=fy.Action("flood"))]
        )
        with pytest.raises(fy.P4ClientError) as missing:
            await switch.delete([fy.P4TableEntry("addresses", match=fy.Match(ip=5))])
        assert missing.value.is_not_found_only
        await switch.delete_all()
        assert [e async for e in switch.read(fy.P4TableEntry("membership"))] == []
