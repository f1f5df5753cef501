"""One TCP connection between two ranks, over which they time messages."""

import contextlib
import hmac
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, cast

_ANSWER = b"."
_SIZE = struct.Struct("!Q")
_PIECE = bytearray(1 << 20)
_SMALL = 30
"""Messages of one byte, of which the fastest counts."""
_FIRST, _LARGEST = 1 << 16, 1 << 26
_TWICE = 2


class Deadline:
    """A moment after which every wait of the probe ends."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds; raises TimeoutError if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the probe took too long")
        return left


class Link:
    """The connection of a pair, whose both ends take turns to :meth:`send` and :meth:`receive`."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._deadline = deadline

    def send(self, target_s: float) -> dict[str, Any]:
        """Time messages to the other end, the largest about ``target_s`` seconds long.

        ``rtt_s``: of a message of one byte and its answer; ``samples``: bytes, and seconds until
        they were there and the answer was back; ``mss``: bytes of TCP's payload in a packet.
        """
        rtt = min(self._message(1) for _ in range(_SMALL))
        samples = []
        size, took = _FIRST, 0.0
        while size <= _LARGEST and took < target_s / 2:
            took = min(self._message(size) for _ in range(_TWICE))
            samples.append([size, took])
            size *= 2
        self._send(_SIZE.pack(0))
        mss = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        return {"rtt_s": rtt, "samples": samples, "mss": mss}

    def receive(self) -> None:
        """Answer the messages of the other end's :meth:`send`."""
        while size := _SIZE.unpack(self._exactly(_SIZE.size))[0]:
            while size:
                self._sock.settimeout(self._deadline.left())
                got = self._sock.recv_into(_PIECE, min(size, len(_PIECE)))
                if not got:
                    raise ConnectionError("the other rank has left the probe")
                size -= got
            self._send(_ANSWER)

    def _message(self, size: int) -> float:
        began = time.perf_counter()
        self._send(_SIZE.pack(size))
        while size:
            piece = min(size, len(_PIECE))
            self._send(memoryview(_PIECE)[:piece])
            size -= piece
        self._exactly(len(_ANSWER))
        return time.perf_counter() - began

    def _send(self, data: bytes | memoryview) -> None:
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(data)

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            self._sock.settimeout(self._deadline.left())
            piece = self._sock.recv(count - len(got))
            if not piece:
                raise ConnectionError("the other rank has left the probe")
            got += piece
        return got

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


_HELLO = struct.Struct("!16sI")
_WELCOME = b"+"
_MOST_OPEN = 128
"""Listeners, and connections that have said nothing yet: more are hung up on."""


class Door:
    """Where this rank listens for the others; they say their rank and its ``secret``.

    Strangers may connect, and say something else or nothing: nobody waits for them.
    """

    def __init__(self, listeners: Sequence[socket.socket], secret: bytes) -> None:
        self._selector = selectors.DefaultSelector()
        for sock in listeners:
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, self._accept)
        self._secret = secret
        self._waiting: dict[int, socket.socket] = {}

    def admit(self, rank: int, deadline: Deadline) -> socket.socket:
        """The connection of that rank, which may have come before its turn. Raises OSError."""
        while rank not in self._waiting:
            for key, _ in self._selector.select(deadline.left()):
                key.data(key.fileobj)
        return self._waiting.pop(rank)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has hung up again
        if len(self._selector.get_map()) >= _MOST_OPEN:
            sock.close()
            return
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, self._greet)

    def _greet(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        try:
            # So few bytes, the first ones of a connection, come together.
            secret, rank = _HELLO.unpack(sock.recv(_HELLO.size))
            if not hmac.compare_digest(secret, self._secret):
                raise ConnectionError("a stranger")
            sock.sendall(_WELCOME)
        except (OSError, struct.error):
            sock.close()
            return
        self._waiting[rank] = sock

    def close(self) -> None:
        """Listen no more."""
        listening = [cast(socket.socket, key.fileobj) for key in self._selector.get_map().values()]
        for sock in (*listening, *self._waiting.values()):
            sock.close()
        self._selector.close()


def reach(
    addresses: Sequence[tuple[str, int]], secret: bytes, rank: int, deadline: Deadline
) -> socket.socket:
    """Connect as ``rank`` to the first address at which that rank's door is. Raises OSError."""
    why: OSError = ConnectionError("it listens nowhere")
    for host, port in addresses:
        sock = None
        try:
            sock = socket.create_connection((host, port), min(2.0, deadline.left()))
            sock.sendall(_HELLO.pack(secret, rank))
            sock.settimeout(deadline.left())
            if sock.recv(1) == _WELCOME:
                return sock
            why = ConnectionError("another program listens there")
        except OSError as error:
            why = error
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
    raise why
