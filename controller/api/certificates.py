"""The controller's own certificate authority, for sites without one: development, one rack.

It is made once and lives for ten years, and is never replaced: if a file of it is missing, put the
file back, or move all of them away. The server's certificate is made anew when it is about to
expire or lacks a name. Keys are readable for their owner only. Nothing here is needed where
``--tls-cert`` and ``--tls-key`` come from an authority that the site has already.
"""

import datetime
import ipaddress
import logging
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

from wiresum.common import private, wall_clock
from wiresum.common.errors import WiresumError
from wiresum.common.tls import (
    SOON,
    CertificateError,
    check_time,
    now,
    read_certificates,
    read_key,
    stamp,
)
from wiresum.controller import lines
from wiresum.controller.errors import ServeError

log = logging.getLogger(__name__)

CA_NAME = "wiresum development CA"
SERVER_NAME = "wiresum controller"  # not the CA's: clients would take it for self-signed
CA_FILE = "ca.pem"
CA_KEY_FILE = "ca.key"

_DAY = datetime.timedelta(days=1)
_CA_LIFE = 3650 * _DAY
_LEAF_LIFE = 397 * _DAY
# Clocks of clients may be behind.
_BACKDATE = _DAY

_NAME = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9._-]{0,252}")

ANY_ADDRESS = ("0.0.0.0", "::")
"""Where a server listens for every address of its host."""


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
            raise ServeError(lines.NOT_A_HOST.of(name=name))
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *given]
    if listen_host not in ANY_ADDRESS:
        names.append(listen_host)
    return sorted(set(filter(None, names)))


def ensure_server(directory: Path, names: Iterable[str]) -> Files:
    """The authority and a server's certificate for ``names`` in ``directory``, made if needed.

    An authority is made where there is nothing of one. Without its key (which may be kept
    elsewhere) the server's certificate is used as long as it is good, and not made anew.
    Raises :class:`ServeError` if they cannot be read, written or made.
    """
    files = Files(directory / CA_FILE, directory / "server.pem", directory / "server.key")
    try:
        private.folder(directory)
        if not any(map(_there, (files.ca, _ca_key(directory), files.cert, files.key))):
            _make_authority(directory)
        for key in (_ca_key(directory), files.key):
            private.tighten(key, "key")
        ca = _authority(directory)
        why = _why_not_good(files, ca, set(names))
        if why:
            ca_key = _authority_key(directory, ca, f"{files.cert} must be made anew ({why})")
            _issue(files, ca, ca_key, SERVER_NAME, set(names), ExtendedKeyUsageOID.SERVER_AUTH)
        elif read_certificates(files.cert, "certificate")[0].not_valid_after_utc - now() < SOON:
            _renew(files, ca, set(names))
    except (OSError, ValueError, TypeError, WiresumError) as error:
        raise ServeError(
            lines.CERTIFICATES_UNUSABLE.of(folder=directory, why=_words(error))
        ) from error
    return files


def _renew(files: Files, ca: x509.Certificate, names: set[str]) -> None:
    """Make a certificate anew that is still good, if that is possible."""
    try:
        ca_key = _authority_key(files.ca.parent, ca, f"{files.cert} expires soon")
    except CertificateError as error:
        log.warning("certificate %s is not renewed: %s", files.cert, error)
        return
    _issue(files, ca, ca_key, SERVER_NAME, names, ExtendedKeyUsageOID.SERVER_AUTH)


def issue_client(directory: Path, name: str, out: Path) -> Files:
    """A client's certificate, signed by the authority in ``directory``, as ``out``/``name``.pem.

    One that the authority has signed for the same name before is replaced; nothing else is.
    Raises :class:`ServeError` if there is no authority, or files cannot be written.
    """
    files = Files(directory / CA_FILE, out / f"{name}.pem", out / f"{name}.key")
    if not _there(files.ca) and not _there(_ca_key(directory)):
        raise ServeError(lines.NO_CA.of(folder=directory))
    try:
        ca = _authority(directory)
        ca_key = _authority_key(directory, ca, "it signs certificates")
        _check_replaceable(files, ca, name)
        out.mkdir(parents=True, exist_ok=True)
        _issue(files, ca, ca_key, name, set(), ExtendedKeyUsageOID.CLIENT_AUTH)
    except (OSError, ValueError, TypeError, WiresumError) as error:
        raise ServeError(
            lines.CERTIFICATE_NOT_MADE.of(path=files.cert, why=_words(error))
        ) from error
    return files


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())


