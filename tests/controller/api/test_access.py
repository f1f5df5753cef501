"""Who may do what: every call of the service, with every kind of token."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from controller_rig import ADMIN_TOKEN, Rig
from google.protobuf.message import Message

from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.tokens import ADMIN, JOB, TENANT, hashed, new_token
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

CALLS = list(pb.DESCRIPTOR.services_by_name["Controller"].methods)

# What a stranger's token may do: nothing. What the others may, beside the admin.
FOR_TENANTS = {
    "ListTenants", "CreateJob", "ParkJob", "ReleaseJob", "EvictJob", "GetJob", "ListJobs",
    "ListSlots",
}  # fmt: skip
FOR_JOBS = {
    "ClaimJob", "JoinJob", "Heartbeat", "ChangeLease", "ParkJob", "ReleaseJob", "GetJob",
}  # fmt: skip


async def code_of(rig: Rig, name: str, request: Message, token: str | None) -> str:
    """The status of a call as a program of anybody's own could make it."""
    metadata = [("authorization", f"Bearer {token}")] if token is not None else None

    def ask() -> str:
        with grpc.insecure_channel(rig.address.removeprefix("http://")) as channel:
            method = getattr(pb_grpc.ControllerStub(channel), name)
            try:
                method(request, timeout=10, metadata=metadata)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

    return await asyncio.to_thread(ask)


async def refused(code: str, pattern: str, call: Any) -> None:
    with pytest.raises(ControllerError) as caught:
        await call
    assert (caught.value.code, "\n" in str(caught.value)) == (code, False)
    assert re.search(pattern, str(caught.value)), str(caught.value)


async def tenant(rig: Rig, name: str, **limits: int) -> str:
    added = await rig.call(lambda client: client.add_tenant(name, **limits))
    return added.token


async def test_strangers_may_do_nothing(rig: Rig) -> None:
    for token in (None, "", "guess", new_token(ADMIN), new_token(TENANT), new_token(JOB)):
        for method in CALLS:
            request = getattr(pb, method.input_type.name)()
            code = await code_of(rig, method.name, request, token)
            assert (method.name, code) == (method.name, "UNAUTHENTICATED")


async def test_each_kind_of_token_has_its_calls(rig: Rig) -> None:
    token = await tenant(rig, "acme")
    job = await rig.call(lambda client: client.create_job("mine"), token)
    for method in CALLS:
        request = getattr(pb, method.input_type.name)()
        for who, allowed in ((token, FOR_TENANTS), (job.token, FOR_JOBS)):
            code = await code_of(rig, method.name, request, who)
            assert code != "UNAUTHENTICATED"
            if method.name not in allowed:
                assert (method.name, code) == (method.name, "PERMISSION_DENIED")
        if "job_id" in request.DESCRIPTOR.fields_by_name and method.name != "ReleaseJob":
            request.job_id = job.id
            code = await code_of(rig, method.name, request, job.token)
            assert (code != "PERMISSION_DENIED") == (method.name in FOR_JOBS)
        code = await code_of(rig, method.name, request, ADMIN_TOKEN)
        assert code not in ("PERMISSION_DENIED", "UNAUTHENTICATED")


async def test_a_tenant_sees_and_touches_its_own_jobs_only(rig: Rig) -> None:
    ours, theirs = await tenant(rig, "ours"), await tenant(rig, "theirs")
    job = await rig.call(lambda client: client.create_job("demo", SlotRequest(64)), ours)
    other = await rig.call(lambda client: client.create_job("demo", SlotRequest(32)), theirs)
    # The same name is another job, not an invitation.
    assert other.id != job.id
    assert not other.attached

    listed = await rig.call(lambda client: client.list_jobs(), theirs)
    assert [each.id for each in listed] == [other.id]
    assert (await rig.call(lambda client: client.get_job("demo"), theirs)).id == other.id
    for call in (
        lambda client: client.get_job(job.id),
        lambda client: client.release_job(job.id, ""),
    ):
        await refused("NOT_FOUND", f"no job '{job.id}'", rig.call(call, theirs))
    call = rig.call(lambda client: client.create_job("x", tenant="ours"), theirs)
    await refused("PERMISSION_DENIED", "token of tenant theirs", call)

    (switch,) = await rig.call(lambda client: client.list_slots(), theirs)
    told = [(each.base, each.slots, each.held, each.job_name) for each in switch.ranges[:2]]
    assert told == [(0, 64, True, ""), (64, 32, True, "demo")]
    assert job.id not in str(switch)
    assert "ours" not in str(switch)
    call = rig.call(lambda client: client.create_job("big", SlotRequest(4096)), theirs)
    with pytest.raises(ControllerError) as full:
        await call
    assert full.value.code == "RESOURCE_EXHAUSTED"
    assert "others" in str(full.value)
    assert job.id not in str(full.value)

    assert await rig.call(lambda client: client.release_job(job.id, ""), ours)
    assert (await rig.get(job)).state == pb.JOB_STATE_RELEASED


