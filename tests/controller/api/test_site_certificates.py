"""A site's own certificates: each fault is named, by the controller and by its clients."""

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from controller_process import ADMIN_TOKEN, run_cli, serving

from support.site_certificates import Made, make, put
from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError


@pytest.fixture(scope="module")
def root() -> Made:
    return make("site root", authority=True)


@contextlib.contextmanager
def server(*chain: Made, client_ca: Made | None = None) -> Iterator[str]:
    """A gRPC server with such a certificate, which the controller itself might refuse to use."""
    pem = b"".join(each.pem() for each in chain)
    credentials = grpc.ssl_server_credentials(
        [(chain[0].key_bytes(), pem)],
        root_certificates=client_ca.pem() if client_ca else None,
        require_client_auth=client_ca is not None,
    )
    grpc_server = grpc.server(ThreadPoolExecutor(2))
    port = grpc_server.add_secure_port("127.0.0.1:0", credentials)
    grpc_server.start()
    try:
        yield f"localhost:{port}"
    finally:
        grpc_server.stop(0).wait()


def refusal(address: str, ca: Path, cert: Path | None = None, key: Path | None = None) -> str:
    own = {"cert": "" if cert is None else str(cert), "key": "" if key is None else str(key)}
    with (
        pytest.raises(ControllerError) as caught,
        ControllerClient(address, token="t", ca=str(ca), **own) as client,
    ):
        client.list_jobs()
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.code in ("UNAVAILABLE", "INVALID_ARGUMENT")
    return text


def test_a_client_names_the_fault_of_the_servers_certificate(tmp_path: Path, root: Made) -> None:
    middle = make("site middle", root, authority=True)
    here = ("localhost",)
    twin = make("site root", authority=True)
    cases: list[tuple[tuple[Made, ...], str]] = [
        ((make("x", root, hosts=here, days=(-9, -2)),), r"CN=x expired on 20.* UTC \(this machine"),
        ((make("x", root, hosts=here, days=(2, 9)),), r"CN=x is not valid before 20.* UTC"),
        (
            (make("x", root, hosts=("a.example", "b.example")),),
            r"it is for a\.example, b\.example, and not for localhost\): use an address that it",
        ),
        ((make("other", root),), r"it names no host in a subjectAltName, only CN=other"),
        (
            (make("x", middle, hosts=here),),
            r"CN=x was signed by CN=site middle, and .*ca\.pem has CN=site root\): give the CA "
            r".*; if CN=site middle is an intermediate authority, its certificate is missing in "
            r"the controller's --tls-cert",
        ),
        (
            (make("x", twin, hosts=here),),
            r"CN=x was signed by CN=site root, but another one than that of the same name in .*pem",
        ),
        ((make("x", hosts=here),), r"CN=x is self-signed\): give the CA"),
        (
            (make("x", root, hosts=here, for_clients=True),),
            r"CN=x is not a certificate for servers \(extendedKeyUsage\)",
        ),
    ]
    ca = put(tmp_path / "ca.pem", root.pem())
    for chain, words in cases:
        with server(*chain) as address:
            text = refusal(address, ca)
        start = f"controller {address} cannot be reached (its certificate is not trusted: "
        assert text.startswith(start), text
        assert re.search(words, text), text
    # With the whole chain, the server is trusted: what it lacks then is the controller.
    with (
        server(make("x", middle, hosts=here), middle) as address,
        pytest.raises(ControllerError, match="is not a wiresum controller"),
    ):
        ControllerClient(address, token="t", ca=str(ca)).list_jobs()


