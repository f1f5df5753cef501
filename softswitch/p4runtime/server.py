"""Starting and stopping the gRPC server."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import grpc
from finsy.proto import p4r_grpc

from wiresum.common import grpc_server
from wiresum.common.address import Endpoint, parse_endpoint
from wiresum.common.errors import WiresumError
from wiresum.softswitch import lines
from wiresum.softswitch.p4runtime.service import P4RuntimeService
from wiresum.softswitch.p4runtime.tls import ServerTls

MAX_MESSAGE_BYTES = 64 << 20
"""A program's JSON is several megabytes; gRPC's default is 4."""

KEEPALIVE = (
    # A controller whose host has died silently must not stay primary: after 3 s of silence it is
    # pinged, and its connection closed if it does not answer within 4 s more. gRPC's default is 2
    # hours.
    ("grpc.keepalive_time_ms", 3000),
    ("grpc.keepalive_timeout_ms", 4000),
    ("grpc.http2.ping_timeout_ms", 4000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A controller may ping, too: by default gRPC would close its connection for that.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)

_GRACE_S = 0.2


class ServerError(WiresumError):
    """The server cannot listen where it was told to."""


class P4RuntimeServer:
    """A gRPC server for one :class:`P4RuntimeService`."""

    def __init__(self, service: P4RuntimeService) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # A second switch on the same port must fail, not share it.
                ("grpc.so_reuseport", 0),
                *KEEPALIVE,
            ]
        )
        p4r_grpc.add_P4RuntimeServicer_to_server(service, self._server)

    async def start(self, address: str, tls: ServerTls | None = None) -> str:
        """Listen on ``HOST:PORT`` (port 0: any) or ``unix:/path``; return the address in use.

        With ``tls`` it is ``https://HOST:PORT``. Raises AddressError for a malformed address,
        ServerError where it cannot be bound, and CertificateError for files that cannot be used.
        """
        if address.startswith("unix:"):
            if tls is not None:
                raise ServerError(lines.SOCKET_NEEDS_NO_TLS.of(address=address))
            return await self._start_unix(address)
        endpoint = parse_endpoint(address, what="--p4runtime")
        credentials = None if tls is None else tls.credentials()
        try:
            _try_to_bind(endpoint)
            if credentials is None:
                port = self._server.add_insecure_port(str(endpoint))
            else:
                port = self._server.add_secure_port(str(endpoint), credentials)
        except OSError as error:
            raise ServerError(
                lines.CANNOT_LISTEN_WHY.of(endpoint=endpoint, why=error.strerror or error)
            ) from error
        except RuntimeError as error:
            raise ServerError(lines.CANNOT_LISTEN.of(endpoint=endpoint)) from error
        await self._server.start()
        used = str(Endpoint(endpoint.host, port))
        return used if tls is None else f"https://{used}"

    async def _start_unix(self, address: str) -> str:
        path = Path(address.removeprefix("unix:"))
        if not path.name or not path.parent.is_dir():
            raise ServerError(lines.SOCKET_NO_FOLDER.of(address=address, folder=path.parent))
        # gRPC removes any socket at that path: check first that nobody listens on it.
        if path.exists() and (not stat.S_ISSOCK(path.stat().st_mode) or _answers(path)):
            raise ServerError(lines.SOCKET_IN_USE.of(address=address))
        # A process that can connect can load programs. The umask may admit a group, never all
        # users.
        mask = os.umask(0o077)
        os.umask(mask | 0o007)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise ServerError(lines.SOCKET_FAILED.of(address=address)) from error
        finally:
            os.umask(mask)
        await self._server.start()
        return address

    async def stop(self) -> None:
        """End every call and stop listening, within a fraction of a second."""
        await grpc_server.stop(self._server, _GRACE_S)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.settimeout(1)
        probe.connect(os.fspath(path))
        return True
    return False


def _try_to_bind(endpoint: Endpoint) -> None:
    """Raise the OSError that binding to ``endpoint`` ends with.

    gRPC's own error names no reason, and it logs several lines of its own first.
    """
    family, kind, protocol, _, target = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(target)
        probe.listen()
