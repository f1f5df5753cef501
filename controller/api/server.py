"""Runs a controller as a process: listens, serves, and ends when it is told to."""

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from wiresum.common import grpc_server, logs
from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.common.children.parent import watch_parent
from wiresum.common.places import expand
from wiresum.common.signals import serve_until
from wiresum.controller import lines
from wiresum.controller.api.certificates import ANY_ADDRESS
from wiresum.controller.api.guard import MAX_MESSAGE, Guard
from wiresum.controller.api.leading import Leading
from wiresum.controller.api.metrics import ControllerReader, Requests, serve_metrics
from wiresum.controller.api.security import (
    Secured,
    Security,
    fixed_admin,
    scratch_folder,
    secure,
    stored_admin,
)
from wiresum.controller.api.service import ControllerService
from wiresum.controller.client.address import DEFAULT_CONTROLLER, ControllerAddress
from wiresum.controller.client.trust import default_store_file, state_folder
from wiresum.controller.errors import ControllerError, ServeError
from wiresum.controller.office.office import Office
from wiresum.controller.rules.limits import Limits
from wiresum.controller.southbound.loop import LoopOptions
from wiresum.controller.southbound.p4runtime import ELECTION_ID, ELECTION_STEP
from wiresum.controller.state.sqlite import MEMORY, SqliteStore
from wiresum.controller.state.store import Store
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from wiresum.controller.state.postgres.election import Candidate
    from wiresum.controller.state.postgres.store import PostgresStore

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
    # Clients send such pings, too: do not close their connections for it.
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
    """A file, ``:memory:``, ``postgresql://…``, or empty for the user's default file."""
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
    server, address = _bind(listen, credentials, interceptors)
    pb_grpc.add_ControllerServicer_to_server(ControllerService(office, fixed_admin), server)
    await office.start()
    try:
        await server.start()
        yield address
    finally:
        await grpc_server.stop(server, _GRACE_S)
        await office.stop()


def _bind(
    listen: str,
    credentials: grpc.ServerCredentials | None,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
) -> tuple[grpc.aio.Server, ControllerAddress]:
    wanted = parse_endpoint(listen, what="listen address")
    _check_bindable(wanted)
    server = grpc.aio.server(options=_SERVER_OPTIONS, interceptors=[*interceptors, Guard()])
    try:
        if credentials is None:
            port = server.add_insecure_port(str(wanted))
        else:
            port = server.add_secure_port(str(wanted), credentials)
    except RuntimeError as error:
        raise _cannot_listen(wanted, "gRPC refused it") from error
    return server, ControllerAddress(Endpoint(wanted.host, port), plaintext=credentials is None)


