"""``wiresum controller serve --metrics``: switches, jobs, tenants, the queue, when a scraper asks.

The store and the loops are read in the controller's own event loop. The switches' counters are read
over P4Runtime, from all switches at once, each within the loop's own limit. If a switch does not
answer, the scrape lacks its counters only.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from wiresum.common.metrics import Catalogue, MetricsServer, Scrape
from wiresum.common.tls import Validity
from wiresum.common.version import package_version
from wiresum.controller.carriers import CARRIERS, carrier
from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.office.office import Office
from wiresum.controller.scheduling.slots import free_ranges
from wiresum.controller.southbound.loop import SwitchLoop, SwitchState
from wiresum.controller.state.model import Job, JobState, Switch

METRICS = Catalogue("wiresum_controller")

INFO = METRICS.gauge("info", "The controller; always 1.", "version")
LEADS = METRICS.gauge(
    "leads", "1 while this controller leads; one with a store of its own always does."
)
REQUESTS = METRICS.counter("requests_total", "Calls that have ended, by status.", "method", "code")
LAST_EPOCH = METRICS.gauge("last_epoch", "The last epoch that was handed out, of 4294967295.")
CERTIFICATE_END = METRICS.gauge(
    "certificate_end_timestamp_seconds",
    "When the server's certificate in use expires; absent without TLS.",
)

SWITCH = METRICS.gauge(
    "switch_info", "A switch; always 1.",
    "switch", "p4runtime", "address", "lanes", "program_version",
)  # fmt: skip
UP = METRICS.gauge("switch_up", "1 while the switch agrees with the store.", "switch")
STATE = METRICS.gauge("switch_state", "1 for the state that the switch is in.", "switch", "state")
ERROR = METRICS.gauge(
    "switch_error_info", "Why a switch is not up; always 1, absent while it is.",
    "switch", "error",
)  # fmt: skip
DRAINING = METRICS.gauge("switch_draining", "1 while the switch takes no new jobs.", "switch")
TOLD = METRICS.gauge(
    "switch_counters_up", "1 if the switch told its counters for this scrape.", "switch"
)
DROPS = METRICS.counter(
    "switch_drops_total", "Packets that the switch's program dropped.", "switch", "reason"
)
SLOTS = METRICS.gauge("switch_slots", "All slots of a switch.", "switch")
FREE = METRICS.gauge("switch_slots_free", "Slots that no lease holds.", "switch")
LARGEST = METRICS.gauge(
    "switch_slots_largest_free", "The largest lease that would fit now.", "switch"
)
HELD = METRICS.gauge("switch_slots_held", "Slots that leases of a tenant hold.", "switch", "tenant")
CONNECTS = METRICS.counter(
    "switch_connects_total", "Attempts to take a switch over.", "switch", "result"
)
LOSSES = METRICS.counter(
    "switch_connection_losses_total", "Connections to a switch that were lost.", "switch"
)
PASSES = METRICS.counter(
    "reconcile_passes_total", "Passes of a switch's reconcile loop.", "switch", "result"
)
WRITES = METRICS.counter("reconcile_writes_total", "Updates written to a switch.", "switch")
PASS_TIME = METRICS.counter(
    "reconcile_seconds_total", "Time that the passes of the reconcile loop took.", "switch"
)
LAST_PASS = METRICS.gauge(
    "reconcile_last_pass_timestamp_seconds",
    "When a switch was last seen to agree with the store.",
    "switch",
)

JOBS = METRICS.gauge(
    "jobs", "Live jobs, and jobs in the queue, without parts of jobs.", "tenant", "state"
)
PARTS = METRICS.gauge("parts", "Parts of jobs, live or in the queue.", "tenant", "state")
ENDED = METRICS.counter("jobs_ended_total", "Jobs that are over, by how they ended.", "state")
QUEUE = METRICS.gauge("queue_length", "Jobs that wait for room.", "tenant")
QUEUE_AGE = METRICS.gauge(
    "queue_oldest_seconds", "How long the first of a tenant's jobs has waited for room.", "tenant"
)
TENANT_SLOTS = METRICS.gauge(
    "tenant_slots", "Slots that a tenant's jobs use of its quota.", "tenant"
)
QUOTA = METRICS.gauge("tenant_slot_quota", "A tenant's quota of slots; 0: no limit.", "tenant")
MAX_JOBS = METRICS.gauge("tenant_max_jobs", "A tenant's limit of live jobs; 0: no limit.", "tenant")

JOB = METRICS.gauge(
    "job_info", "A live job, or a part of one; always 1.",
    "job_id", "job_name", "tenant", "switch", "number", "parent",
)  # fmt: skip
JOB_STATE = METRICS.gauge("job_state", "1 for the state that a job is in.", "job_id", "state")
WORKERS = METRICS.gauge("job_workers", "Number of workers of a job.", "job_id")
JOINED = METRICS.gauge("job_joined", "Workers that have joined.", "job_id")
JOB_SLOTS = METRICS.gauge("job_slots", "Slots of a job's lease.", "job_id")
TARGET = METRICS.gauge(
    "job_slots_target",
    "Slots that a job was admitted with; more than job_slots if it was shrunk.",
    "job_id",
)
CHANGES = METRICS.gauge(
    "job_change", "How often a job's lease was changed in this attempt.", "job_id"
)
CHANGING = METRICS.gauge("job_changing", "1 while a job's lease is being changed.", "job_id")
JOB_PARKED = METRICS.gauge("job_parked", "1 while a job lends its slots to others.", "job_id")
SILENCE = METRICS.gauge(
    "job_heartbeat_age_seconds", "Time since the last sign of life of a job.", "job_id"
)
CARRIER = METRICS.gauge(
    "job_carrier", "1 for what sums a job's collectives: its switch, or its ranks.",
    "job_id", "carrier",
)  # fmt: skip
EVENTS = METRICS.counter(
    "job_events_total",
    "Contributions of a job, by what the switch did with them.",
    "job_id",
    "event",
)
RANK_AGE = METRICS.gauge(
    "rank_report_age_seconds", "Time since a rank's last report.", "job_id", "rank"
)
RANK_ENDED = METRICS.counter(
    "rank_collectives_total", "All-reduces of a rank that have ended.", "job_id", "rank"
)
RANK_IN_FLIGHT = METRICS.counter(
    "rank_in_flight_seconds_total",
    "Time from start to end of a rank's all-reduces, summed; least for the rank that starts last.",
    "job_id",
    "rank",
)
RANK_EXPOSED = METRICS.counter(
    "rank_exposed_seconds_total",
    "Time that a rank's training stood still for all-reduces.",
    "job_id",
    "rank",
)
RANK_AGAIN = METRICS.counter(
    "rank_retransmissions_total", "Chunks that a rank has sent again.", "job_id", "rank"
)

FRESH_S = 1.0
"""How long one reading of the switches' counters serves all scrapes; seconds."""

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]  # at run time, grpc's classes have no parameters