def _ca_key(directory: Path) -> Path:
    return directory / CA_KEY_FILE


def _there(path: Path) -> bool:
    """Whether there is a file, or a link to one that may be elsewhere for now."""
    return path.is_symlink() or path.exists()


def _authority(directory: Path) -> x509.Certificate:
    """The authority's certificate. Raises :class:`CertificateError`."""
    file = directory / CA_FILE
    if not _there(file):
        raise CertificateError(lines.CA_FILE_MISSING.of(file=file, folder=directory))
    certificate = read_certificates(file, "CA")[0]
    check_time(certificate, f"CA {file}")
    return certificate


def _authority_key(directory: Path, ca: x509.Certificate, why: str) -> ec.EllipticCurvePrivateKey:
    """The authority's key, which is needed for the reason ``why``.

    Raises :class:`CertificateError`.
    """
    file = _ca_key(directory)
    if not _there(file):
        raise CertificateError(lines.CA_KEY_MISSING.of(file=file, why=why, folder=directory))
    key = read_key(file, "CA key")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(lines.NOT_OUR_KEY.of(file=file))
    if key.public_key() != ca.public_key():
        raise CertificateError(lines.OTHER_KEY.of(file=file, ca=directory / CA_FILE))
    return key


def _check_replaceable(files: Files, ca: x509.Certificate, name: str) -> None:
    """Refuse to write over anything but a client's certificate of the same name and authority."""
    there = [file for file in (files.cert, files.key) if _there(file)]
    if not there:
        return
    try:
        before = read_certificates(files.cert, "certificate")[0]
        before.verify_directly_issued_by(ca)
        constraints = before.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = before.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        ours = (
            before.subject == _subject(name)
            and not constraints.ca
            and list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        )
    except (CertificateError, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        ours = False
    if not ours:
        raise CertificateError(lines.FOREIGN_FILE.of(file=there[0], name=name))


def _make_authority(directory: Path) -> None:
    """A new authority; its key is written first, so that no certificate lacks its key."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(CA_NAME)
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
    identifier = x509.SubjectKeyIdentifier.from_public_key(private_key.public_key())
    certificate = (
        _builder(name, name, private_key, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(private_key, hashes.SHA256())
    )
    _write_key(_ca_key(directory), private_key)
    private.write(directory / CA_FILE, _pem(certificate), 0o644)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _why_not_good(files: Files, ca: x509.Certificate, names: set[str]) -> str:
    """Why the server's certificate must be made anew; empty: it is good."""
    if not (files.cert.exists() and files.key.exists()):
        return "it or its key is missing"
    try:
        certificate = read_certificates(files.cert, "certificate")[0]
        certificate.verify_directly_issued_by(ca)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fits = read_key(files.key, "key").public_key() == certificate.public_key()
    except (InvalidSignature, ValueError, TypeError, CertificateError, x509.ExtensionNotFound):
        return "it is not this CA's, or damaged"
    if not fits:
        return f"{files.key.name} is not its key"
    there = set(found.get_values_for_type(x509.DNSName))
    there |= {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    if not names <= there:
        return f"it does not name {', '.join(sorted(names - there))}"
    if not wall_clock.plausible():
        return ""
    if certificate.not_valid_before_utc > now():
        return "it is not valid yet"
    return "it has expired" if certificate.not_valid_after_utc < now() else ""


def _issue(
    files: Files,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    common_name: str,
    names: set[str],
    purpose: x509.ObjectIdentifier,
) -> None:
    private_key = ec.generate_private_key(ec.SECP256R1())
    life = min(_LEAF_LIFE, ca.not_valid_after_utc - now())
    builder = (
        _builder(_subject(common_name), ca.subject, private_key, life)
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
    _write_key(files.key, private_key)
    private.write(files.cert, _pem(certificate), 0o644)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    private_key: ec.EllipticCurvePrivateKey,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    if not wall_clock.plausible():
        raise CertificateError(lines.CLOCK_WRONG.of(time=stamp(now())))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - _BACKDATE)
        .not_valid_after(now() + life)
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _write_key(path: Path, private_key: ec.EllipticCurvePrivateKey) -> None:
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private.write(path, pem)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