def _check_bindable(wanted: Endpoint) -> None:
    """Find out why an address cannot be used: gRPC does not tell, but writes to stderr."""
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

    and for a store in PostgreSQL ``"leader"``: the address of the controller that leads.
    Raises :class:`ServeError`, ``StoreError`` or ``ControllerError``.
    """
    # No connection here may use a web proxy, and finsy's channels have no option for that.
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        os.environ.pop(name, None)
    options.loop.tls.check()
    if is_postgres(options.store):
        _serve_one_of_several(options)
        return
    path = str(options.store or default_store_file())
    with scratch_folder() as scratch, closing(SqliteStore(path)) as store:
        beside = scratch.path if path == MEMORY else Path(path).absolute().parent
        stem = "controller" if path == MEMORY else Path(path).name
        fixed = fixed_admin(options.security)
        token_file = None
        if not fixed:
            token_file = stored_admin(options.security, store, beside / f"{stem}.admin-token")
        host = parse_endpoint(options.listen, what="listen address").host
        secured = secure(options.security, beside, host)
        asyncio.run(_serve(store, options, secured, fixed, token_file))


async def _serve(
    store: Store, options: ServeOptions, secured: Secured, fixed: str, token_file: Path | None
) -> None:
    stop = _stopping(options)
    office = Office(store, limits=options.limits, loop_options=options.loop)
    requests = Requests()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(
            serving(office, options.listen, secured.credentials, [requests], fixed)
        )
        for switch in options.switches:
            await office.add_switch(switch)
        ready = _ready(address, secured, token_file)
        ready |= _metrics(options, stack, lambda: office, requests, secured)
        print(json.dumps(ready), flush=True)
        log.info("serving on %s", address)
        await stop.wait()


def _serve_one_of_several(options: ServeOptions) -> None:
    """Run one of several controllers of a store; one of them leads."""
    try:
        from wiresum.controller.state.postgres.election import Candidate
    except ImportError as error:
        raise ServeError(lines.NO_PSYCOPG.of(why=error)) from error
    folder = state_folder()
    fixed = fixed_admin(options.security)
    host = parse_endpoint(options.listen, what="listen address").host
    secured = secure(options.security, folder, host)
    token_path = folder / "postgresql.admin-token"
    asyncio.run(_serve_and_lead(options, Candidate, secured, fixed, token_path))


async def _serve_and_lead(
    options: ServeOptions,
    candidate: "type[Candidate]",
    secured: Secured,
    fixed: str,
    token_path: Path,
) -> None:
    stop = _stopping(options)
    requests = Requests()
    server, address = _bind(options.listen, secured.credentials, [requests])
    security = options.security
    token_file: Path | None = None

    def office_for(store: "PostgresStore") -> Office:
        nonlocal security, token_file
        if not fixed:
            token_file = stored_admin(security, store, token_path)
            security = replace(security, new_admin_token=False)
        # A switch must obey this term, and no earlier one.
        election_id = ELECTION_ID + ELECTION_STEP * store.term.number
        loop = replace(options.loop, election_id=election_id)
        return Office(store, limits=options.limits, loop_options=loop)

    async def opened(office: Office) -> None:
        for switch in options.switches:
            try:
                await office.add_switch(switch)
            except ControllerError as error:
                log.error("switch %s is not added: %s", switch.name, error)

    public = _public(address)
    leading = Leading(candidate(options.store, public), public, office_for, opened, fixed)
    leading.reception.register(server)
    task = asyncio.create_task(leading.run(), name="leading")
    try:
        async with AsyncExitStack() as stack:
            await _either(task, leading.settled, stop)
            if stop.is_set():
                return
            await server.start()
            ready = _ready(address, secured, token_file) | {"leader": leading.leader}
            ready |= _metrics(options, stack, lambda: leading.reception.office, requests, secured)
            print(json.dumps(ready), flush=True)
            log.info("serving on %s", address)
            await _either(task, stop)
    finally:
        await grpc_server.stop(server, _GRACE_S)
        task.cancel()
        await asyncio.wait([task])


async def _either(task: "asyncio.Task[None]", *events: asyncio.Event) -> None:
    """Wait for one of the events, or for the end of the task, whose error is raised."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if task.done():
        task.result()


def _public(address: ControllerAddress) -> str:
    """How other machines may find a controller that listens there."""
    host = address.endpoint.host
    if host in ANY_ADDRESS:
        host = socket.gethostname()
    return str(replace(address, endpoint=Endpoint(host, address.endpoint.port)))


def _stopping(options: ServeOptions) -> asyncio.Event:
    """An event that a signal sets, or the end of the parent if the options say so."""
    stop = asyncio.Event()
    event_loop = asyncio.get_running_loop()
    serve_until(event_loop, stop.set)

    def parent_ended() -> None:
        log.info("the parent process is gone")
        stop.set()

    if options.exit_with_parent:
        watch_parent(event_loop, parent_ended)
    return stop


def _ready(
    address: ControllerAddress, secured: Secured, token_file: Path | None
) -> dict[str, str | None]:
    return {
        "listen": str(address.endpoint),
        "address": str(address),
        "ca": _path(secured.ca),
        "admin_token_file": _path(token_file),
    }


def _metrics(
    options: ServeOptions,
    stack: AsyncExitStack,
    office: Callable[[], Office | None],
    requests: Requests,
    secured: Secured,
) -> dict[str, str]:
    if options.metrics is None:
        return {}
    reader = ControllerReader(office, requests, asyncio.get_running_loop(), secured.validity)
    return {"metrics": str(stack.enter_context(serve_metrics(options.metrics, reader)).address)}


def _path(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def configure_logging(chosen: str, *, verbose: bool) -> None:
    """Log to stderr in a format: warnings, or with ``verbose`` also information."""
    logs.configure(chosen, level=logging.INFO if verbose else logging.WARNING)


def is_postgres(store: str) -> bool:
    """Whether a store is the URL of a PostgreSQL database."""
    return store.startswith(("postgresql://", "postgres://"))


def parse_store(text: str) -> str:
    """A store's path with ``~`` expanded; a URL, ``:memory:`` and empty stay as they are."""
    return text if text in ("", MEMORY) or is_postgres(text) else str(expand(text))
