"""A certificate authority of the controller's own, for those who have none: development, one rack.

It is made once and lives for ten years; the server's certificate is made anew when it is about to
expire or lacks a name. Keys are readable for their owner only. Nothing here is needed where
``--tls-cert`` and ``--tls-key`` come from an authority that the site has already.
"""

import datetime
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wiresum.controller.errors import ServeError

CA_NAME = "wiresum development CA"
SERVER_NAME = "wiresum controller"  # not the CA's: clients would take it for self-signed
CA_FILE = "ca.pem"

_DAY = datetime.timedelta(days=1)
_CA_LIFE = 3650 * _DAY
_LEAF_LIFE = 397 * _DAY
# A certificate that ends sooner than this is made anew when the controller starts.
_RENEW_BEFORE = 30 * _DAY
# Clocks of clients may be behind.
_BACKDATE = _DAY

_NAME = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9._-]{0,252}")

_ANY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Files:
    """PEM files: the authority's certificate, a certificate signed by it, and that one's key."""

    ca: Path
    cert: Path
    key: Path


def server_names(listen_host: str, more: Iterable[str] = ()) -> list[str]:
    """What clients may call a controller that listens at ``listen_host``.

    Raises :class:`ServeError` for what is neither a name nor an address.
    """
    given = [name for name in more if name]
    for name in given:
        if not _NAME.fullmatch(name) and not _is_address(name):
            raise ServeError(f"{name!r} is not the name or the address of a host (--tls-name)")
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *given]
    if listen_host not in _ANY_ADDRESS:
        names.append(listen_host)
    return sorted(set(filter(None, names)))


def ensure_server(directory: Path, names: Iterable[str]) -> Files:
    """The authority and a server's certificate for ``names`` in ``directory``, made if needed.

    Raises :class:`ServeError` if they cannot be read or written.
    """
    files = Files(directory / CA_FILE, directory / "server.pem", directory / "server.key")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca, ca_key = _authority(directory)
        if not _still_good(files, ca, set(names)):
            _issue(files, ca, ca_key, SERVER_NAME, set(names), ExtendedKeyUsageOID.SERVER_AUTH)
    except (OSError, ValueError) as error:
        raise ServeError(
            f"certificates in {directory} cannot be used: {' '.join(str(error).split())}; "
            "give another --tls-dir, or --tls-cert and --tls-key"
        ) from error
    return files


def issue_client(directory: Path, name: str, out: Path) -> Files:
    """A client's certificate, signed by the authority in ``directory``, as ``out``/``name``.pem.

    Raises :class:`ServeError` if there is no authority, or files cannot be written.
    """
    files = Files(directory / CA_FILE, out / f"{name}.pem", out / f"{name}.key")
    if not files.ca.exists():
        raise ServeError(
            f"there is no CA in {directory}: `wiresum controller serve` makes one at its first "
            "start; give its --tls-dir"
        )
    try:
        ca, ca_key = _authority(directory)
        out.mkdir(parents=True, exist_ok=True)
        _issue(files, ca, ca_key, name, set(), ExtendedKeyUsageOID.CLIENT_AUTH)
    except (OSError, ValueError) as error:
        raise ServeError(f"certificate {files.cert} cannot be made: {error}") from error
    return files


def check_authority(file: Path) -> None:
    """Raises :class:`ServeError` unless there are certificates in ``file``."""
    try:
        x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise ServeError(
            f"--client-ca {file} has no certificates in it that can be used"
        ) from error


def check_pair(cert: Path, key: Path) -> None:
    """Raises :class:`ServeError` unless ``key`` is that of the certificate in ``cert``."""
    try:
        certificate = x509.load_pem_x509_certificates(cert.read_bytes())[0]
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ServeError(f"certificate {cert} and key {key} cannot be used: {text}") from error
    if private.public_key() != certificate.public_key():
        raise ServeError(f"key {key} is not that of certificate {cert}: give the pair")


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    cert, key = directory / CA_FILE, directory / "ca.key"
    if cert.exists() and key.exists():
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} is not a key that wiresum has made")
        return x509.load_pem_x509_certificate(cert.read_bytes()), private
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    certificate = (
        _builder(name, name, private, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(private, hashes.SHA256())
    )
    _write_key(key, private)
    _write(cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, private


def _still_good(files: Files, ca: x509.Certificate, names: set[str]) -> bool:
    if not (files.cert.exists() and files.key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
    try:
        certificate.verify_directly_issued_by(ca)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, x509.ExtensionNotFound):
        return False
    there = set(found.get_values_for_type(x509.DNSName))
    there |= {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    left = certificate.not_valid_after_utc - _now()
    return names <= there and left > _RENEW_BEFORE


def _issue(
    files: Files,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    common_name: str,
    names: set[str],
    purpose: x509.ObjectIdentifier,
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, ca.subject, private, _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in sorted(names)]),
            critical=False,
        )
    certificate = builder.sign(ca_key, hashes.SHA256())
    _write_key(files.key, private)
    _write(files.cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    private: ec.EllipticCurvePrivateKey,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _BACKDATE)
        .not_valid_after(_now() + life)
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _write_key(path: Path, private: ec.EllipticCurvePrivateKey) -> None:
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(path, pem, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file at once: who reads it meanwhile sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    temporary.replace(path)