def test_a_client_names_the_fault_of_its_own_files(tmp_path: Path, root: Made) -> None:
    good = make("x", root, hosts=("localhost",))
    marked = put(tmp_path / "bom.pem", b"\xef\xbb\xbf" + root.pem())
    assert "bom.pem begins with a byte order mark" in refusal("localhost:1", marked)
    binary = put(tmp_path / "der.pem", root.der())
    assert f"CA file {binary} is DER, not PEM" in refusal("localhost:1", binary)
    ca = put(tmp_path / "ca.pem", root.pem())
    late, mine = make("late", root, days=(-9, -2)), make("mine", root)
    stranger = make("mallory", make("elsewhere", authority=True))
    files = {
        made: (put(tmp_path / f"{n}.pem", made.pem()), put(tmp_path / f"{n}.key", made.key_bytes()))
        for n, made in enumerate((late, mine, stranger))
    }
    with server(good, client_ca=root) as address:
        asks = f"controller {address} cannot be reached (it asks for a client certificate): give "
        assert refusal(address, ca).startswith(asks)
        text = refusal(address, ca, *files[late])
        assert "CN=late expired on" in text
        assert f"client certificate {files[late][0]}" in text
        text = refusal(address, ca, *files[stranger])
        assert (
            "it does not accept the client certificate CN=mallory, signed by CN=elsewhere" in text
        )
        text = refusal(address, ca, files[mine][0], files[stranger][1])
        assert f"client key {files[stranger][1]} is not that of client certificate" in text
        protected = put(tmp_path / "p.key", mine.key_bytes(b"secret"))
        assert "is protected by a password" in refusal(address, ca, files[mine][0], protected)
        cert, key = map(str, files[mine])
        with pytest.raises(ControllerError, match="is not a wiresum controller"):
            ControllerClient(address, token="t", ca=str(ca), cert=cert, key=key).list_jobs()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("expired", r"--tls-cert .*/c\.pem cannot be used: CN=x expired on 20.* \(this machine's"),
        ("early", r"--tls-cert .*/c\.pem cannot be used: CN=x is not valid before 20.*"),
        ("der", r"--tls-cert .*/c\.pem is DER, not PEM"),
        ("password", r"--tls-key .*/c\.key is protected by a password"),
        ("other key", r"--tls-key .*/c\.key is not that of --tls-cert .*/c\.pem: give the pair"),
        ("bom", r"--tls-cert .*/c\.pem begins with a byte order mark \(BOM\)"),
        ("old authority", r"--client-ca .*/clients\.pem cannot be used: CN=old expired on"),
    ],
)
def test_the_controller_refuses_certificates_that_no_client_can_trust(
    tmp_path: Path, root: Made, what: str, words: str
) -> None:
    days = {"expired": (-9.0, -2.0), "early": (2.0, 9.0)}.get(what, (-1.0, 300.0))
    made = make("x", root, hosts=("localhost",), days=days)
    pem = {"der": made.der(), "bom": b"\xef\xbb\xbf" + made.pem()}.get(what, made.pem())
    keys = {"password": made.key_bytes(b"secret"), "other key": root.key_bytes()}
    cert = put(tmp_path / "c.pem", pem)
    key = put(tmp_path / "c.key", keys.get(what, made.key_bytes()))
    arguments = ["--tls-cert", str(cert), "--tls-key", str(key)]
    if what == "old authority":
        old = make("old", authority=True, days=(-9, -2))
        arguments += ["--client-ca", str(put(tmp_path / "clients.pem", old.pem()))]
    done = run_cli(
        "controller", "serve", "--store", ":memory:", "--listen", "127.0.0.1:0", *arguments,
        WIRESUM_ADMIN_TOKEN=ADMIN_TOKEN,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.match(f"wiresum: {words}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


def test_the_controller_warns_of_certificates_with_minor_faults(tmp_path: Path, root: Made) -> None:
    """It serves all the same: the warnings are a line each, and the days left a metric."""
    made = make("localhost", root, days=(-300, 12.5))
    old = make("old root", authority=True, days=(-9, -2))
    cert = put(tmp_path / "c.pem", made.pem(), old.pem())
    key = put(tmp_path / "c.key", made.key_bytes())
    key.chmod(0o644)
    arguments = ("--store", ":memory:", "--tls-cert", str(cert), "--tls-key", str(key))
    environment = {"WIRESUM_ADMIN_TOKEN": ADMIN_TOKEN}
    with serving(
        *arguments, "--metrics", "127.0.0.1:0", plaintext=False, environment=environment
    ) as child:
        import urllib.request

        url = f"http://{child.ready['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        child.process.terminate()
        _, stderr = child.process.communicate(timeout=30)
    ends = re.search(r"^wiresum_controller_certificate_end_timestamp_seconds (\S+)$", text, re.M)
    assert ends is not None
    assert float(ends[1]) == made.certificate.not_valid_after_utc.timestamp()
    lines = stderr.splitlines()
    assert len(lines) == 4, stderr
    for words in (
        f"certificate {cert} expires in 12.5 days, on 20",
        f"certificate {cert}: CN=old root expired on 20",
        f"certificate {cert} names no host in a subjectAltName, only CN=localhost: many clients",
        f"key {key} can be read by every user of this machine",
    ):
        assert any(words in line for line in lines), stderr
