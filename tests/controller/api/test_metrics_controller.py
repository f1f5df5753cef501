"""The controller's metrics: what a scrape says while switches and jobs come, go and fail."""

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller_rig import ADMIN_TOKEN, QUICK, Clock, Rig, until
from fake_switch import FakeSwitch
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from wiresum.common.metrics import MetricsServer
from wiresum.controller.api.metrics import METRICS, ControllerReader, Requests
from wiresum.controller.api.server import serving
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.office.office import Office
from wiresum.controller.on_full import OnFull
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.tokens import hashed
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.p4 import packet

Metrics = dict[str, dict[tuple[str, ...], float]]
LIMIT_S = 20.0


class Scraper:
    """Scrapes a office over HTTP, from another thread than the office's."""

    def __init__(self, office: Office, requests: Requests) -> None:
        self.reader = ControllerReader(lambda: office, requests, asyncio.get_running_loop())
        self.server = MetricsServer("127.0.0.1:0", METRICS, self.reader)

    async def __call__(self, *, fresh: bool = True) -> Metrics:
        """Values by name and by the labels' values in the order of the labels' names."""
        if fresh:
            self.reader._told.time = float("-inf")
        text = await asyncio.wait_for(asyncio.to_thread(self._get), LIMIT_S)
        found: Metrics = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    def _get(self) -> str:
        registry = CollectorRegistry()
        registry.register(self.server)
        return generate_latest(registry).decode()


@pytest.fixture
async def watched(
    fake: FakeSwitch, clock: Clock, tmp_path: Path
) -> AsyncIterator[tuple[Rig, Scraper]]:
    """A rig, and somebody who scrapes it."""
    store = SqliteStore(tmp_path / "store.sqlite")
    office = Office(store, clock=clock, loop_options=QUICK)
    requests = Requests()
    async with serving(office, "127.0.0.1:0", None, [requests], hashed(ADMIN_TOKEN)) as address:
        rig = Rig(office, clock, fake, str(address))
        await office.add_switch(rig.facts())
        await until(lambda: office.fleet.is_up("s1"))
        scraper = Scraper(office, requests)
        yield rig, scraper
        scraper.server.close()
        rig.close()
    store.close()


Watched = tuple[Rig, Scraper]


async def test_switches_jobs_and_tenants(watched: Watched) -> None:
    rig, scrape = watched
    job = await rig.create("resnet", slots=128)
    await rig.join_all(job)
    rig.clock.time += 3.0
    rig.switch.count("drops", packet.DropReason.STRANGER, 7)
    number = (await rig.get(job)).number
    rig.switch.count("events", number * packet.EVENTS + packet.Event.COMPLETED, 42)
    found = await scrape()
    assert found["wiresum_controller_switch_up"] == {("s1",): 1}
    assert found["wiresum_controller_switch_state"]["up", "s1"] == 1
    assert "wiresum_controller_switch_error_info" not in found
    assert found["wiresum_controller_switch_counters_up"] == {("s1",): 1}
    assert found["wiresum_controller_switch_drops_total"]["stranger", "s1"] == 7
    assert found["wiresum_controller_switch_slots_held"] == {("s1", "default"): 128}
    assert found["wiresum_controller_switch_slots_free"] == {("s1",): packet.SLOTS - 128}
    assert found["wiresum_controller_switch_slots_largest_free"] == {("s1",): 2048}
    assert found["wiresum_controller_job_state"] == {
        (job.id, "waiting"): 0, (job.id, "ready"): 1,
    }  # fmt: skip
    assert found["wiresum_controller_job_events_total"]["completed", job.id] == 42
    assert found["wiresum_controller_job_heartbeat_age_seconds"] == {(job.id,): 3.0}
    assert found["wiresum_controller_jobs"]["ready", "default"] == 1
    assert found["wiresum_controller_tenant_slots"] == {("default",): 128}
    assert found["wiresum_controller_queue_length"] == {("default",): 0}
    assert found["wiresum_controller_reconcile_passes_total"]["ok", "s1"] >= 2
    assert found["wiresum_controller_reconcile_writes_total"]["s1",] >= 5
    last = found["wiresum_controller_reconcile_last_pass_timestamp_seconds"]["s1",]
    assert abs(time.time() - last) < LIMIT_S
    assert found["wiresum_controller_last_epoch"][()] == rig.office.store.last_epoch()

    await rig.call(lambda client: client.release_job(job.id, job.token))
    await rig.call(lambda client: client.release_job(job.id, job.token))
    found = await scrape()
    assert found["wiresum_controller_jobs_ended_total"] == {("released",): 1}, "once, asked twice"
    assert "wiresum_controller_job_info" not in found


