"""A channel to one controller: encryption, tokens, and gRPC's errors in one line."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc

from wiresum.common import places, tls
from wiresum.common.errors import LineText
from wiresum.controller import lines
from wiresum.controller.client.address import ControllerAddress, is_loopback
from wiresum.controller.client.trust import Credentials, own_ca_file
from wiresum.controller.errors import ControllerError, NotLeading
from wiresum.controller.text import format_seconds
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc

_OPTIONS: list[tuple[str, int]] = [
    # An http_proxy in the environment is meant for the web, not for the cluster's control plane.
    ("grpc.enable_http_proxy", 0),
    # A list of all jobs that a controller of many tenants remembers takes more than the usual 4 MB.
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also the limit of one attempt to connect: a busy controller may be slow to accept a
    # connection.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.http2.max_pings_without_data", 0),
]

# If a controller's host dies silently, a call goes to the next leader after 20 s, before the lease
# (30 s) has expired. By gRPC's default it never does.
_ALONE: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
]

# Where there are several controllers, another one leads once the silent one has been silent for
# this long.
_AMONG: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 3000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),
]

# gRPC's message for a call that it has not sent.
_UNSENT = "failed to connect to all addresses"

# gRPC writes to stderr the errors that it also returns, and those become one line. To look for a
# fault in gRPC itself, set the variable.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# A part of gRPC's message for a connection that failed at TLS, on either side.
_TLS_WORDS = (
    "certificate", "peer name", "hostname", "handshake", "alert", "ssl", "tls", "socket closed",
    "connection reset",
)  # fmt: skip

RETRY_AFTER_MS = "wiresum-retry-after-ms"
"""Trailing metadata of a status: the controller is there, and the same call may be made again after
so many milliseconds; see ``ControllerError.retry_after_s``."""

NOT_LEADING = "wiresum-not-leading"
"""Trailing metadata of a status: another controller of the store leads; the call has changed
nothing, ask that one."""

LINE_CODE = "wiresum-line-code"
"""Trailing metadata of a status: the code of the error line that is its message."""

_NOT_TRUSTED = frozenset(
    line.code
    for line in (
        lines.SERVER_NOT_TRUSTED,
        lines.CLIENT_NOT_TRUSTED,
        lines.TLS_FILE,
        lines.NOT_TRUSTED,
        lines.NO_TLS,
        lines.TLS_FILES,
        lines.HUNG_UP,
        lines.ASKS_FOR_CERTIFICATE,
    )
)

_CODE = re.compile(r"[A-Z][0-9]{3}")

_R = TypeVar("_R")

Method = Callable[[pb_grpc.ControllerStub], Callable[..., _R]]
"""Chooses a call from a controller's stub: ``lambda stub: stub.GetJob``."""


class NoAnswer(ControllerError):
    """The controller is gone or silent. Whether it has heard the call is not known."""


class Unreachable(NoAnswer):
    """The call has not been made: there is no controller at that address, or no way to it."""


class NotTrusted(Unreachable):
    """A certificate is missing, wrong or not trusted, on either side: waiting does not help."""


def away(error: ControllerError) -> bool:
    """Whether the controller could not be asked now, and the same call may be made again later."""
    if error.retry_after_s is not None:
        return True
    silent = error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    return silent and not isinstance(error, NotTrusted)


