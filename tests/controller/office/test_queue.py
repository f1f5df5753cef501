"""Jobs that do not fit: they wait, take less, or are told why not."""

import asyncio
import re
from dataclasses import fields
from typing import Any

import pytest
from controller_rig import Rig, until

from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb


async def refused(code: str, pattern: str, call: Any) -> str:
    with pytest.raises(ControllerError) as caught:
        await call
    assert (caught.value.code, "\n" in str(caught.value)) == (code, False)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    return str(caught.value)


SLOT_FIELDS = {field.name for field in fields(SlotRequest)}


async def tenant(rig: Rig, name: str, **limits: int) -> str:
    return (await rig.call(lambda client: client.add_tenant(name, **limits))).token


def asks(
    rig: Rig, name: str, slots: int = 4096, token: str | None = None, **more: Any
) -> "asyncio.Task[pb.Job]":
    """Ask for a job; ``more`` are fields of the request for slots, and arguments of the call."""
    of_slots = {key: more.pop(key) for key in SLOT_FIELDS & more.keys()}
    request = SlotRequest(slots, **{"on_full": OnFull.WAIT} | of_slots)
    return asyncio.create_task(
        rig.call(lambda client: client.create_job(name, request, **more), token)
    )


async def queued(rig: Rig, *names: str) -> None:
    await until(lambda: [waiter.name for waiter in rig.office.store.queue()] == list(names))


async def release(rig: Rig, job: pb.Job) -> None:
    await rig.call(lambda client: client.release_job(job.id, job.token))


async def test_waiting_for_room(rig: Rig) -> None:
    first = await rig.create("first", slots=4096)
    second = asks(rig, "second", min_slots=64)
    await queued(rig, "second")
    third = asks(rig, "third")
    await queued(rig, "second", "third")
    listed = await rig.call(lambda client: client.list_jobs(live_only=True))
    told = [(job.name, job.state, job.queue_position, job.slots) for job in listed]
    assert told == [
        ("third", pb.JOB_STATE_QUEUED, 2, 0),
        ("second", pb.JOB_STATE_QUEUED, 1, 0),
        ("first", pb.JOB_STATE_WAITING, 0, 4096),
    ]
    shown = await rig.call(lambda client: client.get_job("second"))
    assert (shown.id, shown.slots_target, shown.min_slots) == (listed[1].id, 4096, 64)
    assert "no room for 4096 slots in one range: switch s1 has 0 of 4096 slots free" in shown.reason
    assert "(1 waiting before it)" in listed[0].reason
    (usage,) = await rig.call(lambda client: client.list_tenants())
    assert (usage.jobs, usage.queued) == (1, 2)

    await release(rig, first)
    job = await second
    assert (job.id, job.state, job.slots) == (shown.id, pb.JOB_STATE_WAITING, 4096)
    assert not job.attached
    await rig.join_all(job)
    await release(rig, job)
    assert (await third).name == "third"
    assert rig.office.store.queue() == []


async def test_the_tenants_take_turns(rig: Rig) -> None:
    """One that asks for much does not keep the others waiting for long."""
    greedy, modest = await tenant(rig, "greedy"), await tenant(rig, "modest")
    vip = await tenant(rig, "vip", priority=1)
    running = await rig.create("first", slots=4096)
    waiting: dict[str, asyncio.Task[pb.Job]] = {}
    names = ["g1", "g2", "g3", "m1", "v1"]
    for position, name in enumerate(names):
        token = {"g": greedy, "m": modest, "v": vip}[name[0]]
        # The one of higher priority would otherwise make room for itself.
        waiting[name] = asks(rig, name, token=token)
        await queued(rig, *names[: position + 1])
    order = []
    while waiting:
        await release(rig, running)
        done, _ = await asyncio.wait(
            waiting.values(), return_when=asyncio.FIRST_COMPLETED, timeout=10
        )
        (task,) = done
        running = task.result()
        order.append(running.name)
        waiting.pop(running.name)
        await rig.join_all(running)
    assert order == ["v1", "g1", "m1", "g2", "g3"]


async def test_a_wait_in_the_queue_has_a_limit(rig: Rig) -> None:
    await rig.create("first", slots=4096)
    second = asks(rig, "second", queue_timeout_s=30)
    await queued(rig, "second")
    rig.clock.time += 10
    await rig.office.sweep()
    assert not second.done()
    rig.clock.time += 21
    rig.office.jobs.touch(rig.office.store.jobs(live_only=True)[0])
    await rig.office.sweep()
    await refused("RESOURCE_EXHAUSTED", "^waited 31 s: no room for 4096 slots in one", second)
    assert rig.office.store.queue() == []