async def test_a_scrape_while_the_leadership_ends_is_that_of_a_follower(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, scrape = watched
    assert (await scrape())["wiresum_controller_leads"] == {(): 1}

    def over() -> None:
        raise NotLeading("UNAVAILABLE", "another controller leads")

    monkeypatch.setattr(rig.office.store, "snapshot", over)
    assert (await scrape())["wiresum_controller_leads"] == {(): 0}


async def test_the_queue_and_a_lease_that_is_to_shrink(watched: Watched) -> None:
    rig, scrape = watched
    await rig.call(lambda client: client.add_tenant("urgent", priority=10))
    large = await rig.call(
        lambda client: client.create_job("large", SlotRequest(packet.SLOTS, min_slots=packet.SLOTS))
    )
    await rig.join_all(large)
    asking = asyncio.create_task(
        rig.call(lambda client: client.create_job("small", SlotRequest(64, on_full=OnFull.WAIT)))
    )
    await until(lambda: bool(rig.office.store.queue()))
    rig.clock.time += 7.0
    found = await scrape()
    assert found["wiresum_controller_queue_length"]["default",] == 1
    assert found["wiresum_controller_queue_oldest_seconds"]["default",] == 7.0
    assert found["wiresum_controller_jobs"]["queued", "default"] == 1
    assert found["wiresum_controller_switch_slots_free"] == {("s1",): 0}
    assert found["wiresum_controller_job_changing"] == {(large.id,): 0}
    await rig.call(lambda client: client.release_job(large.id, large.token))
    small = await asking
    found = await scrape()
    assert found["wiresum_controller_queue_length"]["default",] == 0
    assert found["wiresum_controller_job_info"].keys() == {
        (small.id, "small", str(small.number), "", "s1", "default")
    }

    shrinking = await rig.call(
        lambda client: client.create_job("rest", SlotRequest(2048, min_slots=16))
    )
    await rig.join_all(shrinking)
    pressing = asyncio.create_task(
        rig.call(
            lambda client: client.create_job(
                "now", SlotRequest(2048, on_full=OnFull.WAIT), tenant="urgent"
            )
        )
    )
    await until(lambda: any(job.pending for job in rig.office.store.jobs(live_only=True)))
    found = await scrape()
    assert 1 in found["wiresum_controller_job_changing"].values()
    for job in (small, shrinking):
        await rig.call(lambda client, job=job: client.release_job(job.id, job.token))
    await pressing


async def test_calls_are_counted_by_how_they_end(watched: Watched) -> None:
    rig, scrape = watched
    await rig.call(lambda client: client.list_jobs())
    with pytest.raises(ControllerError):
        await rig.call(lambda client: client.get_job("nobody"))
    with pytest.raises(ControllerError):
        await rig.call(lambda client: client.list_jobs(), token="wrong")
    found = (await scrape())["wiresum_controller_requests_total"]
    assert found["OK", "ListJobs"] == 1
    assert found["NOT_FOUND", "GetJob"] == 1
    assert found["UNAUTHENTICATED", "ListJobs"] == 1


async def test_a_switch_that_is_down_costs_its_counters_and_no_scrape(watched: Watched) -> None:
    rig, scrape = watched
    job = await rig.create()
    await rig.switch.kill()
    await until(lambda: not rig.office.fleet.is_up("s1"))
    found = await scrape()
    assert found["wiresum_controller_switch_up"] == {("s1",): 0}
    assert found["wiresum_controller_switch_state"]["down", "s1"] == 1
    ((why, name),) = found["wiresum_controller_switch_error_info"]
    assert (name, "p4" in why) == ("s1", True)
    assert found["wiresum_controller_switch_counters_up"] == {("s1",): 0}
    assert "wiresum_controller_switch_drops_total" not in found
    assert found["wiresum_controller_job_info"].keys() == {
        (job.id, job.id, str(job.number), "", "s1", "default")
    }
    await until(lambda: rig.office.fleet.loop("s1").tally.connect_failures > 0)
    found = await scrape()
    assert found["wiresum_controller_switch_connects_total"]["failed", "s1"] >= 1
    assert found["wiresum_controller_switch_connection_losses_total"] == {("s1",): 1}


async def test_a_switch_that_does_not_answer_blocks_neither_scrape_nor_service(
    watched: Watched,
) -> None:
    rig, scrape = watched
    rig.switch.freeze.clear()
    scraping = asyncio.create_task(scrape())
    await rig.call(lambda client: client.list_jobs())
    found = await scraping
    assert found["wiresum_controller_switch_counters_up"] == {("s1",): 0}
    rig.switch.freeze.set()
    found = await scrape()
    assert found["wiresum_controller_switch_counters_up"] == {("s1",): 1}


async def test_failed_passes_are_counted(watched: Watched) -> None:
    rig, scrape = watched
    rig.switch.refuse_writes = True
    job = await rig.create()
    joining = asyncio.gather(rig.join(job, 0), rig.join(job, 1))
    await until(lambda: rig.office.fleet.loop("s1").tally.pass_failures > 0)
    found = await scrape()
    assert found["wiresum_controller_reconcile_passes_total"]["failed", "s1"] >= 1
    rig.switch.refuse_writes = False
    await joining


async def test_many_scrapers_are_no_burden_for_a_switch(watched: Watched) -> None:
    rig, scrape = watched
    await scrape()
    rig.switch.patience = 0  # whatever is asked from now on is not answered
    for _ in range(3):
        found = await scrape(fresh=False)
        assert found["wiresum_controller_switch_counters_up"] == {("s1",): 1}
    rig.switch.patience = 1 << 30
    rig.switch.freeze.set()


def report(rank: int, **counts: float | str) -> pb.RankReport:
    return pb.RankReport(rank=rank, **counts)  # type: ignore[arg-type]


async def test_reports_of_ranks(watched: Watched) -> None:
    rig, scrape = watched
    job = await rig.create()
    await rig.join_all(job)

    async def beat(said: pb.RankReport) -> None:
        await rig.call(lambda client: client.heartbeat(job.id, job.token, report=said))

    await beat(report(0, ended=10, in_flight_s=1.0))
    rig.clock.time += 5.0
    await beat(report(0, ended=30, in_flight_s=1.5, retransmissions=2))
    lines = "the switch\nis silent"
    await beat(report(1, ended=29, exposed_s=0.5, carrier="ranks", carrier_reason=lines))
    rig.clock.time += 2.0
    first, second = (await rig.get(job)).reports
    assert (first.rank, first.ended, first.age_s) == (0, 30, 2.0)
    assert (first.before.ended, first.before.age_s) == (10, 7.0)
    assert (second.rank, second.ended, second.HasField("before")) == (1, 29, False)
    found = await scrape()
    assert found["wiresum_controller_rank_collectives_total"] == {
        (job.id, "0"): 30, (job.id, "1"): 29,
    }  # fmt: skip
    assert second.carrier_reason == "the switch is silent"
    assert found["wiresum_controller_job_carrier"] == {
        ("switch", job.id): 0, ("ranks", job.id): 1,
    }  # fmt: skip
    assert found["wiresum_controller_rank_exposed_seconds_total"][job.id, "1"] == 0.5

    await rig.join_all(job, attempt=1)
    assert list((await rig.get(job)).reports) == [], "another attempt begins anew"


async def test_reports_that_cannot_be_are_ignored(watched: Watched) -> None:
    rig, _ = watched
    job = await rig.create()
    await rig.join_all(job)
    for said in (
        report(2, ended=1),
        report(0, in_flight_s=float("nan")),
        report(0, rtt_s=float("inf")),
        report(1, exposed_s=-1.0),
    ):
        await rig.call(lambda client, said=said: client.heartbeat(job.id, job.token, report=said))
    assert list((await rig.get(job)).reports) == []


async def test_a_carrier_that_is_none_and_a_long_reason_do_not_reach_who_looks(
    watched: Watched,
) -> None:
    rig, scrape = watched
    job = await rig.create()
    await rig.join_all(job)
    said = report(0, carrier="\x1b[2Jranks", carrier_reason="\x1b[2J" + "long " * 1000)
    await rig.call(lambda client: client.heartbeat(job.id, job.token, report=said))
    (shown,) = (await rig.get(job)).reports
    assert shown.carrier == ""
    assert shown.carrier_reason.isprintable()
    assert len(shown.carrier_reason) == 500
    assert "wiresum_controller_job_carrier" not in await scrape()


@pytest.mark.parametrize("every", [0.001, 0.1, 0.4, 3.0])
async def test_rates_are_taken_over_a_while_however_fast_reports_come(
    watched: Watched, every: float
) -> None:
    rig, _ = watched
    job = await rig.create()
    await rig.join_all(job)
    stored = rig.office.store.job(job.id)
    assert stored is not None
    for ended in range(2000):
        rig.office.reports.heard(stored, report(0, ended=ended))
        rig.clock.time += every
    (latest,) = rig.office.reports.of(stored)
    assert latest.ended == 1999
    span = latest.before.age_s - latest.age_s
    assert 1.0 - 1e-3 <= span <= max(1.6, every + 1e-3)
    assert max(map(len, rig.office.reports._jobs[job.id].ranks.values())) < 10


def test_the_command_serves_them(tmp_path: Path) -> None:
    from controller_process import serving as serving_process

    with serving_process(
        "--store", ":memory:", "--metrics", "127.0.0.1:0", "--log-format", "json", "-v"
    ) as child:
        assert child.ready["metrics"]
        url = f"http://{child.ready['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            assert "wiresum_controller_info" in answer.read().decode()
        child.process.terminate()
        _, log = child.process.communicate(timeout=LIMIT_S)
    assert child.process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert any(line["message"].startswith("serving on") for line in lines)
