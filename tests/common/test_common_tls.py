"""Files with certificates and keys: each fault is named, in one line, with the file."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from support.site_certificates import DER, Made, make, put
from wiresum.common import tls


@pytest.fixture(scope="module")
def root() -> Made:
    return make("site root", authority=True)


@pytest.fixture(scope="module")
def good(root: Made) -> Made:
    return make("good", root, hosts=("localhost",))


def fault(call: Callable[[], object]) -> str:
    with pytest.raises(tls.CertificateError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_pair_that_fits_says_how_long_it_is_valid(tmp_path: Path, root: Made, good: Made):
    cert = put(tmp_path / "c.pem", good.pem(), root.pem())
    validity = tls.check_pair(cert, put(tmp_path / "c.key", good.key_bytes()))
    assert validity.ends == good.certificate.not_valid_after_utc
    assert 299 < validity.days_left < 301
    assert not validity.ends_soon
    # Windows' line ends, text around it, and the older form of keys, are no faults.
    put(cert, b"# the server's\r\n", good.pem().replace(b"\n", b"\r\n"))
    old = good.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert tls.check_pair(cert, put(tmp_path / "old.key", old)) == validity


@pytest.mark.parametrize(
    ("days", "soon"),
    [((-1, 29), True), ((-300, 31), False), ((-0.3, 0.7), False), ((-0.7, 0.3), True)],
)
def test_a_pair_knows_whether_it_ends_soon(
    tmp_path: Path, root: Made, days: tuple[float, float], soon: bool
):
    made = make("x", root, days=days)
    pair = put(tmp_path / "c.pem", made.pem()), put(tmp_path / "c.key", made.key_bytes())
    # 29 of 30 days left of a short one is not soon; 29 of 330 is.
    if days == (-1, 29):
        assert not tls.check_pair(*pair).ends_soon
        made = make("x", root, days=(-300, 29))
        pair = put(tmp_path / "c.pem", made.pem()), put(tmp_path / "c.key", made.key_bytes())
    assert tls.check_pair(*pair).ends_soon is soon


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "cannot be read: no such file or directory"),
        ("folder", "cannot be read: is a directory"),
        ("empty", "is empty"),
        ("der", "is DER, not PEM: convert it, `openssl x509 -inform DER"),
        ("pkcs12", "is PKCS#12, not PEM: convert it"),
        ("key", "has a private key in it and no certificate: are the two files swapped?"),
        ("bom", r"begins with a byte order mark \(BOM\)"),
        ("utf16", r"is UTF-16 text with a byte order mark \(BOM\)"),
        ("request", "is a request for a certificate"),
        ("pkcs7", "is PKCS#7, not PEM certificates"),
        ("text", "is not PEM"),
        ("damaged", "has a certificate that cannot be read"),
        ("expired", r"cannot be used: CN=late expired on 20\d\d-.* UTC \(this machine's clock"),
        ("early", r"cannot be used: CN=early is not valid before 20\d\d-.* UTC \(this machine's"),
        ("order", "is in the wrong order"),
    ],
)
def test_faults_of_a_certificate_are_named(
    tmp_path: Path, root: Made, good: Made, what: str, words: str
):
    late = make("late", root, days=(-9, -2))
    early = make("early", root, days=(2, 9))
    contents = {
        "empty": b" \n",
        "der": good.der(),
        "pkcs12": pkcs12.serialize_key_and_certificates(
            b"x", good.key, good.certificate, None, serialization.NoEncryption()
        ),
        "key": good.key_bytes(),
        "bom": b"\xef\xbb\xbf" + good.pem(),
        "utf16": good.pem().decode().encode("utf-16"),
        "request": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n",
        "pkcs7": b"-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n",
        "text": b"hello\n",
        "damaged": good.pem().replace(b"MII", b"AAA", 1),
        "expired": late.pem(),
        "early": early.pem(),
        "order": root.pem() + good.pem(),
    }
    cert = tmp_path / "cert.pem"
    if what == "folder":
        cert.mkdir()
    elif what in contents:
        put(cert, contents[what])
    owner = {"expired": late, "early": early}.get(what, good)
    key = put(tmp_path / "c.key", owner.key_bytes())
    text = fault(lambda: tls.check_pair(cert, key, cert_name="--tls-cert"))
    assert text.startswith(f"--tls-cert {cert} ")
    assert re.search(words, text), text
    if what not in ("expired", "early", "order"):
        assert re.search(words, fault(lambda: tls.check_authorities(cert, "--tls-cert")))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "cannot be read: no such file or directory"),
        ("password", "is protected by a password, which nobody is asked for"),
        ("old password", "is protected by a password, which nobody is asked for"),
        ("der", "is DER, not PEM: convert it, `openssl pkey -inform DER"),
        ("der password", "is DER and protected by a password"),
        ("certificate", "has a certificate in it and no private key"),
        ("bom", "byte order mark"),
        ("text", "is not PEM"),
        ("damaged", "cannot be read"),
        ("other", "is not that of certificate .*: give the pair"),
    ],
)
def test_faults_of_a_key_are_named(tmp_path: Path, root: Made, good: Made, what: str, words: str):
    contents = {
        "password": good.key_bytes(b"secret"),
        "old password": good.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"secret"),
        ),
        "der": good.key_bytes(encoding=DER),
        "der password": good.key_bytes(b"secret", DER),
        "certificate": good.pem(),
        "bom": b"\xef\xbb\xbf" + good.key_bytes(),
        "text": b"hello\n",
        "damaged": good.key_bytes().replace(b"MIG", b"AAA", 1),
        "other": root.key_bytes(),
    }
    cert, key = put(tmp_path / "c.pem", good.pem()), tmp_path / "c.key"
    if what in contents:
        put(key, contents[what])
    text = fault(lambda: tls.check_pair(cert, key))
    assert text.startswith(f"key {key} ")
    assert re.search(words, text), text


def test_authorities_are_valid_while_one_of_them_is(tmp_path: Path, root: Made):
    late = make("old root", authority=True, days=(-9, -2))
    tls.check_authorities(put(tmp_path / "both.pem", late.pem(), root.pem()))
    text = fault(lambda: tls.check_authorities(put(tmp_path / "late.pem", late.pem()), "--ca"))
    assert "late.pem cannot be used: CN=old root expired on" in text


def test_an_expired_certificate_further_down_is_logged_and_accepted(
    tmp_path: Path, root: Made, good: Made
):
    """Sites have sent an expired root along for years: clients found another chain."""
    cert = put(tmp_path / "c.pem", good.pem(), make("old", authority=True, days=(-9, -2)).pem())
    tls.check_pair(cert, put(tmp_path / "c.key", good.key_bytes()))
    (line,) = tls.chain_faults(cert)
    assert line.startswith("CN=old expired on")


def test_a_clock_of_1970_is_not_the_certificates_fault(
    tmp_path: Path, good: Made, monkeypatch: pytest.MonkeyPatch
):
    """Clients judge a server's certificate; their clocks may be right."""
    import datetime

    monkeypatch.setattr(tls, "now", lambda: datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC))
    tls.check_pair(put(tmp_path / "c.pem", good.pem()), put(tmp_path / "c.key", good.key_bytes()))
