"""An engine with a made-up lease; scripts of tests contain this text (SOURCE)."""

import socket
from pathlib import Path
from typing import Any

from wiresum.host_agent.engine import Engine, EngineOptions, Lease, UdpSocket

SOURCE = Path(__file__).read_text() if "__file__" in globals() else ""

LEASE = Lease(
    switch_ip="127.0.0.1", switch_udp_port=9, switch_name="s1", rank=0, workers=2, job=1, epoch=1,
    key=1, reply_key=2, slots=64, lanes=64, field=32,
)  # fmt: skip


def open_engine(
    sock: socket.socket, port: int, options: EngineOptions | None = None, **lease: Any
) -> Engine:
    """An engine on ``sock`` for a switch at ``port`` on this host; other values of the lease."""
    changes = {"switch_udp_port": port, **lease}
    return Engine(UdpSocket(fd=sock.fileno()), LEASE.replace(**changes), options)
