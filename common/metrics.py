"""Prometheus endpoints: metrics are declared once, read for each scrape, and served over HTTP.

Nothing is counted here and nothing runs between two scrapes: a part declares its metrics in a
:class:`Catalogue` and gives a function that reads the counters that exist anyway.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SOCK_STREAM, getaddrinfo
from socket import socket as Socket
from typing import Any, Self

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from wiresum.common import lines
from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.common.errors import WiresumError

log = logging.getLogger("wiresum.metrics")

PATH = "/metrics"

_IDLE_S = 5.0  # how long a client may take to ask or to listen
_CLOSE_S = 0.1  # how soon the thread notices that it shall end
_CLIENTS = 8  # at once; a scraper needs one
_METHODS = "GET, HEAD, OPTIONS"
_MAX_UNREAD = 1 << 20  # bytes of a request that is refused

Family = CounterMetricFamily | GaugeMetricFamily


class MetricsError(WiresumError):
    """The endpoint cannot be opened."""


@dataclass(frozen=True)
class Metric:
    """One metric as it is exposed; counters end in ``_total``."""

    name: str
    counts: bool
    """Whether it only grows (a counter), or is what is true now (a gauge)."""
    help: str
    labels: tuple[str, ...]


@dataclass
class Catalogue:
    """All metrics of one part, in the order in which they are exposed."""

    prefix: str
    metrics: list[Metric] = field(default_factory=list)

    def counter(self, name: str, text: str, *labels: str) -> Metric:
        """Declare a counter: ``prefix_name`` must end in ``_total``."""
        if not name.endswith("_total"):
            raise ValueError(f"{name}: the name of a counter ends in _total")
        return self._add(name, True, text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Metric:
        """Declare a gauge."""
        return self._add(name, False, text, labels)

    def _add(self, name: str, counts: bool, text: str, labels: tuple[str, ...]) -> Metric:
        metric = Metric(f"{self.prefix}_{name}", counts, text, labels)
        if any(metric.name == other.name for other in self.metrics):
            raise ValueError(f"{metric.name} is declared twice")
        self.metrics.append(metric)
        return metric


class Scrape:
    """The values of one moment. A metric without values is exposed by its name alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._families: dict[str, Family] = {}
        for metric in catalogue.metrics:
            kind = CounterMetricFamily if metric.counts else GaugeMetricFamily
            self._families[metric.name] = kind(metric.name, metric.help, labels=metric.labels)

    def set(self, metric: Metric, value: float, *labels: object) -> None:
        """The value of ``metric`` for these labels, in the order of its declaration."""
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {labels}")
        self._families[metric.name].add_metric([str(label) for label in labels], value)

    def families(self) -> Iterable[Family]:
        """All of them, in order."""
        return self._families.values()


class MetricsServer:
    """Serves ``GET /metrics`` (and ``HEAD``) from threads of its own until closed.

    ``read`` fills in a scrape; it is called in one thread at a time, only for a scrape, and should
    limit how long it waits. If it raises, the client gets status 500 with one line, and the log the
    traceback.
    """

    def __init__(
        self,
        listen: str,
        catalogue: Catalogue,
        read: Callable[[Scrape], None],
        *,
        option: str = "--metrics",
    ) -> None:
        """Listen at ``HOST:PORT`` (port 0: any).

        ``option`` is how the user said so. Raises :class:`MetricsError` or ``AddressError``.
        """
        wanted = parse_endpoint(listen, what=option)
        self._catalogue = catalogue
        self._read = read
        self._reading = threading.Lock()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        try:
            self._server = _Server(wanted, _handler(registry))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise MetricsError(
                lines.METRICS_CANNOT_LISTEN.of(option=option, address=wanted, why=why)
            ) from error
        self.address = Endpoint(wanted.host, self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_CLOSE_S,),
            name="wiresum-metrics",
            daemon=True,
        )
        self._thread.start()

    def collect(self) -> Iterable[Family]:
        """What Prometheus' client library calls for each scrape."""
        with self._reading:
            scrape = Scrape(self._catalogue)
            self._read(scrape)
            return scrape.families()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_IDLE_S)

    def close_in_child(self) -> None:
        """In a fork: close the port without disturbing the parent, which goes on serving."""
        self._server.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, wanted: Endpoint, handler: type[BaseHTTPRequestHandler]) -> None:
        found = getaddrinfo(wanted.host, wanted.port, type=SOCK_STREAM)
        families = [one[0] for one in found]
        self.address_family = AF_INET if AF_INET in families else AF_INET6
        self._free = threading.BoundedSemaphore(_CLIENTS)
        super().__init__((wanted.host, wanted.port), handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which can take seconds.
        super(ThreadingHTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Socket | tuple[bytes, Socket], client_address: Any) -> None:
        log.debug("a client of the metrics endpoint went away", exc_info=True)


def _handler(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_S
        server_version = "wiresum"

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", f"try {PATH}\n".encode())
                return
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            try:
                body = encode(registry)
            except Exception as error:
                log.exception("reading the metrics failed")
                text = " ".join(f"{type(error).__name__}: {error}".split())
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{text}\n".encode())
                return
            self._answer(HTTPStatus.OK, kind, body)

        do_HEAD = do_GET  # the answer leaves its body out

        def do_OPTIONS(self) -> None:
            self._refuse(HTTPStatus.NO_CONTENT)

        def do_POST(self) -> None:
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

        do_PUT = do_PATCH = do_DELETE = do_TRACE = do_CONNECT = do_POST

        def _refuse(self, status: HTTPStatus) -> None:
            # A client that still sends when the connection closes may never see the answer.
            length = self.headers.get("Content-Length") or ""
            left = min(int(length), _MAX_UNREAD) if length.isascii() and length.isdigit() else 0
            while left > 0 and (got := self.rfile.read(min(left, 1 << 16))):
                left -= len(got)
            text = f"{self.command} is not possible here: GET {PATH}\n"
            self._answer(status, "text/plain", text.encode(), Allow=_METHODS)

        def _answer(self, status: HTTPStatus, kind: str, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status is HTTPStatus.NO_CONTENT:
                self.end_headers()
                return
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler
