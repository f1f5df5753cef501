"""One TCP connection between two ranks, over which they time messages."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

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
        self._sock.sendall(_SIZE.pack(0))
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
            self._sock.sendall(_ANSWER)

    def _message(self, size: int) -> float:
        began = time.perf_counter()
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(_SIZE.pack(size))
        while size:
            piece = min(size, len(_PIECE))
            self._sock.settimeout(self._deadline.left())
            self._sock.sendall(memoryview(_PIECE)[:piece])
            size -= piece
        self._exactly(1)
        return time.perf_counter() - began

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


class Door:
    """Where this rank listens for the others; they say their rank and its ``secret``."""

    def __init__(self, listeners: Sequence[socket.socket], secret: bytes) -> None:
        self._listeners = list(listeners)
        for sock in self._listeners:
            sock.settimeout(1.0)  # who has hung up again must not be waited for
        self._secret = secret
        self._waiting: dict[int, socket.socket] = {}

    def admit(self, rank: int, deadline: Deadline) -> socket.socket:
        """The connection of that rank, which may have come before its turn."""
        while rank not in self._waiting:
            ready, _, _ = select.select(self._listeners, [], [], deadline.left())
            for listener in ready:
                with contextlib.suppress(TimeoutError):
                    self._greet(listener.accept()[0], deadline)
        return self._waiting.pop(rank)

    def _greet(self, sock: socket.socket, deadline: Deadline) -> None:
        try:
            sock.settimeout(min(1.0, deadline.left()))
            secret, rank = _HELLO.unpack(sock.recv(_HELLO.size, socket.MSG_WAITALL))
            if secret != self._secret:
                raise ConnectionError("a stranger")
            sock.sendall(_WELCOME)
        except (OSError, struct.error):
            sock.close()
            return
        self._waiting[rank] = sock

    def close(self) -> None:
        """Listen no more."""
        for sock in (*self._listeners, *self._waiting.values()):
            sock.close()


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
