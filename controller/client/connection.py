"""One client's connection to a controller: encryption, tokens, deadlines, errors in one line."""

import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc

from wiresum.common import places, tls
from wiresum.common.errors import LineText
from wiresum.controller import lines
from wiresum.controller.client.address import ControllerAddress, is_loopback
from wiresum.controller.errors import ControllerError
from wiresum.controller.text import format_seconds
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # An http_proxy in the environment is meant for the web, not for the cluster's control plane.
    ("grpc.enable_http_proxy", 0),
    # A list of all jobs that a controller of many tenants remembers takes more than the usual 4 MB.
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also the limit of one attempt to connect: a busy controller may take its time to greet.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A controller whose host has died without a word: after 20 s a call goes to its successor,
    # before the lease (30 s) has expired. gRPC's default is never.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]

# gRPC writes to stderr the errors that it also returns, and those become one line. To look for a
# fault in gRPC itself, set the variable.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Found in gRPC's words for a connection that failed at TLS, whosever fault it was.
_TLS_WORDS = (
    "certificate", "peer name", "hostname", "handshake", "alert", "ssl", "tls", "socket closed",
    "connection reset",
)  # fmt: skip

RETRY_AFTER_MS = "wiresum-retry-after-ms"
"""Trailing metadata of a status: the controller is there, and the same call may be made again after
so many milliseconds; see ``ControllerError.retry_after_s``."""

LINE_CODE = "wiresum-line-code"
"""Trailing metadata of a status: the code of the error line that is its message."""

_CODE = re.compile(r"[A-Z]\d{3}")

_R = TypeVar("_R")


@dataclass(frozen=True)
class Credentials:
    """Who the caller is, and how it knows that it talks to the controller.

    ``token`` goes with every call. ``ca``, ``cert`` and ``key`` are PEM files: the authority that
    the controller's certificate must come from (none: those that gRPC trusts by itself), and
    the caller's own certificate where the controller asks for one.
    """

    token: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""

    @classmethod
    def given(cls, token: str | None, ca: str | None, cert: str | None, key: str | None) -> Self:
        """What is None comes from WIRESUM_TOKEN, WIRESUM_CA, WIRESUM_CERT and WIRESUM_KEY."""

        def choose(value: str | None, variable: str) -> str:
            return os.environ.get(variable, "") if value is None else value

        return cls(
            choose(token, "WIRESUM_TOKEN").strip(),
            choose(ca, "WIRESUM_CA"),
            choose(cert, "WIRESUM_CERT"),
            choose(key, "WIRESUM_KEY"),
        )


def state_folder() -> Path:
    """Where this user's own controller keeps its store: ``$XDG_STATE_HOME/wiresum``.

    Raises ``NoHome``.
    """
    state = places.state_folder()
    if state is None:
        raise places.NoHome(lines.NO_HOME.of())
    return state / "wiresum"


def default_store_file() -> Path:
    """The store of this user's own controller. Raises ``NoHome``."""
    return state_folder() / "controller.sqlite"


def default_token_file() -> Path:
    """Where this user's own controller writes its admin's token. Raises ``NoHome``."""
    return state_folder() / "controller.sqlite.admin-token"


def default_ca_file() -> Path:
    """The authority that this user's own controller has made. Raises ``NoHome``."""
    return state_folder() / "tls" / "ca.pem"


def own_ca_file() -> Path | None:
    """The same if it is there; None for a user who has none, or no home."""
    try:
        file = default_ca_file()
    except places.NoHome:
        return None
    return file if places.is_file(file) else None


