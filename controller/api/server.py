"""Runs a controller as a process: listens, serves, and ends when it is told to."""

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from wiresum.common import grpc_server, logs
from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.common.children.parent import watch_parent
from wiresum.common.places import expand
from wiresum.common.signals import serve_until
from wiresum.controller import lines
from wiresum.controller.api.guard import MAX_MESSAGE, Guard
from wiresum.controller.api.metrics import ControllerReader, Requests, serve_metrics
from wiresum.controller.api.security import Secured, Security, scratch_folder, secure
from wiresum.controller.api.service import ControllerService
from wiresum.controller.client.address import DEFAULT_CONTROLLER, ControllerAddress
from wiresum.controller.client.connection import default_store_file
from wiresum.controller.errors import ServeError
from wiresum.controller.office.office import Office
from wiresum.controller.rules.limits import Limits
from wiresum.controller.southbound.loop import LoopOptions
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

_SERVER_OPTIONS: list[tuple[str, int]] = [
    # Otherwise a second controller on the same port would get every other call.
    ("grpc.so_reuseport", 0),
    # The calls of a client whose host has died end after 20 s. gRPC's default is 2 hours.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Clients do the same, and must not be hung up on for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # Larger requests are refused unread, see guard.py.
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 8192),
]

# How long calls in progress may take to end when the controller ends.
_GRACE_S = 1.0


@dataclass(frozen=True)
class ServeOptions:
    """What ``wiresum controller serve`` is told."""

    listen: str = DEFAULT_CONTROLLER
    store: str = ""
    """A file, ``:memory:``, or empty for the user's default file."""
    switches: Sequence[pb.AddSwitchRequest] = ()
    exit_with_parent: bool = False
    security: Security = field(default_factory=Security)
    metrics: str | None = None
    """Where to serve Prometheus metrics, if at all."""
    limits: Limits = field(default_factory=Limits)
    loop: LoopOptions = field(default_factory=LoopOptions)


@asynccontextmanager
async def serving(
    office: Office,
    listen: str,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    fixed_admin: str = "",
) -> AsyncIterator[ControllerAddress]:
    """Serve ``office`` at ``listen`` (port 0: any) inside the block; gives the address.

    Without ``credentials`` it is served in plain text. ``fixed_admin`` is the hash of an admin's
    token that counts instead of the store's. Raises :class:`ServeError` if the port is
    taken.
    """
    wanted = parse_endpoint(listen, what="listen address")
    _check_bindable(wanted)
    server = grpc.aio.server(options=_SERVER_OPTIONS, interceptors=[*interceptors, Guard()])
    pb_grpc.add_ControllerServicer_to_server(ControllerService(office, fixed_admin), server)
    try:
        if credentials is None:
            port = server.add_insecure_port(str(wanted))
        else:
            port = server.add_secure_port(str(wanted), credentials)
    except RuntimeError as error:
        raise _cannot_listen(wanted, "gRPC refused it") from error
    await office.start()
    try:
        await server.start()
        yield ControllerAddress(Endpoint(wanted.host, port), plaintext=credentials is None)
    finally:
        await grpc_server.stop(server, _GRACE_S)
        await office.stop()


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
    return ServeError(lines.CANNOT_LISTEN.of(address=wanted, why=reason))


def serve(options: ServeOptions) -> None:
    """Run a controller until a signal asks for the end (SIGTERM, SIGINT, SIGHUP and the like).

    Prints one line of JSON once it serves::

        {"listen": "HOST:PORT", "address": as clients write it, "ca": FILE or null,
         "admin_token_file": FILE or null}

    Raises :class:`ServeError`, ``StoreError`` or ``ControllerError``.
    """
    # Nothing here is meant for a web proxy, and finsy's channels have no option to say so.
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    options.loop.tls.check()
    path = str(options.store or default_store_file())
    with scratch_folder() as scratch, closing(SqliteStore(path)) as store:
        host = parse_endpoint(options.listen, what="listen address").host
        secured = secure(options.security, store, path, host, scratch.path)
        asyncio.run(_serve(store, options, secured))


async def _serve(store: Store, options: ServeOptions, secured: Secured) -> None:
    stop = asyncio.Event()
    event_loop = asyncio.get_running_loop()
    serve_until(event_loop, stop.set)

    def parent_ended() -> None:
        log.info("the parent process is gone")
        stop.set()

    if options.exit_with_parent:
        watch_parent(event_loop, parent_ended)
    office = Office(
        store,
        limits=options.limits,
        loop_options=options.loop,
    )
    requests = Requests()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            serving(office, options.listen, secured.credentials, [requests], secured.fixed_admin)
        )
        for switch in options.switches:
            await office.add_switch(switch)
        ready = {
            "listen": str(address.endpoint),
            "address": str(address),
            "ca": _path(secured.ca),
            "admin_token_file": _path(secured.admin_token_file),
        }
        if options.metrics is not None:
            reader = ControllerReader(office, requests, event_loop, secured.validity)
            endpoint = stack.enter_context(serve_metrics(options.metrics, reader))
            ready["metrics"] = str(endpoint.address)
        print(json.dumps(ready), flush=True)
        log.info("serving on %s", address)
        await stop.wait()


def _path(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def configure_logging(chosen: str, *, verbose: bool) -> None:
    """Log to stderr in a format: warnings, or with ``verbose`` everything worth telling."""
    logs.configure(chosen, level=logging.INFO if verbose else logging.WARNING)


def parse_store(text: str) -> str:
    """A store's path with ``~`` expanded; ``:memory:`` and empty stay as they are."""
    return text if text in ("", ":memory:") else str(expand(text))
