"""TLS for the P4Runtime server: its certificate, and the clients that it accepts."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from wiresum.common import tls
from wiresum.common.tls import CertificateError

log = logging.getLogger("wiresum.switch")


@dataclass(frozen=True)
class ServerTls:
    """PEM files: the server's certificate (chain), its key, and the authority of its clients.

    Without ``client_ca`` every client is accepted; with it, a client must show a certificate of
    this authority.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC wants. Files that change are read again: they can be renewed in place.

        Raises ``CertificateError``.
        """
        reader = _Reader(self)
        return grpc.dynamic_ssl_server_credentials(
            reader.first(),
            # The stubs do not know that None is an answer, too; gRPC's documentation does.
            cast(Callable[[], grpc.ServerCertificateConfiguration], reader.changed),
            require_client_authentication=self.client_ca is not None,
        )

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Check and read the files. Raises ``CertificateError`` and OSError."""
        tls.check_pair(
            self.cert, self.key, cert_name="--p4runtime-tls-cert", key_name="--p4runtime-tls-key"
        )
        if self.client_ca is not None:
            tls.check_authorities(self.client_ca, "--p4runtime-client-ca")
        return grpc.ssl_server_certificate_configuration(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            root_certificates=None if self.client_ca is None else self.client_ca.read_bytes(),
        )


class _Reader:
    """Reads the files, and tells whether they have changed since."""

    def __init__(self, files: ServerTls) -> None:
        self._files = files
        self._seen: list[int] = []

    def first(self) -> grpc.ServerCertificateConfiguration:
        found = self._files.read()
        self._seen = self._stamps()
        return found

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each new connection; None: as before."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            found = self._files.read()
        except (OSError, CertificateError) as error:
            # A renewal is under way: the next connection looks again.
            log.warning("certificates are not read again: %s", error)
            return None
        self._seen = stamps
        log.info("certificate %s is in use", self._files.cert)
        return found

    def _stamps(self) -> list[int]:
        files = self._files
        paths = [files.cert, files.key, *([files.client_ca] if files.client_ca else [])]
        return [path.stat().st_mtime_ns for path in paths]