async def test_smaller(rig: Rig) -> None:
    await rig.create("first", slots=2048)
    second = await rig.call(
        lambda c: c.create_job("second", SlotRequest(4096, on_full=OnFull.SMALLER))
    )
    assert (second.slots, second.slots_target, second.min_slots) == (2048, 2048, 16)
    await release(rig, second)
    call = rig.call(
        lambda c: c.create_job("second", SlotRequest(4096, on_full=OnFull.SMALLER, min_slots=4096))
    )
    await refused("RESOURCE_EXHAUSTED", "no room for 4096 slots in one range", call)
    # A quota makes it smaller, too.
    token = await tenant(rig, "acme", slot_quota=100)
    small = await rig.call(
        lambda c: c.create_job(request=SlotRequest(512, on_full=OnFull.SMALLER)), token
    )
    assert small.slots == 64
    call = rig.call(
        lambda c: c.create_job(request=SlotRequest(512, on_full=OnFull.SMALLER, min_slots=64)),
        token,
    )
    await refused("RESOURCE_EXHAUSTED", "has 64 of its 100 slots in use: no room for 64", call)
    call = rig.call(lambda c: c.create_job(request=SlotRequest(512)), token)
    await refused("RESOURCE_EXHAUSTED", "512 slots are more than tenant acme may ever", call)
    call = rig.call(lambda c: c.create_job(request=SlotRequest(512, on_full=OnFull.WAIT)), token)
    await refused("RESOURCE_EXHAUSTED", "512 slots are more than tenant acme may ever", call)


async def test_fail_and_fallback_leave_at_once(rig: Rig) -> None:
    await rig.create("first", slots=4096)
    for on_full in (OnFull.FAIL, OnFull.FALLBACK):
        call = rig.call(lambda c, how=on_full: c.create_job("x", SlotRequest(on_full=how)))  # type: ignore[misc]
        await refused("RESOURCE_EXHAUSTED", "no room for 512 slots in one range", call)
        assert rig.office.store.queue() == []
    call = rig.call(lambda c: c.create_job("x", SlotRequest(16, min_slots=32)))
    await refused("INVALID_ARGUMENT", "at least 32 slots, but 16 wanted", call)
    call = rig.call(lambda c: c.create_job("x", SlotRequest(on_full=OnFull.WAIT), switch="s9"))
    await refused("NOT_FOUND", "no switch 's9'", call)
    call = rig.call(
        lambda c: c.create_job("x", SlotRequest(on_full=OnFull.WAIT, queue_timeout_s=-1))
    )
    await refused("INVALID_ARGUMENT", "wait of -1 s", call)


async def test_limits_are_waited_for(rig: Rig) -> None:
    token = await tenant(rig, "acme", slot_quota=64, max_jobs=1)
    first = await rig.call(lambda client: client.create_job("first", SlotRequest(64)), token)
    second = asks(rig, "second", 64, token=token)
    await queued(rig, "second")
    await until(lambda: any(rig.office.queue.told(job.id) for job in rig.office.store.queue()))
    reason = (await rig.call(lambda client: client.get_job("second"), token)).reason
    assert reason == "tenant acme has 1 live jobs, and may have 1: wait for one to end"
    await rig.call(lambda client: client.set_tenant("acme", max_jobs=5))
    reason = (await rig.call(lambda client: client.get_job("second"), token)).reason
    assert "has 64 of its 64 slots in use" in reason
    call = rig.call(lambda client: client.create_job("third", SlotRequest(16)), token)
    await refused("RESOURCE_EXHAUSTED", "an earlier job of tenant acme waits for its quota", call)
    # Others are not concerned.
    await rig.create("other")
    await rig.call(lambda client: client.release_job(first.id, first.token))
    assert (await second).slots == 64


async def test_several_launchers_wait_for_one_job(rig: Rig) -> None:
    first = await rig.create("first", slots=4096)
    both = [asks(rig, "shared")]
    await queued(rig, "shared")
    both.append(asks(rig, "shared"))
    await until(lambda: sum(rig.office.queue_polls._callers.values()) == 2)
    await release(rig, first)
    one, other = await asyncio.gather(*both)
    assert one.id == other.id
    assert (one.attached, other.attached) == (False, True)
    assert one.token != other.token
    await asyncio.gather(rig.join(one, 0), rig.join(other, 1))


