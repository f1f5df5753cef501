"""Joining: over real gRPC, with a switch that is a fake behind real P4Runtime."""

import asyncio
import re

import pytest
from controller_rig import ADMIN_TOKEN, Rig, until
from fake_switch import FakeSwitch

from wiresum import p4
from wiresum.common.version import package_version
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb


async def refused(code: str, pattern: str, awaitable: object) -> None:
    with pytest.raises(ControllerError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.code == code
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


async def test_all_ranks_get_one_lease_and_the_switch_knows_them(rig: Rig) -> None:
    job = await rig.create("demo", slots=100)
    leases = await rig.join_all(job, 4)
    first = leases[0]
    assert first.epoch > 0
    assert (first.switch_ip, first.switch_udp_port) == ("127.0.0.1", 5555)
    assert (first.slots, first.lanes, first.workers) == (128, 64, 4)
    for rank, lease in enumerate(leases):
        assert lease.rank == rank
        lease.rank = first.rank
        assert lease == first
    members = sorted(rig.switch.table("membership"), key=lambda row: row["worker"])
    assert members == [
        {
            "ingress_port": 1,
            "ip": 0x7F000001,
            "udp_port": 4000 + rank,
            "job": first.job,
            "epoch": first.epoch,
            "key": first.key,
            "worker": rank,
            "worker_bit": 1 << rank,
            "full": 0b1111,
            "slot_base": 0,
            "slot_count": 128,
            "group": 0x100 + first.job,
            "reply_key": first.reply_key,
        }
        for rank in range(4)
    ]
    group = rig.switch.memory.groups[0x100 + first.job]
    assert {(replica.egress_port, replica.instance) for replica in group.replicas} == {
        (1, rank + 1) for rank in range(4)
    }
    told = await rig.get(job)
    assert (told.state, list(told.joined), list(told.missing)) == (
        pb.JOB_STATE_READY,
        [0, 1, 2, 3],
        [],
    )
    assert told.token == ""


async def test_one_worker_and_64(rig: Rig) -> None:
    alone = await rig.create("alone", slots=16)
    crowd = await rig.create("crowd", slots=16)
    assert len(await rig.join_all(alone, 1)) == 1
    leases = await rig.join_all(crowd, 64)
    assert {lease.epoch for lease in leases} == {leases[0].epoch}
    full = {row["full"] for row in rig.switch.table("membership")}
    assert full == {1, 2**64 - 1}


async def test_missing_ranks_are_named(rig: Rig) -> None:
    job = await rig.create("demo")
    answers = await asyncio.gather(
        rig.join(job, 0, 4, timeout_s=0.3),
        rig.join(job, 2, 4, timeout_s=0.5),
        return_exceptions=True,
    )
    for answer in answers:
        # Rank 0 gave up first, but it is not what rank 2 was waiting for.
        assert isinstance(answer, ControllerError)
        assert answer.code == "DEADLINE_EXCEEDED"
        assert "ranks 1, 3 of 4 workers did not join" in str(answer)
    assert rig.member_count(job) == 0
    assert rig.switch.table("membership") == []
    # Whoever gave up may try again, and with other numbers.
    assert len(await rig.join_all(job, 3)) == 3


async def test_a_limit_is_told_as_it_was_set(rig: Rig) -> None:
    """The client asks for what is left of it, which is a little less."""
    job = await rig.create("demo")
    with pytest.raises(ControllerError, match=r"did not join within 1 s$"):
        await rig.join(job, 0, 2, timeout_s=0.9998)


async def test_a_cancelled_call_is_a_rank_that_has_not_joined(rig: Rig) -> None:
    job = await rig.create("demo")
    with pytest.raises(ControllerError, match=r"did not (answer|join)"):
        # The caller is gone before the controller's own deadline.
        await rig.call(
            lambda client: client._call(
                lambda stub: stub.JoinJob,
                pb.JoinJobRequest(
                    job_id=job.id,
                    token=job.token,
                    rank=0,
                    workers=2,
                    ip="127.0.0.1",
                    udp_port=4000,
                    field=32,
                    agent_version=package_version(),
                    timeout_s=30,
                ),
                timeout_s=0.3,
            )
        )
    await until(lambda: rig.member_count(job) == 0)


async def test_contradictions_between_ranks(rig: Rig) -> None:
    job = await rig.create("demo")
    waiting = asyncio.create_task(rig.join(job, 0, 3))
    await until(lambda: rig.member_count(job) == 1)
    invalid = "INVALID_ARGUMENT"
    await refused(invalid, "rank 1 says 4 workers.* has 3", rig.join(job, 1, 4))
    await refused(invalid, "rank 1 has fields of 16 bits.* has 32", rig.join(job, 1, 3, field=16))
    taken = rig.join(job, 0, 3, udp_port=9)
    await refused("ALREADY_EXISTS", "rank 0 .* is already 127.0.0.1:4000, not .*:9", taken)
    taken = rig.join(job, 1, 3, udp_port=4000)
    await refused("ALREADY_EXISTS", "127.0.0.1:4000 is already rank 0", taken)
    assert rig.member_count(job) == 1
    waiting.cancel()
    await rig.join_all(job, 3, attempt=1)


@pytest.mark.parametrize(
    ("pattern", "changes"),
    [
        ("65 workers is not possible.*1 to 64", {"workers": 65}),
        ("0 workers is not possible", {"workers": 0}),
        ("rank 2 is not one of 0 to 1", {"rank": 2}),
        ("field of 12 bits", {"field": 12}),
        ("'localhost' is not an IPv4 address", {"ip": "localhost"}),
        ("224.0.0.1 is not one host's", {"ip": "224.0.0.1"}),
        ("port 0 is not a UDP port", {"udp_port": 0}),
        ("port 65536 is not a UDP port", {"udp_port": 65536}),
        ("'x' is not a MAC", {"mac": "x"}),
        ("01:00:00:00:00:00 is not one host's MAC", {"mac": "01:00:00:00:00:00"}),
    ],
)
async def test_impossible_values(rig: Rig, pattern: str, changes: dict[str, object]) -> None:
    job = await rig.create("demo")
    values = {"rank": 0, "workers": 2} | changes
    call = rig.join(job, **values)  # type: ignore[arg-type]
    await refused("INVALID_ARGUMENT", pattern, call)
    assert rig.office.store.last_epoch() == 0


async def test_wrong_callers(rig: Rig) -> None:
    job = await rig.create("demo")
    await refused("UNAUTHENTICATED", "not know this token", rig.join(job, 0, token="guess"))
    nil = pb.Job(id="j-nil", token=ADMIN_TOKEN)
    await refused("NOT_FOUND", "no job 'j-nil'", rig.join(nil, 0))
    other = await rig.create("other")
    await refused("PERMISSION_DENIED", "wrong token", rig.join(job, 0, token=other.token))
    # Whether there is such a job is nobody's business.
    nil.token = other.token
    await refused("PERMISSION_DENIED", "wrong token", rig.join(nil, 0))
    call = rig.join(job, 0, ip="192.0.2.1")
    await refused("FAILED_PRECONDITION", "no host range of switch s1 contains 192.0.2.1", call)
    ours = re.escape(p4.program(64).version)
    for version in ("0.2.0", "9.9.9"):  # of packets of version 2, and one to come
        call = rig.join(job, 0, program_version=version)
        await refused("FAILED_PRECONDITION", f"program {version}, switch s1 runs {ours}", call)
    await rig.call(lambda client: client.release_job(job.id, job.token))
    await refused("FAILED_PRECONDITION", "is over .released", rig.join(job, 0))


async def test_wrong_agent_version(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await rig.create("demo")
    monkeypatch.setattr("wiresum.controller.client.client.package_version", lambda: "99.1.2")
    pattern = f"runs wiresum 99.1.2, the controller {re.escape(package_version())}"
    await refused("FAILED_PRECONDITION", pattern, rig.join(job, 0))


async def test_restart_gets_a_new_epoch_and_the_old_entries_leave_first(rig: Rig) -> None:
    job = await rig.create("demo")
    before = (await rig.join_all(job))[0]
    rig.switch.log.clear()
    after = (await rig.join_all(job, 3, attempt=1))[0]
    assert after.epoch > before.epoch
    assert len({before.key, before.reply_key, after.key, after.reply_key} - {0}) == 4
    assert {row["epoch"] for row in rig.switch.table("membership")} == {after.epoch}
    updates = [entry for entry in rig.switch.log if "membership" in entry]
    assert updates == ["DELETE membership"] * 2 + ["INSERT membership"] * 3
    await refused("ABORTED", "attempt 0 .* is over: attempt 1 has started", rig.join(job, 0))


async def test_ranks_of_an_older_attempt_are_refused(rig: Rig) -> None:
    job = await rig.create("demo")
    old = asyncio.create_task(rig.join(job, 0, 2))
    await until(lambda: rig.member_count(job) == 1)
    await rig.join_all(job, 2, attempt=5)
    await refused("ABORTED", "attempt 5 has started", old)
    assert rig.member_count(job) == 2


async def test_joining_again_from_the_same_address_is_harmless(rig: Rig) -> None:
    job = await rig.create("demo")
    first = asyncio.create_task(rig.join(job, 0))
    await until(lambda: rig.member_count(job) == 1)
    again = asyncio.create_task(rig.join(job, 0))
    other = await rig.join(job, 1)
    assert (await first).epoch == (await again).epoch == other.epoch
    # Even after the fact: the answer may have been lost.
    assert (await rig.join(job, 1)).epoch == other.epoch


async def test_no_lease_before_the_switch_has_confirmed(rig: Rig, fake: FakeSwitch) -> None:
    job = await rig.create("demo")
    fake.freeze.clear()
    joins = [asyncio.create_task(rig.join(job, rank)) for rank in range(2)]
    await until(lambda: rig.member_count(job) == 2)
    done, _ = await asyncio.wait(joins, timeout=0.2)
    assert not done
    fake.freeze.set()
    assert {lease.epoch for lease in await asyncio.gather(*joins)} != {0}
    assert len(fake.table("membership")) == 2


async def test_a_switch_that_is_down_is_named_at_the_deadline(rig: Rig, fake: FakeSwitch) -> None:
    job = await rig.create("demo")
    await fake.kill()
    await until(lambda: not rig.office.fleet.is_up("s1"))
    calls = (rig.join(job, rank, timeout_s=0.4) for rank in range(2))
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, ControllerError)
        assert answer.code == "DEADLINE_EXCEEDED"
        assert re.search("all 2 workers have joined, but switch s1 was not ready", str(answer))
        assert "cannot be reached" in str(answer)


async def test_release_while_others_wait(rig: Rig) -> None:
    job = await rig.create("demo")
    waiting = asyncio.create_task(rig.join(job, 0))
    await until(lambda: rig.member_count(job) == 1)
    await rig.call(lambda client: client.release_job(job.id, job.token))
    await refused("FAILED_PRECONDITION", "is over", waiting)
