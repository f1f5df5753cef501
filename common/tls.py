"""Checks of certificate files before they are used, each fault named in one line.

TLS libraries report most faults of a file with the same message, and some only when a client
connects. This module checks what goes wrong in practice: files of another format, keys with a
password or of another certificate, certificates that are not valid yet or have expired.
"""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wiresum.common import lines, wall_clock
from wiresum.common.errors import LineText, WiresumError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

# cryptography is imported where it is needed: it takes a tenth of a second, and most clients
# need none of this.

SOON = datetime.timedelta(days=30)
"""A certificate that ends sooner than this is worth a warning."""

_CERTIFICATE = re.compile(rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", re.MULTILINE)
_KEY = re.compile(rb"^-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----", re.MULTILINE)
_PROTECTED = re.compile(
    rb"^-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: *4,ENCRYPTED", re.MULTILINE
)
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class CertificateError(WiresumError):
    """A certificate, a key or an authority that cannot be used."""


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate can be used."""

    begins: datetime.datetime
    ends: datetime.datetime

    @property
    def days_left(self) -> float:
        """Days until it ends by this machine's clock; negative once it has."""
        return (self.ends - now()).total_seconds() / 86400

    @property
    def ends_soon(self) -> bool:
        """Whether it is time to renew it: in its last 30 days, or the last third if it is short."""
        return self.ends - now() < min(SOON, (self.ends - self.begins) / 3)


def now() -> datetime.datetime:
    """The time by this machine's clock, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def check_pair(
    cert: Path, key: Path, *, cert_name: str = "certificate", key_name: str = "key"
) -> Validity:
    """Check the certificate (chain) and the private key with which a TLS server or client starts.

    Both must be PEM, the key without a password and that of the first certificate, which must not
    have expired. One that is not valid yet is refused, too, unless this machine's clock stands
    before 2025 and so is certainly wrong. The answer is how long the first certificate is valid;
    of the others clients need some, or none: see :func:`chain_faults`.

    ``cert_name`` and ``key_name`` are what messages call the files, such as ``--tls-cert``. Raises
    :class:`CertificateError`.
    """
    chain = read_certificates(cert, cert_name)
    private = read_key(key, key_name)
    ours = private.public_key()
    if ours != chain[0].public_key():
        if any(ours == other.public_key() for other in chain[1:]):
            raise CertificateError(
                lines.WRONG_ORDER.of(cert_name=cert_name, cert=cert, key_name=key_name, key=key)
            )
        raise CertificateError(
            lines.OTHER_KEY.of(key_name=key_name, key=key, cert_name=cert_name, cert=cert)
        )
    check_time(chain[0], f"{cert_name} {cert}")
    return Validity(chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)


def chain_faults(cert: Path) -> list[str]:
    """Faults of the certificates behind the first one in a file, one line each.

    Raises :class:`CertificateError` if the file cannot be read.
    """
    return [
        fault
        for other in read_certificates(cert, "certificate")[1:]
        if (fault := time_fault(other))
    ]


def check_authorities(file: Path, name: str = "CA file") -> None:
    """Check a file of authorities that shall be trusted: PEM, and not all of them expired.

    Raises :class:`CertificateError`.
    """
    found = read_certificates(file, name)
    last = max(found, key=lambda certificate: certificate.not_valid_after_utc)
    check_time(last, f"{name} {file}")


def check_time(certificate: "x509.Certificate", what: str) -> None:
    """Refuse a certificate that cannot be used now; ``what`` is its place in the message.

    Raises :class:`CertificateError`.
    """
    fault = time_fault(certificate)
    if fault is None or (now() < wall_clock.EARLIEST and certificate.not_valid_before_utc > now()):
        return
    raise CertificateError(lines.CERTIFICATE_UNUSABLE.of(what=what, fault=fault))


def time_fault(certificate: "x509.Certificate") -> str | None:
    """The fault of a certificate's dates by this machine's clock; None if it is valid now."""
    clock = f"this machine's clock says {stamp(now())}"
    name = subject(certificate)
    if certificate.not_valid_after_utc < now():
        return f"{name} expired on {stamp(certificate.not_valid_after_utc)} ({clock})"
    if certificate.not_valid_before_utc > now():
        return f"{name} is not valid before {stamp(certificate.not_valid_before_utc)} ({clock})"
    return None


def stamp(moment: datetime.datetime) -> str:
    """A moment as messages show it: UTC, to the second."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def subject(certificate: "x509.Certificate") -> str:
    """Whose certificate it is, as ``CN=name``, or all of the name if it has no CN."""
    return _short(certificate.subject)


def issuer(certificate: "x509.Certificate") -> str:
    """Who signed it, in the same form."""
    return _short(certificate.issuer)


def _short(name: "x509.Name") -> str:
    from cryptography.x509.oid import NameOID

    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = f"CN={common[0].value!s}" if common else name.rfc4514_string()
    return text[:80] or "(a certificate without a subject)"


def host_names(certificate: "x509.Certificate") -> list[str]:
    """The names and addresses of hosts in its subjectAltName; empty without one."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = [str(name) for name in found.get_values_for_type(x509.DNSName)]
    return names + [str(address) for address in found.get_values_for_type(x509.IPAddress)]


# ---- files


def looks_like_certificates(data: bytes) -> bool:
    """Whether ``data`` looks like PEM certificates; a quick check."""
    return not data.startswith((_UTF8_MARK, *_UTF16_MARKS)) and bool(_CERTIFICATE.search(data))


def read_certificates(path: Path, name: str) -> "list[x509.Certificate]":
    """The certificates in a PEM file, at least one, in their order.

    ``name`` is what messages call the file. Raises :class:`CertificateError`.
    """
    from cryptography import x509

    data = _read(path, name)
    if not _CERTIFICATE.search(data):
        raise CertificateError(_why_no_certificate(f"{name} {path}", data))
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(
            lines.BAD_CERTIFICATE.of(name=name, path=path, why=_words(error))
        ) from error


def read_key(path: Path, name: str) -> "PrivateKeyTypes":
    """The private key in a PEM file. Raises :class:`CertificateError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    data = _read(path, name)
    if _PROTECTED.search(data):
        raise CertificateError(lines.KEY_PROTECTED.of(name=name, path=path))
    if not _KEY.search(data):
        raise CertificateError(_why_no_key(f"{name} {path}", data))
    try:
        return serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            lines.PEM_UNREADABLE.of(name=name, path=path, why=_words(error))
        ) from error


def _read(path: Path, name: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(
            lines.PEM_UNREADABLE.of(
                name=name, path=path, why=(error.strerror or str(error)).lower()
            )
        ) from error
    fault = _why_unreadable(f"{name} {path}", data)
    if fault is not None:
        raise CertificateError(fault)
    return data


def _why_unreadable(where: str, data: bytes) -> LineText | None:
    if not data.strip():
        return lines.FILE_EMPTY.of(file=where)
    if data.startswith(_UTF8_MARK):
        return lines.BYTE_ORDER_MARK.of(file=where)
    if data.startswith(_UTF16_MARKS):
        return lines.UTF16.of(file=where)
    return None


def _why_no_certificate(where: str, data: bytes) -> LineText:
    from cryptography import x509

    if _KEY.search(data) or _PROTECTED.search(data):
        return lines.KEY_FOR_CERTIFICATE.of(file=where)
    if b"-----BEGIN PKCS7-----" in data:
        return lines.PKCS7.of(file=where)
    if b"-----BEGIN CERTIFICATE REQUEST-----" in data:
        return lines.CERTIFICATE_REQUEST.of(file=where)
    try:
        x509.load_der_x509_certificate(data)
    except ValueError:
        pass
    else:
        return lines.CERTIFICATE_IN_DER.of(file=where)
    if _is_pkcs12(data):
        return lines.PKCS12.of(file=where)
    return lines.NO_CERTIFICATE.of(file=where)


def _why_no_key(where: str, data: bytes) -> LineText:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    if _CERTIFICATE.search(data):
        return lines.CERTIFICATE_FOR_KEY.of(file=where)
    try:
        serialization.load_der_private_key(data, None)
    except TypeError:
        return lines.DER_PROTECTED.of(file=where)
    except (ValueError, UnsupportedAlgorithm):
        pass
    else:
        return lines.KEY_IN_DER.of(file=where)
    if _is_pkcs12(data):
        return lines.PKCS12.of(file=where)
    return lines.NO_KEY.of(file=where)


def _is_pkcs12(data: bytes) -> bool:
    """A DER sequence that begins with version 3, as no certificate and no key does."""
    return data[:1] == b"\x30" and b"\x02\x01\x03\x30" in data[:16]


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
