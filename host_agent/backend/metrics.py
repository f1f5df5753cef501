"""``WIRESUM_METRICS``: what this worker's collectives and its engine have counted, on request.

One endpoint per process, at the port of the variable plus the process's local rank. Workers whose
launcher does not say that (LOCAL_RANK) add their rank in the group instead: so no two workers of a
host want the same port. It is there for as long as the process is, whatever groups come and go.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.common.metrics import Catalogue, Metric, MetricsError, MetricsServer, Scrape
from wiresum.common.version import package_version
from wiresum.host_agent import lines
from wiresum.host_agent.agent.carriers import RANKS, SWITCH
from wiresum.host_agent.backend import report
from wiresum.host_agent.environment import AgentError

log = logging.getLogger("wiresum")

VARIABLE = "WIRESUM_METRICS"

METRICS = Catalogue("wiresum_agent")

INFO = METRICS.gauge(
    "info",
    "A lease of this worker; always 1, absent without one.",
    "version", "job_id", "rank", "workers", "switch", "field",
)  # fmt: skip
LEASE = METRICS.gauge("lease_valid", "0 once the lease was lost or released.", "job_id")
SLOTS = METRICS.gauge("lease_slots", "Slots of the lease.", "job_id")
CHANGES = METRICS.gauge(
    "lease_change", "How often the lease was changed while the job ran.", "job_id"
)
WINDOW = METRICS.gauge(
    "window_chunks", "Chunks of a stream that may be in flight now.", "job_id", "stream"
)
RTT = METRICS.gauge("rtt_seconds", "Smoothed round trip of the data stream.", "job_id")
RTO = METRICS.gauge("rto_seconds", "Silence after which a chunk is sent again.", "job_id")
OFFLOAD = METRICS.gauge(
    "offload", "1 while the kernel takes (gso) or gives (gro) trains of datagrams.",
    "job_id", "kind",
)  # fmt: skip
HELD = METRICS.gauge(
    "held_collectives",
    "Collectives that wait for a change of the lease or of the carrier.",
    "job_id",
)

CARRIER = METRICS.gauge(
    "carrier", "1 for what sums now: the switch, or the ranks.", "job_id", "carrier"
)
FIELD = METRICS.gauge(
    "field", "Bits of an element on the wire now, in a run that is tuned.", "job_id"
)
FIELD_CHANGES = METRICS.counter(
    "field_changes_total", "Changes of the field in a run that is tuned, by the reason.", "reason"
)
CARRIER_CHOICES = METRICS.counter(
    "carrier_choices_total",
    "Carriers that the ranks have chosen or tried in a run that is tuned, by the reason.",
    "carrier", "reason",
)  # fmt: skip
INTERVAL = METRICS.gauge(
    "interval_steps", "H of local steps now, once a run that is tuned has changed it.", "job_id"
)
INTERVAL_CHANGES = METRICS.counter(
    "interval_changes_total", "Changes of H in a run that is tuned, by the reason.", "reason"
)
COLLECTIVES = METRICS.counter("collectives_total", "Collectives, by the way they went.",
                              "path", "collective")  # fmt: skip
FALLBACK = METRICS.counter(
    "fallback_total", "Collectives that did not use the switch, and why.", "collective", "reason"
)
FALLBACK_BYTES = METRICS.counter(
    "fallback_bytes_total", "Bytes of the tensors of collectives that did not use the switch."
)
FAILED = METRICS.counter(
    "failed_total", "Collectives over the switch or the ranks that failed.", "kind"
)
ENDED = METRICS.counter("ended_total", "Collectives over the switch or the ranks that have ended.")
REDUCED = METRICS.counter(
    "reduced_bytes_total", "Bytes of the tensors given to the switch or the ranks."
)
IN_FLIGHT = METRICS.counter(
    "in_flight_seconds_total", "Time from a collective's start to its end, summed."
)
EXPOSED = METRICS.counter(
    "exposed_seconds_total",
    "Time that training stood still for collectives: in Work.wait(), and at the end of backward().",
)

CHUNKS_SENT = METRICS.counter("chunks_sent_total", "Chunks sent for the first time.", "stream")
CHUNKS_DONE = METRICS.counter("chunks_received_total", "Chunks whose result has come.", "stream")
RETRANSMISSIONS = METRICS.counter(
    "retransmissions_total", "Chunks sent again, by what made them suspect.", "cause"
)
HANDED_OVER = METRICS.counter(
    "handed_over_total", "Chunks that the ranks have summed when they left the switch."
)
LOSSES = METRICS.counter("losses_total", "Chunks that came back only after being sent again.")
SPURIOUS = METRICS.counter(
    "spurious_losses_total", "Of these, chunks of which nothing had been lost: an answer was late."
)
ELEMENTS = METRICS.counter("elements_total", "Elements of the tensors given to the engine.")
COPIED = METRICS.counter("copied_bytes_total", "Bytes of the copies given to the engine.")
BLOCKS = METRICS.counter("blocks_total", "Blocks of elements, by what became of them.", "kind")
REPLIES = METRICS.counter("replies_total", "Replies that carry no new result.", "kind")
DROPS = METRICS.counter("drops_total", "Packets that were not believed.", "reason")
PACKETS = METRICS.counter("packets_total", "Packets.", "direction")
BYTES = METRICS.counter(
    "bytes_total", "Bytes on the wire: UDP payload, and Ethernet, IPv4 and UDP headers.",
    "direction", "part",
)  # fmt: skip
CALLS = METRICS.counter("calls_total", "System calls that moved these packets.", "direction")
SEND_ERRORS = METRICS.counter("send_errors_total", "Sends that the kernel refused.")
REFUSED = METRICS.counter("refused_total", "ICMP errors: nobody listens where the switch was.")

_COUNTERS: dict[str, tuple[Metric, tuple[str, ...]]] = {
    "exponent_contributions": (CHUNKS_SENT, ("exponent",)),
    "data_contributions": (CHUNKS_SENT, ("data",)),
    "copy_contributions": (CHUNKS_SENT, ("copy",)),
    "exponent_results": (CHUNKS_DONE, ("exponent",)),
    "data_results": (CHUNKS_DONE, ("data",)),
    "copy_results": (CHUNKS_DONE, ("copy",)),
    "fast_retransmissions": (RETRANSMISSIONS, ("overtaken",)),
    "probes": (RETRANSMISSIONS, ("timeout",)),
    "handed_over": (HANDED_OVER, ()),
    "losses": (LOSSES, ()),
    "spurious_losses": (SPURIOUS, ()),
    "elements": (ELEMENTS, ()),
    "copied_bytes": (COPIED, ()),
    "blocks_sent": (BLOCKS, ("sent",)),
    "blocks_zero": (BLOCKS, ("zero",)),
    "blocks_nonfinite": (BLOCKS, ("nonfinite",)),
    "waits": (REPLIES, ("wait",)),
    "mismatches": (REPLIES, ("mismatch",)),
    "duplicates": (REPLIES, ("duplicate",)),
    "packets_sent": (PACKETS, ("out",)),
    "packets_received": (PACKETS, ("in",)),
    "bytes_sent": (BYTES, ("out", "payload")),
    "bytes_received": (BYTES, ("in", "payload")),
    "header_bytes_sent": (BYTES, ("out", "headers")),
    "header_bytes_received": (BYTES, ("in", "headers")),
    "send_calls": (CALLS, ("out",)),
    "receive_calls": (CALLS, ("in",)),
    "send_errors": (SEND_ERRORS, ()),
    "refused": (REFUSED, ()),
}
"""The engine's counters, by their names in ``stats()``; those in no table are drops."""

