"""Counts the bytes that this process's TCP connections carried, from the kernel's TCP_INFO."""

import contextlib
import os
import socket
import struct
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

MSS = 1448  # payload of a segment at MTU 1500 with timestamps
SEGMENT_HEADERS = 14 + 20 + 32  # Ethernet, IPv4, TCP with timestamps

# struct tcp_info: 8 bytes of flags, 24 32-bit words, two pacing rates; then these two.
_BYTES_ACKED = struct.Struct("@120xQQ")


class TcpBytes(NamedTuple):
    """Payload bytes of connections."""

    sent: int
    """And acknowledged."""
    received: int


def tcp_bytes(skip_ports: Collection[int]) -> TcpBytes:
    """Payload bytes on all open TCP connections.

    Connections with one of ``skip_ports`` at either end (the store, the controller) don't count.
    """
    sent = received = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if sock.type != socket.SOCK_STREAM:
                    continue
                ports = {sock.getsockname()[1], sock.getpeername()[1]}
                if ports & set(skip_ports):
                    continue
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                if len(info) >= _BYTES_ACKED.size:
                    acked, got = _BYTES_ACKED.unpack_from(info)
                    sent, received = sent + acked, received + got
    return TcpBytes(sent, received)


def with_headers(payload: float) -> float:
    """``payload`` bytes and the headers they need at MTU 1500 (acknowledgements not counted)."""
    return payload * (1 + SEGMENT_HEADERS / MSS)