_EVENT_LOOP_S = 5.0  # beyond the switches' own limit, before a scrape gives up


@dataclass
class Requests(grpc.aio.ServerInterceptor):
    """Counts calls by method and status."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        serve = handler.unary_unary

        async def counted(request: Any, context: Any) -> Any:
            code = grpc.StatusCode.CANCELLED  # what remains when it neither answers nor aborts
            try:
                answer = await serve(request, context)
                code = grpc.StatusCode.OK
                return answer
            except grpc.aio.AbortError:
                code = context.code()
                raise
            finally:
                self.ended[method, grpc.StatusCode(code).name] += 1

        return grpc.unary_unary_rpc_method_handler(
            counted, handler.request_deserializer, handler.response_serializer
        )


@dataclass
class _Told:
    """The last reading of the switches' counters, and when it was taken."""

    time: float = float("-inf")
    drops: dict[str, dict[str, int]] = field(default_factory=dict)
    events: dict[str, dict[str, int]] = field(default_factory=dict)
    """By job id."""


class ControllerReader:
    """Reads a running controller. Call it for each scrape, from any thread but the event loop's."""

    def __init__(
        self,
        office: Callable[[], Office | None],
        requests: Requests,
        loop: asyncio.AbstractEventLoop,
        validity: Callable[[], Validity | None] = lambda: None,
    ) -> None:
        """``office``: the one that is open, if this controller leads.

        ``validity`` tells about the certificate in use, if there is one.
        """
        self._find = office
        self._validity = validity
        self._requests = requests
        self._loop = loop
        self._told = _Told()

    def __call__(self, scrape: Scrape) -> None:
        """Fill in all metrics. Raises ``TimeoutError`` if the event loop does not come to it."""
        office = self._find()
        limit = _EVENT_LOOP_S + (office.fleet.options.counters_s if office is not None else 0.0)
        reading = asyncio.run_coroutine_threadsafe(self._fill(scrape), self._loop)
        try:
            reading.result(limit)
        finally:
            reading.cancel()

    async def _fill(self, scrape: Scrape) -> None:
        office = self._find()
        scrape.set(INFO, 1, package_version())
        validity = self._validity()
        if validity is not None:
            scrape.set(CERTIFICATE_END, validity.ends.timestamp())
        for (method, code), count in self._requests.ended.items():
            scrape.set(REQUESTS, count, method, code)
        leads = office is not None
        if office is not None:
            try:
                await self._fill_leading(scrape, office)
            except NotLeading:
                leads = False  # since a moment ago: the office is about to close
        scrape.set(LEADS, leads)

    async def _fill_leading(self, scrape: Scrape, office: Office) -> None:
        switches = office.state.switches()
        on: dict[str, list[Job]] = {}
        for switch in switches:
            on[switch.name] = office.state.jobs_on(switch.name)
            await asyncio.sleep(0)  # a thousand jobs take a while: calls go in between
        await self._ask(office, on)
        scrape.set(LAST_EPOCH, office.state.last_epoch())
        for state, count in office.ended.items():
            scrape.set(ENDED, count, state.value)
        draining = office.state.draining()
        for switch in switches:
            self._switch(scrape, office, switch, on[switch.name])
            scrape.set(DRAINING, switch.name in draining, switch.name)
            for job in on[switch.name]:
                self._job(scrape, office, job)
            await asyncio.sleep(0)
        self._tenants(scrape, office, [job for its_jobs in on.values() for job in its_jobs])

    # ---- the switches' counters

    async def _ask(self, office: Office, on: dict[str, list[Job]]) -> None:
        if time.monotonic() - self._told.time < FRESH_S:
            return
        told = _Told(time.monotonic())

        async def one(name: str, jobs: list[Job]) -> None:
            try:
                loop = office.fleet.loop(name)
                numbers = {job.lease.number: job.id for job in jobs}
                drops, events = await asyncio.gather(
                    loop.read_drops(), loop.read_events(list(numbers))
                )
            except ControllerError:
                return  # `switch_counters_up` says so, `switch_error_info` why
            told.drops[name] = drops
            told.events |= {numbers[number]: counts for number, counts in events.items()}

        await asyncio.gather(*(one(name, jobs) for name, jobs in on.items()))
        self._told = told

    # ---- one thing at a time

    def _switch(self, scrape: Scrape, office: Office, switch: Switch, jobs: list[Job]) -> None:
        name = switch.name
        loop = office.fleet.find(name)
        version = loop.program.version if loop else ""
        where = f"{switch.ip}:{switch.udp_port}"
        scrape.set(SWITCH, 1, name, switch.p4runtime, where, switch.lanes, version)
        state = loop.state if loop else SwitchState.CONNECTING
        scrape.set(UP, state is SwitchState.UP, name)
        for each in SwitchState:
            scrape.set(STATE, state is each, name, each.value)
        if loop is not None and loop.reason:
            scrape.set(ERROR, 1, name, loop.reason)
        if loop is not None:
            _loop(scrape, name, loop)
        drops = self._told.drops.get(name)
        scrape.set(TOLD, drops is not None, name)
        for reason, count in (drops or {}).items():
            scrape.set(DROPS, count, name, reason)
        gaps = free_ranges([held for job in jobs for held in job.ranges], switch.slots)
        scrape.set(SLOTS, switch.slots, name)
        scrape.set(FREE, sum(gap.slots for gap in gaps), name)
        scrape.set(LARGEST, max((gap.slots for gap in gaps), default=0), name)
        held: Counter[str] = Counter()
        for job in jobs:
            held[job.tenant] += sum(each.slots for each in job.ranges)
        for tenant, slots in held.items():
            scrape.set(HELD, slots, name, tenant)

    def _job(self, scrape: Scrape, office: Office, job: Job) -> None:
        lease = job.lease
        scrape.set(JOB, 1, job.id, job.name, job.tenant, lease.switch, lease.number, job.parent)
        for state in (JobState.WAITING, JobState.READY):
            scrape.set(JOB_STATE, job.state is state, job.id, state.value)
        scrape.set(WORKERS, job.workers, job.id)
        scrape.set(JOINED, len(job.joined), job.id)
        scrape.set(JOB_SLOTS, job.lease.range.slots, job.id)
        scrape.set(TARGET, job.target, job.id)
        scrape.set(CHANGES, job.change, job.id)
        scrape.set(CHANGING, job.pending is not None, job.id)
        scrape.set(JOB_PARKED, job.parked, job.id)
        scrape.set(SILENCE, office.jobs.silence(job), job.id)
        for event, count in self._told.events.get(job.id, {}).items():
            scrape.set(EVENTS, count, job.id, event)
        reports = office.reports.of(job)
        if sums := carrier(reports).name:
            for name in CARRIERS:
                scrape.set(CARRIER, name == sums, job.id, name)
        for report in reports:
            rank = report.rank
            scrape.set(RANK_AGE, report.age_s, job.id, rank)
            scrape.set(RANK_ENDED, report.ended, job.id, rank)
            scrape.set(RANK_IN_FLIGHT, report.in_flight_s, job.id, rank)
            scrape.set(RANK_EXPOSED, report.exposed_s, job.id, rank)
            scrape.set(RANK_AGAIN, report.retransmissions, job.id, rank)

    def _tenants(self, scrape: Scrape, office: Office, jobs: list[Job]) -> None:
        waiting: dict[str, list[float]] = {}
        queue = office.state.queue()
        for job in queue:
            waiting.setdefault(job.tenant, []).append(job.created)
        states = Counter((job.tenant, job.state.value, bool(job.parent)) for job in [*jobs, *queue])
        usage = office.state.usage()
        for tenant in office.state.tenants():
            name = tenant.name
            for state in (JobState.WAITING, JobState.READY, JobState.QUEUED):
                scrape.set(JOBS, states[name, state.value, False], name, state.value)
                scrape.set(PARTS, states[name, state.value, True], name, state.value)
            queued = waiting.get(name, [])
            scrape.set(QUEUE, len(queued), name)
            oldest = office.clock.now() - min(queued) if queued else 0.0
            scrape.set(QUEUE_AGE, max(0.0, oldest), name)
            scrape.set(TENANT_SLOTS, usage[name].slots, name)
            scrape.set(QUOTA, tenant.slot_quota, name)
            scrape.set(MAX_JOBS, tenant.max_jobs, name)


def _loop(scrape: Scrape, name: str, loop: SwitchLoop) -> None:
    tally = loop.tally
    scrape.set(CONNECTS, tally.connects, name, "ok")
    scrape.set(CONNECTS, tally.connect_failures, name, "failed")
    scrape.set(LOSSES, tally.losses, name)
    scrape.set(PASSES, tally.passes, name, "ok")
    scrape.set(PASSES, tally.pass_failures, name, "failed")
    scrape.set(WRITES, tally.writes, name)
    scrape.set(PASS_TIME, tally.pass_s, name)
    if tally.last_pass is not None:
        scrape.set(LAST_PASS, tally.last_pass, name)


def serve_metrics(listen: str, reader: ControllerReader) -> MetricsServer:
    """Serve them at ``HOST:PORT``; raises ``MetricsError`` or ``AddressError``."""
    return MetricsServer(listen, METRICS, reader)
