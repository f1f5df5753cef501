"""What one caller may cost: the bytes of a request, the calls of a tenant, what is kept of them."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import grpc
import pytest
from controller_process import LIMIT_S, serving, switch_spec
from controller_rig import ADMIN_TOKEN, Clock, Rig, StillOffice, until, with_switches
from google.protobuf.message import Message
from test_hostile_calls import METHODS, sound, told

from wiresum.controller.api import rates as rates_module
from wiresum.controller.api.guard import MAX_REQUEST, MAX_SWITCH_REQUEST
from wiresum.controller.api.rates import STRANGER_BURST, TENANT_BURST, TENANT_RATE, Rates
from wiresum.controller.client import ControllerClient
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.office.calls import MAX_CALLS, CallsInProgress
from wiresum.controller.on_full import OnFull
from wiresum.controller.rules.callers import Caller
from wiresum.controller.state.model import JobState
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb

RED, BLUE = Caller(tenant="red"), Caller(tenant="blue")


@pytest.fixture
def office() -> Iterator[StillOffice]:
    clock = Clock()
    with closing(SqliteStore(":memory:")) as store:
        with_switches(store, clock, "s1")
        for caller in (RED, BLUE):
            StillOffice(store, clock).add_tenant(pb.AddTenantRequest(name=caller.tenant))
        yield StillOffice(store, clock)


# ---- messages


def field_of_nobody(number: int, content: bytes) -> bytes:
    """A field of bytes that no message of ours has."""
    head = number << 3 | 2
    return b"".join((varint(head), varint(len(content)), content))


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def with_junk(message: Message, junk: bytes) -> bytes:
    """The message with fields of nobody's in it, and in each message inside it."""
    found = b""
    for field, value in message.ListFields():
        if field.message_type is None or field.is_repeated:
            lone = type(message)()
            if field.is_repeated:
                getattr(lone, field.name).extend(value)
            else:
                setattr(lone, field.name, value)
            found += lone.SerializeToString()
        else:
            found += field_of_nobody(field.number, with_junk(value, junk))
    return found + field_of_nobody(1023, junk)


async def raw(rig: Rig, name: str, data: bytes, token: str) -> tuple[str, str]:
    async with grpc.aio.insecure_channel(rig.address.removeprefix("http://")) as channel:
        call = channel.unary_unary(f"/wiresum.controller.v1.Controller/{name}")
        try:
            await call(data, timeout=10, metadata=(("authorization", f"Bearer {token}"),))
        except grpc.aio.AioRpcError as error:
            return error.code().name, str(error.details())
    return "OK", ""


@pytest.mark.parametrize("name", METHODS)
async def test_unknown_fields_are_dropped(rig: Rig, name: str) -> None:
    await rig.call(lambda client: client.add_tenant("acme"))
    job = await rig.create("demo")
    await rig.join(job, 0, workers=1)
    request = sound(rig, job, name)
    ((code, words),) = await told(rig, name, [request], ADMIN_TOKEN)
    found = await raw(rig, name, with_junk(request, b"x" * 1_000_000), ADMIN_TOKEN)
    assert found[0] in (code, "ALREADY_EXISTS", "NOT_FOUND", "FAILED_PRECONDITION"), (words, found)


async def test_nothing_unknown_is_kept_of_a_report(rig: Rig) -> None:
    job = await rig.create("demo")
    await rig.join(job, 0, workers=1)
    report = pb.RankReport(rank=0, ended=5, before=pb.RankReport(rank=0))
    request = pb.HeartbeatRequest(job_id=job.id, token=job.token, report=report)
    assert (await raw(rig, "Heartbeat", with_junk(request, b"x" * 500_000), job.token))[0] == "OK"
    shown = await rig.get(job)
    assert [each.ended for each in shown.reports] == [5]
    assert shown.ByteSize() < 1000


@pytest.mark.parametrize("name", METHODS)
async def test_large_and_unreadable_requests_are_refused(rig: Rig, name: str) -> None:
    job = await rig.create("demo")
    request = sound(rig, job, name)
    text = next((f.name for f in request.DESCRIPTOR.fields if f.type == f.TYPE_STRING), None)
    if text is not None:
        limit = MAX_SWITCH_REQUEST if name == "AddSwitch" else MAX_REQUEST
        setattr(request, text, "x" * limit)
        code, words = await raw(rig, name, request.SerializeToString(), job.token)
        assert code == "INVALID_ARGUMENT"
        assert f"is too large for {name}: it may have {limit}" in words
    code, words = await raw(rig, name, b"\xff\xff\xff", job.token)
    assert (code, "cannot be read" in words) == ("INVALID_ARGUMENT", True)
    assert len(await rig.call(lambda client: client.list_jobs())) == 1


# ---- what is kept