async def test_a_job_is_joined_with_its_own_token(rig: Rig) -> None:
    token = await tenant(rig, "acme")
    job = await rig.call(lambda client: client.create_job("demo"), token)
    other = await rig.call(lambda client: client.create_job("other"), token)
    for wrong in (token, other.token):
        await refused("PERMISSION_DENIED", "wrong token", rig.join(job, 0, token=wrong))
    # It shows and releases this one job.
    assert (await rig.call(lambda client: client.get_job(job.id), job.token)).id == job.id
    call = rig.call(lambda client: client.get_job(other.id), job.token)
    await refused("NOT_FOUND", "no job", call)
    await rig.call(lambda client: client.release_job(job.id, job.token))
    answer = await rig.call(lambda client: client.heartbeat(job.id, job.token))
    assert answer.state == pb.JOB_STATE_RELEASED


async def test_each_attached_caller_gets_its_own_token(rig: Rig) -> None:
    first = await rig.create("demo")
    second = await rig.create("demo")
    assert (second.id, second.attached) == (first.id, True)
    assert second.token != first.token
    await asyncio.gather(
        rig.join(first, 0, token=first.token), rig.join(first, 1, token=second.token)
    )


async def test_asking_again_gives_the_same_job(rig: Rig) -> None:
    request = pb.CreateJobRequest(slots_wanted=64, request_id="abc123")
    first, again = [
        await rig.call(lambda client: client._call(lambda stub: stub.CreateJob, request))
        for _ in range(2)
    ]
    assert (again.id, again.attached) == (first.id, False)
    assert len(rig.office.store.jobs()) == 1
    for job in (first, again):
        assert (await rig.call(lambda client: client.get_job(first.id), job.token)).id == first.id


async def test_tokens_are_kept_as_hashes(rig: Rig, tmp_path: Any) -> None:
    token = await tenant(rig, "acme")
    job = await rig.call(lambda client: client.create_job("demo"), token)
    (path,) = tmp_path.glob("store.sqlite")
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("store.sqlite*"))
    assert path.exists()
    for secret in (token, job.token, ADMIN_TOKEN):
        assert secret.encode() not in stored
    assert hashed(job.token).encode() in stored
    tenants = await rig.call(lambda client: client.list_tenants())
    assert [each.token for each in tenants] == ["", ""]


async def test_the_life_of_a_tenant(rig: Rig) -> None:
    def set_(**limits: int) -> Callable[[ControllerClient], pb.Tenant]:
        return lambda client: client.set_tenant("acme", **limits)

    token = await tenant(rig, "acme", slot_quota=128, max_jobs=2, priority=-5)
    again = rig.call(lambda client: client.add_tenant("acme"))
    await refused("ALREADY_EXISTS", "there is a tenant acme", again)
    job = await rig.call(lambda client: client.create_job("one", SlotRequest(64)), token)
    (own,) = await rig.call(lambda client: client.list_tenants(), token)
    assert (own.name, own.slots, own.jobs, own.slot_quota) == ("acme", 64, 1, 128)
    assert (own.max_jobs, own.priority) == (2, -5)
    assert (await rig.get(job)).priority == -5

    call = rig.call(lambda client: client.create_job("two", SlotRequest(128)), token)
    await refused("RESOURCE_EXHAUSTED", "has 64 of its 128 slots in use", call)
    await rig.call(lambda client: client.create_job("two", SlotRequest(64)), token)
    call = rig.call(lambda client: client.create_job("three", SlotRequest(16)), token)
    await refused("RESOURCE_EXHAUSTED", "has 2 live jobs, and may have 2", call)
    await rig.call(set_(max_jobs=0))
    call = rig.call(lambda client: client.create_job("three", SlotRequest(16)), token)
    await refused("RESOURCE_EXHAUSTED", "quota|of its 128 slots", call)
    changed = await rig.call(set_(slot_quota=0, priority=7))
    assert (changed.slot_quota, changed.max_jobs, changed.priority) == (0, 0, 7)
    await rig.call(lambda client: client.create_job("three", SlotRequest(16)), token)

    for wrong in ({"priority": 1001}, {"priority": -1001}, {"slot_quota": 1 << 31}):
        await refused("INVALID_ARGUMENT", "tenant acme: a", rig.call(set_(**wrong)))
    call = rig.call(lambda client: client.set_tenant("nobody", priority=1))
    await refused("NOT_FOUND", r"no tenant 'nobody' \(known: acme, default\)", call)
    await refused("INVALID_ARGUMENT", "not a name", tenant(rig, "a b"))

    rotated = await rig.call(lambda client: client.rotate_tenant_token("acme"))
    call = rig.call(lambda client: client.list_jobs(), token)
    await refused("UNAUTHENTICATED", "rotated", call)
    assert len(await rig.call(lambda client: client.list_jobs(), rotated.token)) == 3
    # Workers go on: a job's token is another matter.
    assert (await rig.call(lambda c: c.heartbeat(job.id, job.token))).state == pb.JOB_STATE_WAITING

    call = rig.call(lambda client: client.remove_tenant("acme"))
    await refused("FAILED_PRECONDITION", r"live jobs \(.*--evict", call)
    await rig.call(lambda client: client.remove_tenant("acme", evict=True))
    await refused("UNAUTHENTICATED", "", rig.call(lambda client: client.list_jobs(), rotated.token))
    told = await rig.call(lambda client: client.heartbeat(job.id, job.token))
    assert (told.state, told.reason) == (pb.JOB_STATE_EVICTED, "tenant acme was removed")
    call = rig.call(lambda client: client.remove_tenant("default"))
    await refused("FAILED_PRECONDITION", "tenant default stays", call)


