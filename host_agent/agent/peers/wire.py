"""Messages between the ranks' own links: bounded frames of JSON, and proof of belonging together.

A frame is four bytes of length (big-endian) and so many bytes of a JSON object. Both ends prove
that they know the group's secret, and neither shows it: a rank may try an address at which another
program listens on its own host.
"""

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
from collections.abc import Mapping
from typing import Any

FRAME_BYTES = 64 << 10
"""The longest message. A rank's longest, its state, is a tenth of that."""

GREETING_BYTES = 1 << 10
"""The longest message before the sender has proved its rank; bytes."""

BACKLOG_BYTES = 1 << 20
"""The most bytes that wait for a rank that does not read; more is a fault of the link."""

_TCP_RTO_MAX_MS = 44  # of linux/tcp.h; Python has no name for it
_LONGEST_PAUSE_MS = 1000  # the least that the kernel takes

_LENGTH = struct.Struct(">I")
_RECEIVE = 64 << 10

Message = Mapping[str, Any]


class Garbage(Exception):
    """The bytes received are not one of our messages; says why."""


class Channel:
    """A TCP connection that carries messages. Never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        """Owns ``sock`` from now on."""
        sock.setblocking(False)
        self.sock = sock
        self.longest = GREETING_BYTES
        """The longest message that is taken, without its length; bytes."""
        self._in = bytearray()
        self._out = bytearray()
        self._ends = False

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._out)

    def send(self, message: Message) -> None:
        """Send, or queue, a message. Raises OSError if the connection has broken."""
        data = json.dumps(message, separators=(",", ":")).encode()
        assert len(data) <= FRAME_BYTES
        if len(self._out) + len(data) > BACKLOG_BYTES:
            raise BrokenPipeError("it does not read what it is sent")
        self._out += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it. Raises OSError."""
        while self._out:
            try:
                sent = self.sock.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]
        if self._ends:
            self.sock.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """Send nothing more than what waits; the other end may still answer. Never raises."""
        self._ends = True
        with contextlib.suppress(OSError):
            self.flush()

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """The messages received, and whether the connection is over, closed or broken.

        Raises :class:`Garbage` for what is no message.
        """
        messages: list[dict[str, Any]] = []
        while True:
            try:
                data = self.sock.recv(_RECEIVE)
            except BlockingIOError:
                return messages, False
            except OSError:
                return messages, True
            if not data:
                return messages, True
            self._in += data
            messages += self._messages()

    def _messages(self) -> list[dict[str, Any]]:
        messages = []
        while len(self._in) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._in)
            if size > self.longest:
                raise Garbage(f"a message of {size} bytes")
            if len(self._in) < _LENGTH.size + size:
                break
            text = bytes(self._in[_LENGTH.size : _LENGTH.size + size])
            del self._in[: _LENGTH.size + size]
            try:
                message = json.loads(text)
            except (ValueError, RecursionError):
                raise Garbage("no JSON") from None
            if not isinstance(message, dict):
                raise Garbage("no object")
            messages.append(message)
        return messages

    def close(self) -> None:
        """Close this process's end."""
        self.sock.close()


def new_secret() -> str:
    """A secret for one group."""
    return secrets.token_hex(32)


def new_nonce() -> str:
    """A number that is never used twice."""
    return secrets.token_hex(16)


def proof(secret: str, role: str, *facts: object) -> str:
    """A proof that the sender of ``facts`` in ``role`` knows the secret."""
    text = json.dumps([role, *facts])
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def proves(given: object, secret: str, role: str, *facts: object) -> bool:
    """Whether ``given`` is that proof."""
    right = proof(secret, role, *facts)
    return isinstance(given, str) and hmac.compare_digest(given.encode(), right.encode())


def tune(sock: socket.socket, silence_s: int = 15) -> None:
    """Let the kernel find out that the other host is gone, within about ``silence_s``.

    The kernel answers for a process that is stopped or busy, so such a process does not count as
    dead. It tries at least once a second (from Linux 6.15 on): its pauses would double with each
    try, so that a network that is away for 7 s would be back too late for the next one within the
    limit.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, silence_s // 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, silence_s // 6))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_s * 1000)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _LONGEST_PAUSE_MS)
