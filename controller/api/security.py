"""How a controller proves who it is, and who its admin is: certificates and the admin's token."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc

from wiresum.common import private, tls
from wiresum.common.places import expand
from wiresum.common.temporary import PrivateFolder
from wiresum.common.tls import CertificateError, Validity
from wiresum.controller import lines
from wiresum.controller.api import certificates
from wiresum.controller.client.address import is_loopback
from wiresum.controller.errors import ServeError
from wiresum.controller.state.plan import Plan, SetAdminToken
from wiresum.controller.state.store import Store
from wiresum.controller.tokens import ADMIN, hashed, new_token

log = logging.getLogger(__name__)

ADMIN_TOKEN_VARIABLE = "WIRESUM_ADMIN_TOKEN"
_MIN_ADMIN_TOKEN = 16

_OURS = ("certificate", "key")


@dataclass(frozen=True)
class Security:
    """What ``wiresum controller serve`` is told about encryption and the admin."""

    plaintext: bool = False
    """No encryption: on loopback only."""
    tls_dir: str = ""
    """Where the development CA lives; empty: ``tls`` beside the store."""
    tls_names: Sequence[str] = ()
    """More names for the server's certificate."""
    tls_cert: str = ""
    tls_key: str = ""
    """A certificate of the site's own, instead of the development CA's."""
    client_ca: str = ""
    """Clients must show a certificate that this authority has signed."""
    admin_token: str = field(default="", repr=False)
    """The admin's token; empty: the store's, which is made at the first start."""
    new_admin_token: bool = False
    """Make another admin's token."""


@dataclass(frozen=True)
class Secured:
    """The outcome: how to serve, and the files that were used."""

    credentials: grpc.ServerCredentials | None
    """None: plaintext."""
    ca: Path | None
    """The CA for clients, if the controller made it."""
    validity: Callable[[], Validity | None] = lambda: None
    """From when until when the certificate in use is valid; None: plaintext."""


def secure(security: Security, beside: Path, host: str) -> Secured:
    """Make and check all that is needed to serve at ``host``. Raises :class:`ServeError`.

    ``beside`` is the folder of the store, where ``tls`` is unless ``security`` says otherwise.
    """
    if security.plaintext:
        _check_plaintext(security, host)
        return Secured(None, None)
    if bool(security.tls_cert) != bool(security.tls_key):
        raise ServeError(lines.TLS_PAIR.of())
    ca: Path | None = None
    if security.tls_cert:
        cert, key = expand(security.tls_cert), expand(security.tls_key)
    else:
        directory = expand(security.tls_dir) if security.tls_dir else beside / "tls"
        files = certificates.ensure_server(
            directory, certificates.server_names(host, security.tls_names)
        )
        ca, cert, key = files.ca.absolute(), files.cert, files.key
    client_ca = expand(security.client_ca) if security.client_ca else None
    reader = _Reader(cert, key, client_ca, ("--tls-cert", "--tls-key") if ca is None else _OURS)
    return Secured(_credentials(reader), ca, lambda: reader.validity)


def _check_plaintext(security: Security, host: str) -> None:
    if not is_loopback(host):
        raise ServeError(lines.PLAINTEXT_ELSEWHERE.of(host=host))
    if security.client_ca or security.tls_cert or security.tls_dir:
        raise ServeError(lines.PLAINTEXT_WITH_TLS.of())


def fixed_admin(security: Security) -> str:
    """The hash of the admin's token that counts instead of the store's; empty: there is none.

    Raises :class:`ServeError`.
    """
    if not security.admin_token:
        return ""
    if len(security.admin_token) < _MIN_ADMIN_TOKEN:
        raise ServeError(
            lines.ADMIN_TOKEN_SHORT.of(
                variable=ADMIN_TOKEN_VARIABLE,
                length=len(security.admin_token),
                least=_MIN_ADMIN_TOKEN,
            )
        )
    return hashed(security.admin_token)