_GAUGES: dict[str, tuple[Metric, tuple[str, ...], float]] = {
    "window": (WINDOW, ("data",), 1.0),
    "exponent_window": (WINDOW, ("exponent",), 1.0),
    "copy_window": (WINDOW, ("copy",), 1.0),
    "rtt_us": (RTT, (), 1e-6),
    "rto_us": (RTO, (), 1e-6),
    "gso": (OFFLOAD, ("gso",), 1.0),
    "gro": (OFFLOAD, ("gro",), 1.0),
}
"""Gauges, with the factor to Prometheus' units."""


def read(scrape: Scrape) -> None:
    """Fill in all metrics of this process."""
    found = report.dump()
    for collective, count in found["switch"].items():
        scrape.set(COLLECTIVES, count, "switch", collective)
    for collective, count in found["ranks"].items():
        scrape.set(COLLECTIVES, count, "ranks", collective)
    for collective, reasons in found["fallback"].items():
        scrape.set(COLLECTIVES, sum(reasons.values()), "fallback", collective)
        for reason, count in reasons.items():
            scrape.set(FALLBACK, count, collective, reason)
    scrape.set(FALLBACK_BYTES, found["fallback_bytes"])
    for kind, count in found["failed"].items():
        scrape.set(FAILED, count, kind)
    scrape.set(ENDED, found["ended"])
    scrape.set(REDUCED, found["switch_bytes"] + found["ranks_bytes"])
    scrape.set(IN_FLIGHT, found["in_flight_s"])
    scrape.set(EXPOSED, found["exposed_s"])
    _read_engine(scrape, found["engine"])
    jobs = set()
    for group in found["groups"]:
        if "engine" not in group:
            continue
        job = group["lease"].get("job", "")
        if job not in jobs:  # of several groups without a job the first one: the default group
            jobs.add(job)
            _read_lease(scrape, group["lease"], group["engine"])