async def test_made_up_ranks_and_attempts_leave_nothing_behind(rig: Rig) -> None:
    job = await rig.create("demo")
    waiting = asyncio.create_task(rig.join(job, 0, workers=64, timeout_s=30.0))
    await until(lambda: rig.member_count(job) == 1)
    for rank in (64, 1000, 1 << 31):
        with pytest.raises(ControllerError, match="is not one of 0 to 63"):
            await rig.join(job, rank, workers=64)
    with pytest.raises(ControllerError, match="did not join"):
        await rig.join(job, 1, workers=64, timeout_s=0.05)
    assert rig.office.calls._gave_up == {job.id: ((0, 0), {1})}
    waiting.cancel()


def test_only_the_latest_attempt_is_remembered() -> None:
    waiting = CallsInProgress()
    for attempt in range(1000):
        for rank in range(3):
            waiting.give_up("j-1", (attempt, 0), rank)
    waiting.give_up("j-1", (5, 0), 7)
    assert waiting.gave_up("j-1", (999, 0)) == {0, 1, 2}
    assert waiting.gave_up("j-1", (998, 0)) == set()
    assert len(waiting._gave_up) == 1


def test_so_many_calls_wait_for_one_job_and_no_more() -> None:
    waiting = CallsInProgress()
    with ExitStack() as stack:
        for rank in range(MAX_CALLS):
            stack.enter_context(
                waiting.watch("j-1") if rank % 2 else waiting.call("j-1", (0, 0), 0)
            )
        with pytest.raises(ControllerError, match="512 calls wait") as caught:
            stack.enter_context(waiting.watch("j-1"))
        assert caught.value.retry_after_s is not None
        stack.enter_context(waiting.watch("j-2"))
    with waiting.watch("j-1"):
        pass


def test_jobs_that_have_left_the_queue_are_forgotten(office: StillOffice) -> None:
    for number in range(20):
        created = office.create(RED, slots_wanted=16)
        office.queue.present(created.job.id)  # its caller's last word
        office.jobs.end(created.job, JobState.RELEASED, f"{number}")
    office.queue.forget_absent()
    assert office.queue._seen == {}


async def test_calls_of_ended_jobs_leave_nothing_behind(rig: Rig) -> None:
    for _ in range(3):
        job = await rig.create()
        await rig.call(lambda client, job=job: client.release_job(job.id, job.token))  # type: ignore[misc]
        request = pb.HeartbeatRequest(job_id=job.id, token=job.token, owner="somebody")
        request.report.rank = 0
        assert await told(rig, "Heartbeat", [request], job.token) == [("OK", "")]
    rig.clock.time += 61.0
    await rig.office.sweep()
    office = rig.office
    assert (office.owners._jobs, office.jobs._heard, office.reports._jobs) == ({}, {}, {})


# ---- calls


def test_a_tenant_has_its_calls_and_takes_none_of_others(office: StillOffice) -> None:
    now = [0.0]
    rates = Rates(office.store, 5.0, lambda: now[0])
    for _ in range(int(TENANT_BURST)):
        rates.call(RED)
    with pytest.raises(ControllerError, match="tenant red make more calls") as caught:
        rates.call(RED)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.retry_after_s == pytest.approx(1 / TENANT_RATE)
    rates.call(BLUE)
    for _ in range(10_000):
        rates.call(Caller(admin=True))
    now[0] += 1.0
    for _ in range(int(TENANT_RATE)):
        rates.call(RED)
    with pytest.raises(ControllerError):
        rates.call(RED)
    # What was more work than it seemed is paid for later, but within sight.
    rates.cost(RED, 1_000_000.0)
    with pytest.raises(ControllerError) as caught:
        rates.call(RED)
    assert caught.value.retry_after_s == 5.0


def test_a_tenants_jobs_may_call_as_often_as_they_have_workers(office: StillOffice) -> None:
    now = [0.0]
    rates = Rates(office.store, 5.0, lambda: now[0])
    jobs = [office.create(RED, slots_wanted=16).job for _ in range(60)]
    for job in jobs:
        office.join(job, 0, 64)
    for _ in range(30):  # seconds, in each of which every worker calls twice as often as it shall
        now[0] += 1.0
        for job in jobs:
            for _ in range(26):
                rates.call(Caller(job=job.id))

    # But not as often as they like.
    def without_end() -> None:
        for _ in range(200_000):
            rates.call(Caller(job=jobs[0].id))

    with pytest.raises(ControllerError, match="jobs of tenant red"):
        without_end()
    rates.call(RED)


def test_addresses_are_forgotten_and_do_not_grow_without_end(office: StillOffice) -> None:
    rates = Rates(office.store, 5.0, lambda: 0.0)
    for number in range(3 * rates_module._BUCKETS):
        rates.stranger(f"ipv4:10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1")
    assert len(rates._buckets) == rates_module._BUCKETS
    for port in range(int(STRANGER_BURST)):
        rates.stranger(f"ipv6:%5B::1%5D:{port}")
    with pytest.raises(ControllerError, match="callers at"):
        rates.stranger("ipv6:%5B::1%5D:9999")


