"""TLS to the switches' P4Runtime servers: which addresses ask for it, and the files."""

from dataclasses import dataclass
from pathlib import Path

from finsy import GRPCCredentialsTLS

from wiresum.common import places, tls
from wiresum.controller import lines
from wiresum.controller.errors import OptionError

HTTPS = "https://"


@dataclass(frozen=True)
class SwitchTls:
    """PEM files for all switches at ``https://HOST:PORT``.

    ``ca``: the authority of their certificates (empty: those that gRPC trusts by itself). ``cert``
    and ``key``: what is shown to a switch that asks for a certificate.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""

    def check(self) -> None:
        """Raises ``OptionError`` or ``CertificateError`` unless the files can be used."""
        if bool(self.cert) != bool(self.key):
            raise OptionError(lines.P4RUNTIME_TLS_PAIR.of())
        if self.ca:
            tls.check_authorities(places.expand(self.ca), "--p4runtime-ca")
        if self.cert:
            tls.check_pair(
                places.expand(self.cert),
                places.expand(self.key),
                cert_name="--p4runtime-cert",
                key_name="--p4runtime-key",
            )

    def credentials(self, address: str) -> GRPCCredentialsTLS | None:
        """What finsy needs for an address; None: plain text. Files are read at each connection."""
        if not address.startswith(HTTPS):
            return None
        ca, cert, key = (_path(file) for file in (self.ca, self.cert, self.key))
        return GRPCCredentialsTLS(cacert=ca, cert=cert, private_key=key)


def target(address: str) -> str:
    """An address as gRPC wants it."""
    return address.removeprefix(HTTPS)


def _path(file: str) -> Path | None:
    return places.expand(file) if file else None
