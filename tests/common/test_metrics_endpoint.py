"""The metrics endpoint: its answers, also when reading fails or clients misbehave."""

import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wiresum.common.metrics import Catalogue, MetricsError, MetricsServer, Scrape

LIMIT_S = 10.0
CATALOGUE = Catalogue("wiresum_test")
BYTES = CATALOGUE.counter("bytes_total", "Bytes.", "direction")
UP = CATALOGUE.gauge("up", "Whether.")
UNUSED = CATALOGUE.gauge("unused", "Never set.", "label")


def read(scrape: Scrape) -> None:
    scrape.set(BYTES, 1 << 53, "in")
    scrape.set(BYTES, 2, 'out "\\\n')
    scrape.set(UP, 1)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1:0", CATALOGUE, read) as server:
        yield server


def get(server: MetricsServer, path: str = "/metrics", **headers: str) -> str:
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return answer.read().decode()


def test_a_scrape_has_every_metric_and_value(server: MetricsServer):
    families = {family.name: family for family in text_string_to_metric_families(get(server))}
    values = {
        sample.labels["direction"]: sample.value
        for sample in families["wiresum_test_bytes"].samples
    }
    assert values == {"in": float(1 << 53), 'out "\\\n': 2.0}
    assert families["wiresum_test_bytes"].type == "counter"
    assert families["wiresum_test_up"].samples[0].value == 1
    assert families["wiresum_test_unused"].samples == []
    assert "process_resident_memory_bytes" in families


def test_openmetrics_on_request(server: MetricsServer):
    text = get(server, Accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert 'wiresum_test_bytes_total{direction="in"}' in text


def test_other_paths_are_not_found(server: MetricsServer):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "/")


def ask(server: MetricsServer, method: str, path: str, body: bytes = b"") -> tuple[Any, bytes]:
    """The answer and all that came after its headers."""
    connection = http.client.HTTPConnection(server.address.host, server.address.port, LIMIT_S)
    try:
        connection.request(method, path, body=body or None)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_head_is_get_without_the_body(server: MetricsServer):
    for path, status in (("/metrics", 200), ("/metrics?x=1", 200), ("/", 404)):
        got, body = ask(server, "GET", path)
        head, nothing = ask(server, "HEAD", path)
        assert (got.status, head.status, nothing) == (status, status, b"")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
        if status == 404:
            assert int(head.headers["Content-Length"]) == len(body)
        else:
            # The process' own figures change from one scrape to the next.
            assert abs(int(head.headers["Content-Length"]) - len(body)) < 200
    with socket.create_connection((server.address.host, server.address.port), LIMIT_S) as raw:
        raw.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        answer = b""
        while part := raw.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
def test_unsupported_methods_are_told_the_allowed_ones(server: MetricsServer, method: str):
    for body in (b"", b"x" * (1 << 18)):
        answer, text = ask(server, method, "/metrics", body if method != "TRACE" else b"")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert text == f"{method} is not possible here: GET /metrics\n".encode()
    answer, text = ask(server, "OPTIONS", "/metrics")
    assert (answer.status, answer.headers["Allow"], text) == (204, "GET, HEAD, OPTIONS", b"")
    # RFC 9110: an unknown method is not implemented.
    assert ask(server, "BREW", "/metrics")[0].status == 501
    # A missing or wrong length delays one thread for a moment, and no other client.
    address = (server.address.host, server.address.port)
    for length in (b"-5", b"many", b"9" * 30):
        with socket.create_connection(address, LIMIT_S) as raw:
            raw.sendall(b"POST / HTTP/1.0\r\nContent-Length: " + length + b"\r\n\r\n")
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(100).startswith(b"HTTP/1.0 405 ")
    assert "wiresum_test_up 1.0" in get(server)


def test_a_failed_read_is_answered_and_the_server_goes_on(caplog: pytest.LogCaptureFixture):
    broken = True

    def failing(scrape: Scrape) -> None:
        if broken:
            raise RuntimeError("no\ncounters")
        read(scrape)

    with MetricsServer("127.0.0.1:0", CATALOGUE, failing) as server:
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            get(server)
        assert caught.value.read() == b"RuntimeError: no counters\n"
        assert "reading the metrics failed" in caplog.text
        broken = False
        assert "wiresum_test_up 1.0" in get(server)


def test_silent_clients_do_not_keep_a_scraper_out_for_long(server: MetricsServer):
    address = (server.address.host, server.address.port)
    silent = [socket.create_connection(address, LIMIT_S) for _ in range(20)]
    try:
        # More than it serves at once: the rest are turned away at once, not left to wait.
        assert silent[-1].recv(1) == b""
        for connection in silent:
            connection.close()
        done = threading.Event()

        def scrape() -> None:
            while not done.is_set():
                try:
                    get(server)
                    done.set()
                except (urllib.error.URLError, ConnectionError):
                    done.wait(0.05)

        thread = threading.Thread(target=scrape, daemon=True)
        thread.start()
        assert done.wait(LIMIT_S)
        thread.join(LIMIT_S)
    finally:
        done.set()


def test_an_address_in_use_is_one_line(server: MetricsServer):
    with pytest.raises(
        MetricsError, match=r"--metrics: cannot listen on .*: address already in use"
    ):
        MetricsServer(str(server.address), CATALOGUE, read)


def test_a_counter_must_be_named_like_one():
    with pytest.raises(ValueError, match="_total"):
        Catalogue("x").counter("bytes", "Bytes.")
    twice = Catalogue("x")
    twice.gauge("up", "Up.")
    with pytest.raises(ValueError, match="twice"):
        twice.gauge("up", "Up.")


def test_labels_must_be_those_declared():
    with pytest.raises(ValueError, match="direction"):
        Scrape(CATALOGUE).set(BYTES, 1)
