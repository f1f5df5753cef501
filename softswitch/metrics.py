"""``wiresum switch serve --metrics``: the counters of the embedded switch, read for each scrape.

The ports' and the program's counters are read where they are; nothing is counted for this. Of
wiresum's own program the counters' cells have names (``own_program.py``); of any other, indices.
"""

from collections.abc import Callable

from wiresum.common.metrics import Catalogue, MetricsServer, Scrape
from wiresum.common.version import package_version
from wiresum.softswitch import own_program
from wiresum.softswitch._softswitch import Dataplane
from wiresum.softswitch.p4runtime.device import Device
from wiresum.softswitch.ports import SwitchPorts

METRICS = Catalogue("wiresum_switch")

INFO = METRICS.gauge("info", "The switch; always 1.", "version", "device_id", "p4runtime")
PROGRAM = METRICS.gauge(
    "program_info",
    "The program that it runs, as its P4Info calls it; always 1, absent without a program.",
    "name",
    "version",
)
CONTROLLERS = METRICS.gauge("controllers", "Controllers that are connected over P4Runtime.")
PRIMARY = METRICS.gauge("primary", "1 while one of them is in charge.")

PORT = METRICS.gauge("port_info", "A port and its address; always 1.", "port", "address")
FRAMES = METRICS.counter("port_frames_total", "Frames through a port.", "port", "direction")
BYTES = METRICS.counter(
    "port_bytes_total",
    "Bytes of frames through a port, Ethernet headers included.",
    "port",
    "direction",
)
CALLS = METRICS.counter(
    "port_calls_total", "System calls that moved frames through a port.", "port", "direction"
)
PORT_DROPS = METRICS.counter(
    "port_drops_total", "Frames that did not get through a port.", "port", "direction", "reason"
)
UNDELIVERED = METRICS.counter("undelivered_total", "Frames dropped between the ports.", "reason")
RECEIVED = METRICS.counter("program_received_total", "Frames that the program was given.")
EMITTED = METRICS.counter("program_emitted_total", "Frames that the program emitted.")
PARSER_ERRORS = METRICS.counter(
    "parser_errors_total", "Frames that the program's parser ended with an error."
)
ENTRIES = METRICS.gauge("table_entries", "Entries of a table.", "table")
ENTRIES_MAX = METRICS.gauge("table_size", "How many entries a table holds at most.", "table")

DROPS = METRICS.counter("drops_total", "Packets dropped by wiresum's program.", "reason")
EVENTS = METRICS.counter(
    "job_events_total",
    "Contributions by what the switch did with them, by the job's number on this switch.",
    "number",
    "event",
)
MEMBER_PACKETS = METRICS.counter(
    "member_packets_total",
    "Packets from one worker of a job, repetitions included, since it joined.",
    "number",
    "rank",
)
OPEN_SLOTS = METRICS.gauge(
    "open_slots", "Slots of a job that hold a chunk which is not complete.", "number"
)
MISSING = METRICS.gauge(
    "missing_contributions",
    "Open slots of a job that wait for this worker.",
    "number",
    "rank",
)
CELLS = METRICS.counter(
    "counter_packets_total",
    "Cells that are not zero of a counter of a program other than wiresum's.",
    "counter",
    "index",
)

MAX_CELLS = 4096
"""How many cells of other programs' counters are exposed, in order."""


class SwitchReader:
    """Reads one embedded switch; call it with a scrape, from any thread."""

    def __init__(
        self,
        ports: SwitchPorts,
        device: Device,
        dataplane: Callable[[], Dataplane | None],
        controllers: Callable[[], tuple[int, bool]],
        p4runtime: str,
    ) -> None:
        """``dataplane`` gives the running program, if any.

        ``controllers``: how many are connected, and whether one is in charge. ``p4runtime``: the
        server's address.
        """
        self._ports = ports
        self._device = device
        self._dataplane = dataplane
        self._controllers = controllers
        self._p4runtime = p4runtime

    def __call__(self, scrape: Scrape) -> None:
        """Fill in all metrics."""
        scrape.set(INFO, 1, package_version(), self._device.device_id, self._p4runtime)
        connected, primary = self._controllers()
        scrape.set(CONTROLLERS, connected)
        scrape.set(PRIMARY, primary)
        self._read_ports(scrape)
        dataplane, info = self._dataplane(), self._device.program
        if dataplane is None or info is None:
            return
        scrape.set(PROGRAM, 1, *info)
        for name, metric in (
            ("received", RECEIVED),
            ("emitted", EMITTED),
            ("parser_errors", PARSER_ERRORS),
        ):
            scrape.set(metric, dataplane.stats()[name])
        for table in dataplane.tables():
            scrape.set(ENTRIES, dataplane.table_size(table["name"]), table["name"])
            scrape.set(ENTRIES_MAX, table["max_size"], table["name"])
        if own_program.runs(dataplane, info[0]):
            _read_own(scrape, dataplane)
        else:
            _read_cells(scrape, dataplane)

    def _read_ports(self, scrape: Scrape) -> None:
        for number, address in self._ports.addresses.items():
            scrape.set(PORT, 1, number, address)
        for port, counts in self._ports.stats().items():
            if port == "switch":
                for name, count in counts.items():
                    scrape.set(UNDELIVERED, count, name.removeprefix("drop_"))
                continue
            for direction in ("in", "out"):
                scrape.set(FRAMES, counts[f"frames_{direction}"], port, direction)
                scrape.set(BYTES, counts[f"bytes_{direction}"], port, direction)
                scrape.set(CALLS, counts[f"calls_{direction}"], port, direction)
                start = f"drop_{direction}_"
                for name, count in counts.items():
                    if name.startswith(start):
                        reason = name.removeprefix(start)
                        scrape.set(PORT_DROPS, count, port, direction, reason)


def _read_own(scrape: Scrape, dataplane: Dataplane) -> None:
    for reason, count in own_program.drops(dataplane).items():
        scrape.set(DROPS, count, reason)
    for number, events in own_program.events(dataplane).items():
        for event, count in events.items():
            scrape.set(EVENTS, count, number, event)
    for job in own_program.jobs(dataplane):
        scrape.set(OPEN_SLOTS, job.open_slots, job.number)
        for worker in job.workers:
            scrape.set(MEMBER_PACKETS, worker.packets, job.number, worker.rank)
            scrape.set(MISSING, worker.missing, job.number, worker.rank)


def _read_cells(scrape: Scrape, dataplane: Dataplane) -> None:
    left = MAX_CELLS
    for name, _, size in dataplane.counters():
        for index, (packets, _) in enumerate(dataplane.counter_read(name, 0, min(size, left))):
            if packets:
                scrape.set(CELLS, packets, name, index)
        left -= min(size, left)


def serve_metrics(listen: str, reader: SwitchReader) -> MetricsServer:
    """Serve them at ``HOST:PORT``; raises ``MetricsError`` or ``AddressError``."""
    return MetricsServer(listen, METRICS, reader)