class Connection:
    """A gRPC channel. Raises :class:`ControllerError` for files that cannot be used."""

    def __init__(self, address: ControllerAddress, credentials: Credentials) -> None:
        self.address = address
        self._credentials = credentials = _completed(address, credentials)
        self._metadata = None
        self._ended = threading.Event()
        if credentials.token:
            if not credentials.token.isascii() or not credentials.token.isprintable():
                raise ControllerError("UNAUTHENTICATED", lines.NOT_A_TOKEN.of())
            self._metadata = (("authorization", f"Bearer {credentials.token}"),)
        self._channel = _channel(address, credentials)
        self.stub = pb_grpc.ControllerStub(self._channel)

    def close(self) -> None:
        """Close the channel; calls in progress fail."""
        self._ended.set()
        self._channel.close()

    def call(self, method: Callable[..., _R], request: Any, timeout_s: float) -> _R:
        """Make a call, which may take ``timeout_s``. Raises :class:`ControllerError`.

        Who makes too many calls is told when to come back, and does so.
        """
        deadline = time.monotonic() + timeout_s
        left = timeout_s
        while True:
            try:
                return method(request, timeout=left, metadata=self._metadata)
            except grpc.RpcError as error:
                explained = self._explain(error, timeout_s)
            except ValueError:
                # What grpcio raises for a call on a closed channel.
                explained = self._has_been_closed()
            if explained.code != "RESOURCE_EXHAUSTED" or explained.retry_after_s is None:
                raise explained
            # Not all at the same moment.
            pause = explained.retry_after_s * random.uniform(1.0, 1.5)
            left = deadline - time.monotonic() - pause
            if left <= 0:
                raise explained
            if self._ended.wait(pause):
                raise self._has_been_closed()

    def _has_been_closed(self) -> ControllerError:
        return ControllerError("CANCELLED", lines.CLOSED.of(address=self.address))

    def _explain(self, error: grpc.RpcError, limit: float) -> ControllerError:
        code: grpc.StatusCode = error.code()
        details = " ".join((error.details() or "").split())
        if code_in_metadata := _line_code(error):
            details = LineText(details, code_in_metadata)
        retry_after_s = _retry_after_s(error)
        if retry_after_s is not None:
            return ControllerError(code.name, details, retry_after_s)
        if code == grpc.StatusCode.UNAVAILABLE:
            found = (
                None
                if self.address.plaintext
                else _tls_fault(self.address, self._credentials, details)
            )
            return ControllerError(code.name, found or _unreachable(self.address, details))
        if code == grpc.StatusCode.CANCELLED:
            if self._ended.is_set():
                return self._has_been_closed()
            # A controller that ends cancels the long polls that it has.
            return ControllerError("UNAVAILABLE", _unreachable(self.address, "it is ending"))
        if code == grpc.StatusCode.DEADLINE_EXCEEDED and details == "Deadline Exceeded":
            return ControllerError(
                code.name,
                lines.NO_ANSWER.of(address=self.address, limit_s=format_seconds(limit)),
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return ControllerError(code.name, lines.NOT_A_CONTROLLER.of(address=self.address))
        return ControllerError(
            code.name, details or lines.STATUS_ALONE.of(address=self.address, status=code.name)
        )


def _completed(address: ControllerAddress, credentials: Credentials) -> Credentials:
    """With the CA that counts where none was given.

    The controller on this host, started by this user, needs no further introduction.
    """
    local = is_loopback(address.endpoint.host) and not address.plaintext
    own = own_ca_file() if local and not credentials.ca else None
    return credentials if own is None else replace(credentials, ca=str(own))


def _retry_after_s(error: grpc.RpcError) -> float | None:
    for each in error.trailing_metadata() or ():
        if each.key == RETRY_AFTER_MS and str(each.value).isdecimal() and len(each.value) < 10:
            return int(each.value) / 1000
    return None


def _line_code(error: grpc.RpcError) -> str:
    """The code of the error line in the details; empty if the server has not told it."""
    for each in error.trailing_metadata() or ():
        if each.key == LINE_CODE and _CODE.fullmatch(str(each.value)):
            return str(each.value)
    return ""


def _channel(address: ControllerAddress, credentials: Credentials) -> grpc.Channel:
    target = str(address.endpoint)
    if address.plaintext:
        if credentials.token and not is_loopback(address.endpoint.host):
            raise ControllerError(
                "INVALID_ARGUMENT",
                lines.PLAIN_TEXT_ELSEWHERE.of(address=address, endpoint=target),
            )
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    if bool(credentials.cert) != bool(credentials.key):
        raise ControllerError(
            "INVALID_ARGUMENT",
            lines.CLIENT_PAIR.of(),
        )
    ca = _read(credentials.ca, "CA")
    if ca is not None and not tls.looks_like_certificates(ca):
        # gRPC would say no more than that a file cannot be used.
        _check_files(credentials)
    channel = grpc.ssl_channel_credentials(
        root_certificates=ca,
        private_key=_read(credentials.key, "key"),
        certificate_chain=_read(credentials.cert, "certificate"),
    )
    return grpc.secure_channel(target, channel, options=_CHANNEL_OPTIONS)


def _read(path: str, what: str) -> bytes | None:
    if not path:
        return None
    try:
        return places.expand(path).read_bytes()
    except OSError as error:
        raise ControllerError(
            "INVALID_ARGUMENT",
            lines.TLS_FILE_UNREADABLE.of(what=what, path=path, why=error.strerror),
        ) from None


def _path(text: str) -> Path | None:
    return places.expand(text) if text else None


def _check_files(credentials: Credentials) -> None:
    """Look at the files for TLS more closely. Raises :class:`ControllerError` INVALID_ARGUMENT."""
    ca, cert, key = map(_path, (credentials.ca, credentials.cert, credentials.key))
    try:
        if ca is not None:
            tls.check_authorities(ca, "CA file")
        if cert is not None and key is not None:
            tls.check_pair(cert, key, cert_name="client certificate", key_name="client key")
    except tls.CertificateError as error:
        raise ControllerError("INVALID_ARGUMENT", str(error)) from None


def _tls_fault(
    address: ControllerAddress, credentials: Credentials, details: str
) -> LineText | None:
    """What is wrong with a certificate, if that is why the controller cannot be reached."""
    low = details.lower()
    if not any(word in low for word in _TLS_WORDS):
        return None
    from wiresum.common import tls_probe

    try:
        _check_files(credentials)
        ca, cert, key = map(_path, (credentials.ca, credentials.cert, credentials.key))
        found = tls_probe.fault_of_server(address.endpoint, ca)
        if found is not None:
            return lines.SERVER_NOT_TRUSTED.of(
                address=address, fault=found.what, remedy=found.remedy
            )
        found = tls_probe.fault_of_client(address.endpoint, cert, key)
    except ControllerError as error:
        return lines.TLS_FILE.of(address=address, why=error)
    return (
        None
        if found is None
        else lines.CLIENT_NOT_TRUSTED.of(address=address, fault=found.what, remedy=found.remedy)
    )


def _unreachable(address: ControllerAddress, details: str) -> LineText:
    """What stands between us and the controller, out of gRPC's longer story."""
    low = details.lower()
    if "certificate_verify_failed" in low or "peer name" in low or "hostname" in low:
        return lines.NOT_TRUSTED.of(address=address)
    if "wrong_version_number" in low:
        return lines.NO_TLS.of(address=address, endpoint=address.endpoint)
    if "security handshaker" in low:
        return lines.TLS_FILES.of(address=address)
    if address.plaintext and "socket closed" in low:
        return lines.HUNG_UP.of(address=address, endpoint=address.endpoint)
    if "certificate_required" in low or "bad_certificate" in low:
        return lines.ASKS_FOR_CERTIFICATE.of(address=address)
    for known in ("Connection refused", "No route to host", "Name or service not known"):
        if known.lower() in low:
            details = known.lower()
            break
    return lines.NOT_REACHED.of(address=address, why=details or "no answer")