def stored_admin(security: Security, store: Store, path: Path) -> Path | None:
    """The file that has the store's token of the admin, if it is there; made with the token.

    Raises :class:`ServeError`.
    """
    if store.snapshot().admin_token() is None or security.new_admin_token:
        token = new_token(ADMIN)
        try:
            private.write(path, f"{token}\n".encode())
        except OSError as error:
            raise ServeError(
                lines.ADMIN_TOKEN_NOT_WRITTEN.of(path=path, why=error.strerror)
            ) from error
        # The file first: a token that is stored but not in the file would lock the operator out.
        store.commit(Plan(time.time(), (SetAdminToken(hashed(token)),)))
        log.info("made the admin's token: %s", path)
    private.tighten(path, "the admin's token")
    return path if path.exists() else None


def _credentials(read: "_Reader") -> grpc.ServerCredentials:
    """Certificates that are read again when their files change: they can be renewed in place."""
    return grpc.dynamic_ssl_server_credentials(
        read.first(),
        # The stubs do not know that None is an answer, too; gRPC's documentation does.
        cast(Callable[[], grpc.ServerCertificateConfiguration], read.changed),
        require_client_authentication=read.asks_clients,
    )


class _Reader:
    """Reads the files, and tells whether they have changed since."""

    def __init__(
        self, cert: Path, key: Path, client_ca: Path | None, names: tuple[str, str]
    ) -> None:
        """``names`` are what messages call the certificate and the key."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._names = names
        self._seen: list[int] = []
        self.validity: Validity | None = None
        """Of the certificate in use."""

    @property
    def asks_clients(self) -> bool:
        """Whether clients must show a certificate."""
        return self._client_ca is not None

    def first(self) -> grpc.ServerCertificateConfiguration:
        try:
            self._check()
            self._seen = self._stamps()
            found = self._read()
        except OSError as error:
            raise ServeError(
                lines.CANNOT_READ.of(path=error.filename, why=error.strerror)
            ) from error
        except CertificateError as error:
            raise ServeError(str(error)) from error
        self._warn()
        return found

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each new connection; None: as before."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            self._check()
            found = self._read()
        except (OSError, CertificateError) as error:
            # A renewal is under way: the next connection looks again.
            log.warning("certificates are not read again: %s", error)
            return None
        self._seen = stamps
        log.info("certificate %s is in use", self._cert)
        self._warn()
        return found

    def _check(self) -> None:
        cert_name, key_name = self._names
        found = tls.check_pair(self._cert, self._key, cert_name=cert_name, key_name=key_name)
        if self._client_ca is not None:
            tls.check_authorities(self._client_ca, "--client-ca")
        self.validity = found

    def _warn(self) -> None:
        """Warn, in one line each, of faults that do not keep the controller from serving."""
        certificate = tls.read_certificates(self._cert, "certificate")[0]
        validity = self.validity
        for fault in tls.chain_faults(self._cert):
            log.warning("certificate %s: %s", self._cert, fault)
        if validity is not None and validity.ends_soon:
            log.warning(
                "certificate %s expires in %.1f days, on %s: renew it",
                self._cert,
                validity.days_left,
                tls.stamp(validity.ends),
            )
        if not tls.host_names(certificate):
            log.warning(
                "certificate %s names no host in a subjectAltName, only %s: many clients refuse it",
                self._cert,
                tls.subject(certificate),
            )
        if self._key.stat().st_mode & 0o004:
            log.warning("key %s can be read by every user of this machine: chmod 600 it", self._key)

    def _stamps(self) -> list[int]:
        files = [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]
        return [file.stat().st_mtime_ns for file in files]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        roots = self._client_ca.read_bytes() if self._client_ca else None
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._cert.read_bytes())], root_certificates=roots
        )


def scratch_folder() -> PrivateFolder:
    """A folder that is removed when the process ends. Raises ``TemporaryError``."""
    return PrivateFolder("controller")
