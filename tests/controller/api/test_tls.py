"""Certificates, who trusts whom, and the admin's token, as processes."""

import datetime
import os
import shutil
import stat
import time
from pathlib import Path

import grpc
import pytest
from controller_process import ADMIN_TOKEN, run_cli, serving
from cryptography import x509

from wiresum.controller.api.certificates import ensure_server, issue_client, server_names
from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError, ServeError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refused(call: object) -> str:
    assert callable(call)
    with pytest.raises(ControllerError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return f"{caught.value.code}: {caught.value}"


def test_the_first_start_makes_a_ca_and_a_token(tmp_path: Path) -> None:
    store = str(tmp_path / "site" / "store.sqlite")
    with serving("--store", store, plaintext=False, environment={}) as child:
        ready = child.ready
        assert ready["address"] == ready["listen"]
        token_file, ca = Path(ready["admin_token_file"]), Path(ready["ca"])
        assert token_file == tmp_path / "site" / "store.sqlite.admin-token"
        assert ca == tmp_path / "site" / "tls" / "ca.pem"
        secret = [token_file, ca.with_name("ca.key"), ca.with_name("server.key")]
        assert [mode(path) for path in secret] == [0o600] * 3
        token = token_file.read_text().strip()
        with ControllerClient(child.address, token=token, ca=str(ca)) as client:
            assert client.list_switches() == []
            made = client.add_tenant("acme").token
        # Neither without a token, nor by somebody who trusts another authority, nor in plain text.
        with ControllerClient(child.address, token="", ca=str(ca)) as client:
            assert "UNAUTHENTICATED: the call has no token" in refused(client.list_switches)
        with ControllerClient(child.address, token=token, ca="") as client:
            assert "its certificate is not trusted" in refused(client.list_switches)
        with ControllerClient(f"http://{child.address}", token=token) as client:
            assert "UNAVAILABLE" in refused(client.list_switches)

    before = ca.read_bytes()
    with serving("--store", store, plaintext=False, environment={}) as child:
        assert (child.ready["admin_token_file"], child.ready["ca"]) == (str(token_file), str(ca))
        assert ca.read_bytes() == before
        with ControllerClient(child.address, token=token, ca=str(ca)) as client:
            assert [tenant.name for tenant in client.list_tenants()] == ["acme", "default"]
        with ControllerClient(child.address, token=made, ca=str(ca)) as client:
            assert [tenant.name for tenant in client.list_tenants()] == ["acme"]

    # The file may be put away; the token is good all the same, until there is another.
    token_file.unlink()
    with serving("--store", store, plaintext=False, environment={}) as child:
        assert child.ready["admin_token_file"] is None
        with ControllerClient(child.address, token=token, ca=str(ca)) as client:
            assert client.list_jobs() == []
    arguments = ("--store", store, "--new-admin-token")
    with serving(*arguments, plaintext=False, environment={}) as child:
        other = Path(child.ready["admin_token_file"]).read_text().strip()
        with ControllerClient(child.address, token=other, ca=str(ca)) as client:
            assert client.list_jobs() == []
        with ControllerClient(child.address, token=token, ca=str(ca)) as client:
            assert "UNAUTHENTICATED" in refused(client.list_jobs)


def test_this_users_own_controller_needs_no_introduction(tmp_path: Path) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path), "WIRESUM_TOKEN": ""}
    with serving(plaintext=False, environment=home) as child:
        done = run_cli("tenant", "add", "acme", "--controller", child.address, **home)
        assert done.returncode == 0, done.stderr
        token = done.stdout.splitlines()[1]
        done = run_cli("tenant", "list", "--controller", child.address, **home)
        assert "acme" in done.stdout
        # Whoever has another token is somebody else.
        mine = home | {"WIRESUM_TOKEN": token}
        done = run_cli("switch", "list", "--controller", child.address, **mine)
        assert done.returncode == 1
        assert (
            done.stderr
            == "wiresum: only the admin may list switches: this is the token of tenant acme\n"
        )
        # Somewhere else than on loopback, or in plain text, the admin's token stays at home.
        done = run_cli("job", "list", "--controller", f"http://{child.address}", **home)
        assert done.returncode == 1
        assert "wiresum: " in done.stderr
        assert done.stderr.count("\n") == 1


