"""Makes an engine from a lease of the controller: all that join a job use this function."""

from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.agent.network import WorkerSocket
from wiresum.host_agent.engine import Engine, EngineOptions, Lease


def engine_lease(lease: pb.Lease, field: int) -> Lease:
    """What an engine needs of the controller's ``lease``; ``field``: bits of an element."""
    return Lease(
        switch_ip=lease.switch_ip,
        switch_udp_port=lease.switch_udp_port,
        switch_name=lease.switch_name,
        rank=lease.rank,
        workers=lease.workers,
        job=lease.job,
        epoch=lease.epoch,
        key=lease.key,
        reply_key=lease.reply_key,
        slots=lease.slots,
        lanes=lease.lanes,
        field=field,
    )


def open_engine(
    sock: WorkerSocket, lease: pb.Lease, field: int, options: EngineOptions | None = None
) -> Engine:
    """An engine for ``lease``, which was joined from ``sock``; the socket stays the caller's.

    Raises ``EngineError`` for a lease or an option that it cannot work with.
    """
    return Engine(sock.for_engine(), engine_lease(lease, field), options)