async def test_a_later_tenant_of_the_same_name_inherits_nothing(rig: Rig) -> None:
    token = await tenant(rig, "acme")
    job = await rig.call(lambda client: client.create_job("secret"), token)
    await rig.call(lambda client: client.remove_tenant("acme", evict=True))
    token = await tenant(rig, "acme")
    assert await rig.call(lambda client: client.list_jobs(), token) == []
    for name in (job.id, "secret"):
        call = rig.call(lambda client, name=name: client.get_job(name), token)  # type: ignore[misc]
        await refused("NOT_FOUND", "no job", call)
    (kept,) = await rig.call(lambda client: client.list_jobs())
    assert (kept.id, kept.tenant) == (job.id, "acme (removed)")


async def test_eviction(rig: Rig) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    waiting = asyncio.create_task(
        rig.call(lambda c: c.heartbeat(job.id, job.token, wait_s=10.0, epoch=0, change=0))
    )
    evicted = await rig.call(lambda client: client.evict_job("demo", "makes\nroom for  others"))
    assert evicted.state == pb.JOB_STATE_EVICTED
    assert evicted.reason == "evicted by the admin: makes room for others"
    # The workers learn of it at once.
    told = await waiting
    assert (told.state, told.reason) == (evicted.state, evicted.reason)
    await refused("FAILED_PRECONDITION", "is over .evicted: evicted by", rig.join(job, 0))
    call = rig.call(lambda client: client.evict_job("demo"))
    await refused("FAILED_PRECONDITION", "is over", call)
    await refused("NOT_FOUND", "no job", rig.call(lambda client: client.evict_job("nobody")))
    other = await rig.create("other")
    call = rig.call(lambda client: client.evict_job(other.id, "x" * 201))
    await refused("INVALID_ARGUMENT", "too long", call)


async def test_a_tenant_evicts_its_own(rig: Rig) -> None:
    ours, theirs = await tenant(rig, "ours"), await tenant(rig, "theirs")
    jobs = [
        await rig.call(lambda client: client.create_job("demo"), token) for token in (ours, theirs)
    ]
    call = rig.call(lambda client: client.evict_job(jobs[1].id), ours)
    await refused("NOT_FOUND", "no job", call)
    # Of a name that two have, the admin has to say which.
    for ask in (
        lambda client: client.evict_job("demo"),
        lambda client: client.get_job("demo"),
        lambda client: client.release_job("demo", ADMIN_TOKEN),
    ):
        await refused("FAILED_PRECONDITION", "2 jobs are called 'demo' .*ours's j-", rig.call(ask))
    evicted = await rig.call(lambda client: client.evict_job("demo", "enough"), ours)
    assert (evicted.id, evicted.reason) == (jobs[0].id, "evicted by tenant ours: enough")
    assert (await rig.call(lambda client: client.evict_job("demo"))).id == jobs[1].id


async def test_draining(rig: Rig) -> None:
    job = await rig.create("demo")
    await rig.join_all(job)
    drained = await rig.call(lambda client: client.drain_switch("s1"))
    assert (drained.draining, drained.jobs) == (True, 1)
    await refused("RESOURCE_EXHAUSTED", "s1 .*drained", rig.create("other"))
    # What is there goes on, may be attached to, and may restart.
    assert (await rig.create("demo")).attached
    await rig.join_all(job, attempt=1)
    await rig.office.add_switch(rig.facts(device_id=0))
    assert (await rig.call(lambda client: client.list_switches()))[0].draining
    undrained = await rig.call(lambda client: client.drain_switch("s1", undrain=True))
    assert not undrained.draining
    await rig.create("other")
    call = rig.call(lambda client: client.drain_switch("s9"))
    await refused("NOT_FOUND", "no switch 's9'", call)