def test_client_certificates(tmp_path: Path) -> None:
    tls, out = tmp_path / "tls", tmp_path / "out"
    ensure_server(tls, server_names("127.0.0.1"))
    arguments = ["--store", ":memory:", "--tls-dir", str(tls), "--client-ca", str(tls / "ca.pem")]
    done = run_cli("controller", "certificate", "alice", "--tls-dir", str(tls), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert mode(out / "alice.key") == 0o600
    cert, key = str(out / "alice.pem"), str(out / "alice.key")
    ca = str(tls / "ca.pem")
    environment = {"WIRESUM_ADMIN_TOKEN": ADMIN_TOKEN}
    with serving(*arguments, plaintext=False, environment=environment) as child:
        with ControllerClient(
            child.address, token=ADMIN_TOKEN, ca=ca, cert=cert, key=key
        ) as client:
            assert client.list_jobs() == []
        with ControllerClient(child.address, token=ADMIN_TOKEN, ca=ca) as client:
            assert "UNAVAILABLE" in refused(client.list_jobs)
        stranger = ensure_server(tmp_path / "other", ["x"])
        issue_client(tmp_path / "other", "mallory", out)
        assert stranger.ca.exists()
        with ControllerClient(
            child.address,
            token=ADMIN_TOKEN,
            ca=ca,
            cert=str(out / "mallory.pem"),
            key=str(out / "mallory.key"),
        ) as client:
            assert "UNAVAILABLE" in refused(client.list_jobs)
    text = refused(lambda: ControllerClient("127.0.0.1:1", token="t", cert=cert))
    assert "WIRESUM_CERT and WIRESUM_KEY" in text
    text = refused(lambda: ControllerClient("127.0.0.1:1", token="t", ca=str(tmp_path / "nil")))
    assert "CA file" in text


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    names = server_names("127.0.0.1")
    old, new = ensure_server(tmp_path / "old", names), ensure_server(tmp_path / "new", names)
    live = tmp_path / "live"
    live.mkdir()
    shutil.copy(old.cert, live / "c.pem")
    shutil.copy(old.key, live / "c.key")
    arguments = ["--tls-cert", str(live / "c.pem"), "--tls-key", str(live / "c.key")]
    environment = {"WIRESUM_ADMIN_TOKEN": ADMIN_TOKEN}
    with serving(
        "--store", ":memory:", *arguments, plaintext=False, environment=environment
    ) as child:
        assert child.ready["ca"] is None
        with ControllerClient(child.address, token=ADMIN_TOKEN, ca=str(old.ca)) as client:
            assert client.list_jobs() == []
            shutil.copy(new.cert, live / "c.pem")
            # A certificate without its key is not used: the old pair still is.
            with ControllerClient(child.address, token=ADMIN_TOKEN, ca=str(old.ca)) as other:
                assert other.list_jobs() == []
            shutil.copy(new.key, live / "c.key")
            os.utime(live / "c.key", (time.time() + 5, time.time() + 5))
            with ControllerClient(child.address, token=ADMIN_TOKEN, ca=str(new.ca)) as other:
                assert other.list_jobs() == []
            # Connections that are there stay.
            assert client.list_jobs() == []


def test_certificates_are_made_anew_when_they_must(tmp_path: Path) -> None:
    files = ensure_server(tmp_path, ["localhost", "127.0.0.1"])
    first = files.cert.read_bytes()
    ensure_server(tmp_path, ["localhost"])
    assert files.cert.read_bytes() == first
    ensure_server(tmp_path, ["localhost", "10.0.0.1"])
    second = files.cert.read_bytes()
    certificate = x509.load_pem_x509_certificate(second)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    certificate.verify_directly_issued_by(ca)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc < datetime.timedelta(
        days=400
    )
    assert ca.not_valid_after_utc > certificate.not_valid_after_utc
    # Another authority's, by mistake.
    other = ensure_server(tmp_path / "other", ["localhost", "10.0.0.1"])
    shutil.copy(other.cert, files.cert)
    ensure_server(tmp_path, ["localhost", "10.0.0.1"])
    x509.load_pem_x509_certificate(files.cert.read_bytes()).verify_directly_issued_by(ca)
    files.ca.write_text("nonsense")
    with pytest.raises(ServeError, match=r"cannot be used: .* --tls-dir"):
        ensure_server(tmp_path, ["localhost"])
    with pytest.raises(ServeError, match="there is no CA in"):
        issue_client(tmp_path / "nil", "x", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--plaintext", "--listen", "0.0.0.0:0"], {}, "--plaintext is for loopback addresses"),
        (["--plaintext", "--client-ca", "x"], {}, "--plaintext has no certificates"),
        (["--tls-cert", "x"], {}, "give --tls-cert and --tls-key"),
        (
            ["--tls-cert", "/nil/c", "--tls-key", "/nil/k"],
            {},
            "--tls-cert /nil/c cannot be read: no such",
        ),
        (["--client-ca", "/nil/ca"], {}, "/nil/ca cannot be read"),
        (["--client-ca", __file__], {}, f"--client-ca {__file__} is not PEM"),
        (["--tls-name", "a\nb"], {}, r"'a\nb' is not the name or the address of a host"),
        (["--tls-name", "ü.example"], {}, "'ü.example' is not the name or the address of a host"),
        (["--tls-dir", "/proc/nil"], {}, "certificates in /proc/nil cannot be used"),
        ([], {"WIRESUM_ADMIN_TOKEN": "hunter2"}, "WIRESUM_ADMIN_TOKEN has 7 characters"),
    ],
)
def test_unusable_serve_options_are_refused(
    arguments: list[str], environment: dict[str, str], words: str
) -> None:
    where = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
    done = run_cli("controller", "serve", "--store", ":memory:", *where, *arguments, **environment)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_a_token_does_not_travel_in_the_clear() -> None:
    text = refused(lambda: ControllerClient("http://192.0.2.1:7500", token="t"))
    assert "use https://192.0.2.1:7500" in text
    assert ControllerClient("http://localhost:7500", token="t")
    assert "no token has" in refused(lambda: ControllerClient("127.0.0.1:1", token="a\nb"))


def test_grpc_is_quiet_about_it() -> None:
    """Its own lines on stderr would be a second explanation."""
    assert grpc.__version__
    with serving("--store", ":memory:") as child:
        done = run_cli("job", "list", "--controller", child.listen)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "it does not speak TLS" in done.stderr
