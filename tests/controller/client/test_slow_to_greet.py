"""A controller that is there, but busy: its connections are slow to come about."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller_process import ADMIN_TOKEN, serving, store_argument

from wiresum.common.address import parse_endpoint
from wiresum.controller.client import ControllerClient

DELAY_S = 0.6


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side went first


@contextmanager
def slow_path(address: str) -> Iterator[str]:
    """Forwards to ``address``; what it says begins to come back only after a while."""
    target = parse_endpoint(address)
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def serve(near: socket.socket) -> None:
        far = socket.create_connection((target.host, target.port))
        opened.append(far)
        threading.Thread(target=_copy, args=(near, far), daemon=True).start()
        time.sleep(DELAY_S)
        _copy(far, near)

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            opened.append(near)
            threading.Thread(target=serve, args=(near,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield "{}:{}".format(*listener.getsockname())
    finally:
        for each in opened:
            each.close()


def test_a_slow_greeting_is_not_an_absent_controller(tmp_path: Path) -> None:
    with (
        serving(*store_argument(tmp_path)) as controller,
        slow_path(controller.listen) as address,
        ControllerClient(f"http://{address}", token=ADMIN_TOKEN) as client,
    ):
        assert client.list_switches() == []
