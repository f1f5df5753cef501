"""A site's own certificates, as people make them: authorities, servers', and odd ones."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    def der(self) -> bytes:
        return self.certificate.public_bytes(DER)

    def key_bytes(self, password: bytes | None = None, encoding: Any = PEM) -> bytes:
        protection: Any = serialization.NoEncryption()
        if password is not None:
            protection = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, protection)


def make(
    name: str,
    signer: Made | None = None,
    *,
    hosts: tuple[str, ...] = (),
    days: tuple[float, float] = (-1, 300),
    authority: bool = False,
    for_clients: bool = False,
) -> Made:
    """A certificate for ``CN=name``, valid from so many days from now on until so many."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if hosts:
        names = [x509.DNSName(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if for_clients:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, critical=False)
    return Made(builder.sign(signer.key if signer else key, hashes.SHA256()), key)


def put(path: Path, *parts: bytes) -> Path:
    """Write a file of these parts, for its owner alone."""
    path.write_bytes(b"".join(parts))
    path.chmod(0o600)
    return path