def _read_engine(scrape: Scrape, engine: Mapping[str, float]) -> None:
    for name, (metric, labels) in _COUNTERS.items():
        if name in engine:
            scrape.set(metric, engine[name], *labels)
    for name, count in engine.items():
        if name.startswith("drops_"):
            scrape.set(DROPS, count, name.removeprefix("drops_"))
    if "retransmissions" in engine:
        known = engine["fast_retransmissions"] + engine["probes"]
        scrape.set(RETRANSMISSIONS, max(0, engine["retransmissions"] - known), "repair")


def _read_lease(scrape: Scrape, lease: Mapping[str, Any], engine: Mapping[str, float]) -> None:
    job = lease.get("job", "")
    if "switch" in lease:
        switch = str(lease["switch"]).partition(" ")[0]
        scrape.set(
            INFO, 1, package_version(), job, lease["rank"], lease["workers"], switch, lease["field"]
        )
        scrape.set(LEASE, lease["gone"] is None, job)
        scrape.set(SLOTS, lease["slots"], job)
        scrape.set(CHANGES, lease.get("change", 0), job)
    for carrier in (SWITCH, RANKS):
        scrape.set(CARRIER, lease.get("carrier", SWITCH) == carrier, job, carrier)
    scrape.set(HELD, lease.get("held", 0), job)
    if "tuning" in lease:
        scrape.set(FIELD, lease["tuning"]["field"], job)
        changes = Counter(each["reason"] for each in lease["tuning"]["choices"][1:])
        for reason, count in changes.items():
            scrape.set(FIELD_CHANGES, count, reason)
        chosen = Counter(
            (each["carrier"], each["reason"]) for each in lease["tuning"]["carrier_choices"]
        )
        for (carrier, reason), count in chosen.items():
            scrape.set(CARRIER_CHOICES, count, carrier, reason)
        intervals = lease["tuning"]["interval_choices"]
        if intervals:
            scrape.set(INTERVAL, intervals[-1]["h"], job)
        for reason, count in Counter(each["reason"] for each in intervals).items():
            scrape.set(INTERVAL_CHANGES, count, reason)
    for name, (metric, labels, factor) in _GAUGES.items():
        if name in engine:
            scrape.set(metric, engine[name] * factor, job, *labels)


# ---- the process's endpoint

_server: MetricsServer | None = None
_lock = threading.Lock()


def where(env: Mapping[str, str], rank: int | None = None) -> Endpoint | None:
    """The address at which this process, of rank ``rank``, serves its metrics; None: it does not.

    That is WIRESUM_METRICS plus LOCAL_RANK. Without that, or where it is of other workers than
    these (RANK is not ``rank``: processes that a worker has started), it is plus ``rank``.
    Raises ``AddressError`` or :class:`AgentError`.
    """
    text = env.get(VARIABLE, "")
    if not text:
        return None
    wanted = parse_endpoint(text, what=VARIABLE)
    local = env.get("LOCAL_RANK", "")
    ours = rank is None or env.get("RANK", "") in ("", str(rank))
    number = int(local) if local.isdigit() and ours else rank or 0
    port = wanted.port and wanted.port + number
    if port > 65535:
        raise AgentError(
            lines.METRICS_PORT_TOO_HIGH.of(variable=VARIABLE, text=text, number=number, port=port)
        )
    return Endpoint(wanted.host, port)


def serve(env: Mapping[str, str] = os.environ, rank: int | None = None) -> Endpoint | None:
    """Serve this process's metrics if the environment says so; may be called again.

    ``rank`` is the process's. If the port is taken, the training goes on without metrics, with a
    warning. Raises what :func:`where` raises.
    """
    global _server
    wanted = where(env, rank)
    if wanted is None:
        return None
    with _lock:
        if _server is None:
            try:
                _server = MetricsServer(str(wanted), METRICS, read, option=VARIABLE)
            except MetricsError as error:
                log.warning("wiresum: no metrics of this worker: %s", error)
                return None
            os.register_at_fork(after_in_child=_forget)
            # With port 0, this line is the only way to find out.
            level = logging.INFO if wanted.port else logging.WARNING
            log.log(level, "wiresum: metrics at http://%s/metrics", _server.address)
        return _server.address


def _forget() -> None:
    """A child (of a data loader, for one) must not keep the port when the worker is gone."""
    global _server
    if _server is not None:
        _server.close_in_child()
        _server = None