def test_only_the_caller_of_a_flood_is_told_to_wait() -> None:
    """Calls of strangers and of a tenant, more than it has; its job, and others, go on."""
    spec = switch_spec("127.0.0.1:1")
    with serving("--store", ":memory:", "--switch", spec) as child, child.client() as admin:
        tokens = {name: admin.add_tenant(name).token for name in ("red", "blue")}
        with ControllerClient(child.address, token=tokens["red"]) as client:
            job = client.create_job("demo", SlotRequest(16))
        with grpc.insecure_channel(child.listen) as channel:
            call = channel.unary_unary("/wiresum.controller.v1.Controller/ListTenants")

            def flood(token: str, calls: int) -> dict[str, int]:
                found: dict[str, int] = {}
                metadata = (("authorization", f"Bearer {token}"),)
                while calls > 0:  # gRPC itself gives up calls when thousands are on their way
                    count(call, metadata, min(calls, 250), found)
                    calls -= 250
                return found

            stranger = flood("guess", 3000)
            assert stranger["UNAUTHENTICATED"] >= STRANGER_BURST
            assert stranger["RESOURCE_EXHAUSTED"] > 0
            with ThreadPoolExecutor(1) as threads:
                flooding = threads.submit(flood, tokens["red"], 3000)
                while not flooding.done():
                    admin.list_tenants()
                    with ControllerClient(child.address, token=tokens["blue"]) as blue:
                        assert [tenant.name for tenant in blue.list_tenants()] == ["blue"]
                    assert admin.heartbeat(job.id, job.token).state == pb.JOB_STATE_WAITING
            found = flooding.result()
            assert set(found) == {"OK", "RESOURCE_EXHAUSTED"}
            assert found["OK"] >= TENANT_BURST - 10
            # A client of ours comes back when it is told to.
            with ControllerClient(child.address, token=tokens["red"]) as red:
                assert len(red.list_jobs()) == 1


def count(call: Any, metadata: Any, calls: int, found: dict[str, int]) -> None:
    """Make so many calls at once, and count how they end."""
    futures = [call.future(b"", timeout=LIMIT_S, metadata=metadata) for _ in range(calls)]
    for future in futures:
        code = future.code().name
        found[code] = found.get(code, 0) + 1
        if code == "RESOURCE_EXHAUSTED":
            names = {name for name, _ in future.trailing_metadata()}
            assert "wiresum-retry-after-ms" in names


# ---- lists


async def test_a_list_comes_in_pages(rig: Rig) -> None:
    names = [f"j{number}" for number in range(5)]
    for name in names:
        await rig.create(name, slots=16)
    big = [
        asyncio.create_task(
            rig.call(lambda c, n=n: c.create_job(f"w{n}", SlotRequest(4096, on_full=OnFull.WAIT)))  # type: ignore[misc]
        )
        for n in range(3)
    ]
    await until(lambda: len(rig.office.store.queue()) == 3)
    waiting = [waiter.name for waiter in reversed(rig.office.store.queue())]

    def pages(client: ControllerClient, size: int) -> list[list[str]]:
        request, found = pb.ListJobsRequest(page_size=size), []
        while True:
            answer = client._call(lambda stub: stub.ListJobs, request)
            found.append([job.name for job in answer.jobs])
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    wanted = [*waiting, *reversed(names)]
    for size in (1, 2, 3, 4, 7, 8, 9, 0, 1 << 31):
        found = await rig.call(lambda client, size=size: pages(client, size))  # type: ignore[misc]
        assert [name for page in found for name in page] == wanted
        assert all(len(page) <= (size or 500) for page in found)
    assert [job.name for job in await rig.call(lambda client: client.list_jobs())] == wanted
    for token in ("x", "w", "w-1", "j1:x", "jnan:1", "j1.0:" + "9" * 30, "w" + "9" * 30):
        with pytest.raises(ControllerError, match="page token"):
            await rig.call(
                lambda c, token=token: c._call(  # type: ignore[misc]
                    lambda stub: stub.ListJobs, pb.ListJobsRequest(page_token=token)
                )
            )
    for task in big:
        task.cancel()


def test_a_round_of_decisions_is_made_once_for_one_situation(office: StillOffice) -> None:
    office.create(RED, slots_wanted=4096)
    request = pb.CreateJobRequest(slots_wanted=4096, on_full=pb.ON_FULL_WAIT)
    waiters = [office.queue.request(request, BLUE).job for _ in range(50)]  # type: ignore[union-attr]
    for waiter in waiters:
        office.queue.present(waiter.id)
    office.queue.decide()
    settled = office.queue._settled
    assert settled is not None
    version = office.store.version
    office.queue.decide()
    assert (office.queue._settled, office.store.version) == (settled, version)
    # Whatever it depends on makes another.
    running = office.store.jobs(live_only=True)[0]
    office.jobs.end(running, JobState.RELEASED, "released")
    assert office.queue.decide().granted == (waiters[0].id,)
