"""Whatever stands in a request, and whoever sends it: an answer or a refusal in one line.

Never an error of the controller's own, and never anything of somebody else's.
"""

import asyncio
from typing import Any

import grpc
import pytest
from controller_rig import ADMIN_TOKEN, Rig, until
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.on_full import OnFull
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

METHODS = {
    method.name: getattr(pb, method.input_type.name)
    for method in pb.DESCRIPTOR.services_by_name["Controller"].methods
}
TEXTS = ["\0", "a\nb", "\x1b[31m", "x" * 100_000, "ünï", "' OR 1=1 --", "%s{0}", "../../etc"]
FLOATS = [float("nan"), float("inf"), -float("inf"), -1.0, 1e300, 5e-324]
SIGNED = {Field.TYPE_INT32: 31, Field.TYPE_INT64: 63, Field.TYPE_SINT32: 31, Field.TYPE_SINT64: 63}
UNSIGNED = {
    Field.TYPE_UINT32: 32, Field.TYPE_UINT64: 64, Field.TYPE_FIXED32: 32, Field.TYPE_FIXED64: 64,
}  # fmt: skip


def extremes(field: Field) -> list[Any]:
    """Values of a field that nobody means."""
    if field.type == Field.TYPE_STRING:
        return TEXTS
    if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return FLOATS
    if field.type in SIGNED:
        return [-(1 << SIGNED[field.type]), -1, (1 << SIGNED[field.type]) - 1]
    if field.type in UNSIGNED:
        return [1 << UNSIGNED[field.type] - 1, (1 << UNSIGNED[field.type]) - 1]
    if field.type == Field.TYPE_ENUM:
        return [-1, 999]
    return []


def twisted(sound: Message) -> list[Message]:
    """``sound`` with one field after the other replaced, those of messages inside it, too."""
    found: list[Message] = []
    for field in sound.DESCRIPTOR.fields:
        if field.type == Field.TYPE_MESSAGE:
            if field.message_type is sound.DESCRIPTOR:
                continue
            inside = getattr(pb, field.message_type.name)()
            for value in twisted(inside):
                changed = type(sound)()
                changed.CopyFrom(sound)
                changed.ClearField(field.name)
                if field.is_repeated:
                    getattr(changed, field.name).append(value)
                else:
                    getattr(changed, field.name).CopyFrom(value)
                found.append(changed)
            continue
        for value in extremes(field):
            changed = type(sound)()
            changed.CopyFrom(sound)
            if field.is_repeated:
                getattr(changed, field.name).append(value)
            else:
                setattr(changed, field.name, value)
            found.append(changed)
    return found


def sound(rig: Rig, job: pb.Job, name: str) -> Message:
    """A request that would be answered, as far as it goes."""
    known: dict[str, Any] = {
        "job_id": job.id, "token": job.token, "rank": 0, "workers": 1, "attempt": 0, "field": 32,
        "ip": "127.0.0.1", "udp_port": 4000, "epoch": 0, "change": 0, "job": job.id,
        "timeout_s": 0.05,
    }  # fmt: skip
    if name == "AddSwitch":
        request: Message = rig.facts("s9", device_id=9)
    else:
        request = METHODS[name]()
        for field in request.DESCRIPTOR.fields:
            if field.name in known:
                setattr(request, field.name, known[field.name])
    if name in ("SetTenant", "AddTenant"):
        request.name = "acme"  # type: ignore[attr-defined]
    if name == "JoinJob":
        from wiresum.common.version import package_version

        request.agent_version = package_version()  # type: ignore[attr-defined]
    return request


async def told(rig: Rig, name: str, requests: list[Message], token: str) -> list[tuple[str, str]]:
    """The status of each request, and its words."""
    async with grpc.aio.insecure_channel(rig.address.removeprefix("http://")) as channel:
        method = getattr(pb_grpc.ControllerStub(channel), name)
        found = []
        for request in requests:
            try:
                await method(request, timeout=3, metadata=(("authorization", f"Bearer {token}"),))
            except grpc.aio.AioRpcError as error:
                found.append((error.code().name, str(error.details())))
            else:
                found.append(("OK", ""))
        return found


@pytest.mark.parametrize("name", METHODS)
async def test_no_request_is_an_error_of_the_controllers_own(rig: Rig, name: str) -> None:
    await rig.call(lambda client: client.add_tenant("acme"))
    job = await rig.create("demo")
    await rig.join(job, 0, workers=1)
    # A late attempt would end the one that the others are part of.
    requests = sorted(twisted(sound(rig, job, name)), key=lambda each: getattr(each, "attempt", 0))
    for request, (code, words) in zip(
        requests, await told(rig, name, requests, ADMIN_TOKEN), strict=True
    ):
        assert code not in ("INTERNAL", "UNKNOWN"), (str(request)[:500], words)
        assert words.isprintable()
        assert len(words) <= 1000
    # It still serves.
    assert (await told(rig, "ListJobs", [pb.ListJobsRequest()], ADMIN_TOKEN))[0][0] == "OK"


async def test_jobs_of_other_tenants_are_answered_as_unknown(rig: Rig) -> None:
    """Every call that names a job, with the token of another tenant and of a job of its."""
    theirs, ours = [
        (await rig.call(lambda client, name=name: client.add_tenant(name))).token  # type: ignore[misc]
        for name in ("theirs", "ours")
    ]
    own = await rig.call(lambda client: client.create_job("own", SlotRequest(16)), ours)
    victim = await rig.call(lambda client: client.create_job("victim", SlotRequest(2048)), theirs)
    await rig.join_all(victim)
    asking = asyncio.create_task(
        rig.call(
            lambda client: client.create_job("late", SlotRequest(4096, on_full=OnFull.WAIT)), theirs
        )
    )
    await until(lambda: rig.office.store.queue() != [])
    (waiter,) = rig.office.store.queue()
    before = rig.office.store.job(victim.id)

    for name, kind in METHODS.items():
        field = next((f for f in ("job_id", "job") if f in kind.DESCRIPTOR.fields_by_name), None)
        if field is None:
            continue
        for token in (ours, own.token):
            answers = set()
            for job in (victim.id, "victim", waiter.id, "late", "j-0123456789ab", "nothing"):
                request = sound(rig, own, name)
                setattr(request, field, job)
                if "token" in request.DESCRIPTOR.fields_by_name:
                    request.token = token  # type: ignore[attr-defined]
                ((code, words),) = await told(rig, name, [request], token)
                answers.add((code, words.replace(repr(job), "…")))
            ((code, words),) = answers
            assert code in ("NOT_FOUND", "PERMISSION_DENIED"), (name, words)
    assert rig.office.store.job(victim.id) == before
    assert rig.office.store.queue() == [waiter]
    await rig.call(lambda client: client.release_job(waiter.id, ""), theirs)
    with pytest.raises(ControllerError, match="taken out of the queue"):
        await asking
