"""Runs a controller as a process: listens, serves, and ends when it is told to."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.controller.client import DEFAULT_CONTROLLER
from wiresum.controller.core import Core
from wiresum.controller.errors import ServeError
from wiresum.controller.jobs import Limits
from wiresum.controller.loop import LoopOptions
from wiresum.controller.service import ControllerService
from wiresum.controller.store import Store, default_path
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

_SERVER_OPTIONS: list[tuple[str, int]] = [
    # Otherwise a second controller on the same port would get every other call.
    ("grpc.so_reuseport", 0),
]

# How long calls in progress may take to end when the controller ends.
_GRACE_S = 1.0

_PARENT_POLL_S = 0.5


@dataclass(frozen=True)
class ServeOptions:
    """What ``wiresum controller serve`` is told."""

    listen: str = DEFAULT_CONTROLLER
    store: str = ""
    """A file, ``:memory:``, or empty for the user's default file."""
    switches: Sequence[pb.AddSwitchRequest] = ()
    exit_with_parent: bool = False
    limits: Limits = field(default_factory=Limits)
    loop: LoopOptions = field(default_factory=LoopOptions)


@asynccontextmanager
async def serving(core: Core, listen: str) -> AsyncIterator[Endpoint]:
    """Serve ``core`` at ``listen`` (port 0: any) inside the block; gives the address.

    Raises :class:`ServeError` if the port is taken.
    """
    wanted = parse_endpoint(listen, what="listen address")
    _check_bindable(wanted)
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    pb_grpc.add_ControllerServicer_to_server(ControllerService(core), server)  # type: ignore[abstract]
    try:
        port = server.add_insecure_port(str(wanted))
    except RuntimeError as error:
        raise _cannot_listen(wanted, "gRPC refused it") from error
    await core.start()
    try:
        await server.start()
        yield Endpoint(wanted.host, port)
    finally:
        await server.stop(_GRACE_S)
        await core.stop()


def _check_bindable(wanted: Endpoint) -> None:
    """Find out why an address cannot be had: gRPC would not tell, but write to stderr."""
    try:
        found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                # Connections of a controller that has just ended do not matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise _cannot_listen(wanted, (error.strerror or str(error)).lower()) from error


def _cannot_listen(wanted: Endpoint, reason: str) -> ServeError:
    return ServeError(f"cannot listen on {wanted}: {reason}; choose another with --listen")


def serve(options: ServeOptions) -> None:
    """Run a controller until SIGTERM or SIGINT.

    Prints one line of JSON, ``{"listen": "HOST:PORT"}``, once it serves. Raises
    :class:`ServeError`, ``StoreError`` or ``ControllerError``.
    """
    # Nothing here is meant for a web proxy, and finsy's channels have no option to say so.
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    store = Store(options.store or default_path())
    try:
        asyncio.run(_serve(store, options))
    finally:
        store.close()


async def _serve(store: Store, options: ServeOptions) -> None:
    stop = asyncio.Event()
    event_loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        event_loop.add_signal_handler(number, stop.set)
    watcher = None
    if options.exit_with_parent:
        watcher = asyncio.create_task(_watch_parent(os.getppid(), stop))
    core = Core(store, limits=options.limits, loop_options=options.loop)
    async with serving(core, options.listen) as address:
        for switch in options.switches:
            await core.add_switch(switch)
        print(json.dumps({"listen": str(address)}), flush=True)
        log.info("serving on %s", address)
        await stop.wait()
    if watcher is not None:
        watcher.cancel()


async def _watch_parent(parent: int, stop: asyncio.Event) -> None:
    """Set ``stop`` when the process that started us is gone.

    The kernel's own death signal would also come when only the thread that started us ends.
    """
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_POLL_S)
    log.info("the parent process is gone")
    stop.set()


def configure_logging(*, verbose: bool) -> None:
    """Log to stderr: warnings, or with ``verbose`` everything worth telling."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def parse_store(text: str) -> str:
    """A store's path with ``~`` expanded; ``:memory:`` and empty stay as they are."""
    return text if text in ("", ":memory:") else str(Path(text).expanduser())