async def test_out_of_the_queue(rig: Rig) -> None:
    token, other = await tenant(rig, "acme"), await tenant(rig, "other")
    await rig.create("first", slots=4096)
    second = asks(rig, "second", token=token)
    await queued(rig, "second")
    assert await rig.call(lambda client: client.list_jobs(), other) == []
    await refused("NOT_FOUND", "no job", rig.call(lambda c: c.get_job("second"), other))
    await refused("NOT_FOUND", "no job", rig.call(lambda c: c.release_job("second", ""), other))
    evicted = await rig.call(lambda client: client.evict_job("second", "not now"))
    assert (evicted.state, evicted.reason) == (
        pb.JOB_STATE_EVICTED, "evicted by the admin: not now",
    )  # fmt: skip
    await refused("ABORTED", "job second .* was taken out of the queue", second)
    third = asks(rig, "third", token=token)
    await queued(rig, "third")
    job = await rig.call(lambda client: client.get_job("third"), token)
    await rig.call(lambda client: client.release_job(job.id, ""), token)
    await refused("ABORTED", "was taken out of the queue", third)
    fourth = asks(rig, "fourth", token=token)
    await queued(rig, "fourth")
    await rig.call(lambda client: client.remove_tenant("acme"))
    await refused("ABORTED", "was taken out of the queue", fourth)


async def test_a_queued_job_whose_caller_stays_away_is_forgotten(rig: Rig) -> None:
    first = await rig.create("first", slots=4096)
    request = pb.CreateJobRequest(
        name="second", slots_wanted=4096, on_full=pb.ON_FULL_WAIT, request_id="r1"
    )

    def ask(seconds: float) -> Any:
        return lambda client: client._call(lambda stub: stub.CreateJob, request, timeout_s=seconds)

    job = await rig.call(ask(0.5))
    assert (job.state, job.queue_position) == (pb.JOB_STATE_QUEUED, 1)
    # Away for a moment: it keeps its place, and gets the slots when it asks again.
    rig.clock.time += 10
    third = asks(rig, "third")
    await queued(rig, "second", "third")
    await release(rig, first)
    assert rig.office.store.jobs_on("s1") == []
    assert not third.done()
    assert (await rig.call(ask(5.0))).id == job.id
    await rig.call(lambda client: client.release_job(job.id, ""))
    running = await third
    # Away for good: others do not wait for it.
    request.request_id = request.name = "fourth"
    assert (await rig.call(ask(0.5))).state == pb.JOB_STATE_QUEUED
    rig.clock.time += 20
    await rig.call(lambda client: client.heartbeat(running.id, running.token))
    rig.clock.time += 11
    await rig.office.sweep()
    assert rig.office.store.queue() == []


async def test_a_drained_switch_gives_nothing(rig: Rig) -> None:
    await rig.call(lambda client: client.drain_switch("s1"))
    await refused(
        "RESOURCE_EXHAUSTED", "switch s1 takes no new jobs, it is being drained", rig.create("x")
    )
    waiting = asks(rig, "y")
    await queued(rig, "y")
    await rig.call(lambda client: client.drain_switch("s1", undrain=True))
    assert (await waiting).switch == "s1"


async def test_the_caller_hears_how_things_stand(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wiresum.controller.client.client._QUEUE_POLL_S", 0.4)
    first = await rig.create("first", slots=4096)
    heard: list[pb.Job] = []
    waiting = asks(rig, "second", on_queue=heard.append)
    await until(lambda: len(heard) >= 3)
    assert {(job.name, job.state, job.queue_position) for job in heard} == {
        ("second", pb.JOB_STATE_QUEUED, 1)
    }
    assert len({job.id for job in heard}) == 1
    await release(rig, first)
    assert (await waiting).id == heard[0].id


async def test_an_interrupted_caller_gives_up_its_place(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the slots would go to nobody, and only come back when the lease expires."""
    monkeypatch.setattr("wiresum.controller.client.client._QUEUE_POLL_S", 0.4)
    monkeypatch.setattr("wiresum.controller.client.client._LEAVE_S", 2.5)
    await rig.create("first", slots=4096)

    def interrupt(_: pb.Job) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        await asks(rig, "second", on_queue=interrupt)
    assert rig.office.store.queue() == []
    # A place that somebody else waits at is not given up.
    third = asks(rig, "third")
    await queued(rig, "third")
    with pytest.raises(InterruptedError):
        await asks(rig, "third", on_queue=interrupt)
    await queued(rig, "third")
    third.cancel()