class Channel:
    """A gRPC channel. Raises :class:`ControllerError` for files that cannot be used."""

    def __init__(
        self, address: ControllerAddress, credentials: Credentials, *, alone: bool = True
    ) -> None:
        """``alone``: there is no other controller to ask while this one is silent."""
        self.address = address
        self._credentials = credentials = _completed(address, credentials)
        self._metadata = None
        self._ended = False
        if credentials.token:
            if not credentials.token.isascii() or not credentials.token.isprintable():
                raise ControllerError("UNAUTHENTICATED", lines.NOT_A_TOKEN.of())
            self._metadata = (("authorization", f"Bearer {credentials.token}"),)
        self._channel = _channel(address, credentials, _OPTIONS + (_ALONE if alone else _AMONG))
        self._stub = pb_grpc.ControllerStub(self._channel)

    def close(self) -> None:
        """Close the channel; calls in progress fail."""
        self._ended = True
        self._channel.close()

    def call(self, method: Method[_R], request: Any, left_s: float, timeout_s: float) -> _R:
        """Make a call, which may take ``left_s`` of the ``timeout_s`` that its caller has given.

        Raises :class:`NotLeading`, :class:`NoAnswer` and any other :class:`ControllerError`.
        """
        try:
            return method(self._stub)(request, timeout=left_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._explain(error, timeout_s) from None
        except ValueError:
            # What grpcio raises for a call on a closed channel.
            raise self.closed() from None

    def closed(self) -> ControllerError:
        """The error of a call on a channel that has been closed."""
        return ControllerError("CANCELLED", lines.CLOSED.of(address=self.address))

    def _explain(self, error: grpc.RpcError, limit: float) -> ControllerError:
        code: grpc.StatusCode = error.code()
        details = " ".join((error.details() or "").split())
        if code_in_metadata := _line_code(error):
            details = LineText(details, code_in_metadata)
        retry_after_s = _retry_after_s(error)
        if retry_after_s is not None:
            leads = _trailing(error, NOT_LEADING) is None
            kind = ControllerError if leads else NotLeading
            return kind(code.name, details, retry_after_s)
        if code == grpc.StatusCode.UNAVAILABLE:
            found = (
                None
                if self.address.plaintext
                else _tls_fault(self.address, self._credentials, details)
            )
            silence = Unreachable if _UNSENT in details else NoAnswer
            line = found or _unreachable(self.address, details)
            if line.code in _NOT_TRUSTED:
                silence = NotTrusted
            return silence(code.name, line)
        if code == grpc.StatusCode.CANCELLED:
            if self._ended:
                return self.closed()
            # A controller that ends cancels the long polls that it has.
            return NoAnswer("UNAVAILABLE", _unreachable(self.address, "it is ending"))
        if code == grpc.StatusCode.DEADLINE_EXCEEDED and details == "Deadline Exceeded":
            return NoAnswer(
                code.name,
                lines.NO_ANSWER.of(address=self.address, limit_s=format_seconds(limit)),
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return ControllerError(code.name, lines.NOT_A_CONTROLLER.of(address=self.address))
        return ControllerError(
            code.name, details or lines.STATUS_ALONE.of(address=self.address, status=code.name)
        )


def _completed(address: ControllerAddress, credentials: Credentials) -> Credentials:
    """With the default CA if none was given.

    For a controller on this host, that is the CA of this user's own controller.
    """
    local = is_loopback(address.endpoint.host) and not address.plaintext
    own = own_ca_file() if local and not credentials.ca else None
    return credentials if own is None else replace(credentials, ca=str(own))


def _retry_after_s(error: grpc.RpcError) -> float | None:
    value = _trailing(error, RETRY_AFTER_MS)
    return int(value) / 1000 if value and value.isdecimal() and len(value) < 10 else None


def _line_code(error: grpc.RpcError) -> str:
    """The code of the error line in the details; empty if the server has not told it."""
    value = _trailing(error, LINE_CODE) or ""
    return value if _CODE.fullmatch(value) else ""


def _trailing(error: grpc.RpcError, key: str) -> str | None:
    found = (each.value for each in error.trailing_metadata() or () if each.key == key)
    value = next(found, None)
    return None if value is None else str(value)


def _channel(
    address: ControllerAddress, credentials: Credentials, options: list[tuple[str, int]]
) -> grpc.Channel:
    target = str(address.endpoint)
    if address.plaintext:
        if credentials.token and not is_loopback(address.endpoint.host):
            raise ControllerError(
                "INVALID_ARGUMENT",
                lines.PLAIN_TEXT_ELSEWHERE.of(address=address, endpoint=target),
            )
        return grpc.insecure_channel(target, options=options)
    if bool(credentials.cert) != bool(credentials.key):
        raise ControllerError(
            "INVALID_ARGUMENT",
            lines.CLIENT_PAIR.of(),
        )
    ca = _read(credentials.ca, "CA")
    if ca is not None and not tls.looks_like_certificates(ca):
        # gRPC would only say that a file cannot be used.
        _check_files(credentials)
    channel = grpc.ssl_channel_credentials(
        root_certificates=ca,
        private_key=_read(credentials.key, "key"),
        certificate_chain=_read(credentials.cert, "certificate"),
    )
    return grpc.secure_channel(target, channel, options=options)


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
    """Why the controller cannot be reached: the part of gRPC's long message that says it."""
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
