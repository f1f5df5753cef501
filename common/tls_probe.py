"""Finds out why a TLS server is not trusted, or does not trust this client.

gRPC reports that a certificate could not be verified, but not why. After such a failure only, a
second handshake with another library finds the cause for the error message.
"""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wiresum.common import tls
from wiresum.common.address import Endpoint

if TYPE_CHECKING:
    from cryptography import x509

_LIMIT_S = 3.0

# OpenSSL's numbers of what can be wrong (X509_V_ERR_…).
_NOT_YET, _EXPIRED, _PURPOSE = 9, 10, 26
_NAMES = (62, 63, 64)
_UNKNOWN_SIGNER = (2, 7, 18, 19, 20, 21, 24, 27, 30)


@dataclass(frozen=True)
class Fault:
    """The fault, as the end of "it is not trusted: …", and the remedy."""

    what: str
    remedy: str


def fault_of_server(server: Endpoint, ca: Path | None) -> Fault | None:
    """The fault of the certificate of the TLS server at ``server``.

    ``ca`` has the authorities that count; None: those that this machine trusts. The answer is None
    if nothing is wrong, or the server cannot be asked.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=ca.read_text())
        _handshake(context, server).close()
    except ssl.SSLCertVerificationError as error:
        certificate = _certificate(server)
        return None if certificate is None else _explain(error, certificate, server, ca)
    except (OSError, ValueError):
        return None
    return None


def fault_of_client(server: Endpoint, cert: Path | None, key: Path | None) -> Fault | None:
    """Why the TLS server at ``server`` does not accept us, if that is because of ``cert``.

    The answer is None if it does accept us, or cannot be asked.
    """
    try:
        context = _trusting()
        if cert is not None:
            context.load_cert_chain(cert, key)
        with _handshake(context, server) as connection:
            # In TLS 1.3 the server judges after our side of the handshake has ended. A server that
            # accepts the client then sends HTTP/2; gRPC's closes the connection silently if it does
            # not.
            if connection.recv(1):
                return None
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or "").upper():
            return None
    except ConnectionResetError:
        pass
    except (OSError, ValueError):
        return None
    if cert is None:
        return Fault("it asks for a client certificate", "give WIRESUM_CERT and WIRESUM_KEY")
    ours = tls.read_certificates(cert, "client certificate")[0]
    return Fault(
        f"it does not accept the client certificate {tls.subject(ours)}, signed by "
        f"{tls.issuer(ours)}",
        "give one that its --client-ca has signed with WIRESUM_CERT and WIRESUM_KEY",
    )


def _trusting() -> ssl.SSLContext:
    """A context that takes any certificate: to look at it, never to send anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _handshake(context: ssl.SSLContext, server: Endpoint) -> ssl.SSLSocket:
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection((server.host, server.port), _LIMIT_S)
    try:
        return context.wrap_socket(raw, server_hostname=server.host)
    except BaseException:
        raw.close()
        raise


def _certificate(server: Endpoint) -> "x509.Certificate | None":
    from cryptography import x509

    try:
        with _handshake(_trusting(), server) as connection:
            found = connection.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found) if found else None
    except (OSError, ValueError):
        return None


def _explain(
    error: ssl.SSLCertVerificationError,
    certificate: "x509.Certificate",
    server: Endpoint,
    ca: Path | None,
) -> Fault:
    code = error.verify_code
    if code in _NAMES:
        return _name_fault(certificate, server)
    if code in (_EXPIRED, _NOT_YET):
        time = tls.time_fault(certificate)
        which = "an authority in its chain" if time is None else "it"
        when = "has expired" if code == _EXPIRED else "is not valid yet"
        what = time or f"the certificate of {which} {when}"
        return Fault(what, "renew it on the controller's host, or set the clock")
    if code == _PURPOSE:
        return Fault(
            f"{tls.subject(certificate)} is not a certificate for servers (extendedKeyUsage)",
            "give the controller one that is",
        )
    if code in _UNKNOWN_SIGNER:
        return _trust_fault(certificate, ca)
    return Fault(
        f"{tls.subject(certificate)}: {error.verify_message}", "give the controller another one"
    )


def _name_fault(certificate: "x509.Certificate", server: Endpoint) -> Fault:
    names = tls.host_names(certificate)
    if not names:
        what = f"it names no host in a subjectAltName, only {tls.subject(certificate)}"
    else:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        what = f"it is for {', '.join(names[:8])}{more}, and not for {server.host}"
    return Fault(
        what,
        "use an address that it names, or have it name this one (--tls-name on the controller)",
    )


def _trust_fault(certificate: "x509.Certificate", ca: Path | None) -> Fault:
    signer = tls.issuer(certificate)
    signed = f"{tls.subject(certificate)} was signed by {signer}"
    remedy = "give the CA that signed it with --ca or WIRESUM_CA"
    if certificate.issuer == certificate.subject:
        return Fault(f"{tls.subject(certificate)} is self-signed", f"{remedy}: here, itself")
    if ca is None:
        return Fault(f"{signed}, which nothing on this machine vouches for", remedy)
    known = tls.read_certificates(ca, "CA file")
    if any(each.subject == certificate.issuer for each in known):
        return Fault(f"{signed}, but another one than that of the same name in {ca}", remedy)
    names = ", ".join(tls.subject(each) for each in known[:4])
    return Fault(
        f"{signed}, and {ca} has {names}",
        f"{remedy}; if {signer} is an intermediate authority, its certificate is missing in the "
        "controller's --tls-cert",
    )
