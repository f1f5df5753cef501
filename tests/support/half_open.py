"""A TCP connection whose other end fails without closing it."""

import contextlib
import socket
import threading
from typing import Self


class Wire:
    """Passes bytes on to ``target`` until it is :meth:`cut`. A context manager.

    ``target`` is ``HOST:PORT`` or ``unix:/path``; :attr:`address`, where it listens, ``HOST:PORT``.

    Cut, connections stay open at both ends, acknowledge what they are sent, and carry nothing: as
    when a host has lost its power, or a firewall has forgotten. New ones are refused.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._is_cut = threading.Event()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for each in self._sockets:
            each.close()

    def cut(self) -> None:
        """Stop passing bytes."""
        self._is_cut.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = self._connect()
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, _, port = self._target.rpartition(":")
        if host != "unix":
            return socket.create_connection((host, int(port)))
        far = socket.socket(socket.AF_UNIX)
        far.connect(port)
        return far

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._is_cut.is_set():
                    sink.sendall(data)
            if not self._is_cut.is_set():
                sink.shutdown(socket.SHUT_WR)
