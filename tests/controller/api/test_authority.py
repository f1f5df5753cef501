"""The generated CA: made once, never replaced; and to whom the local admin's token is told."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_process import run_cli, serving
from cryptography import x509

from support.site_certificates import make, put
from wiresum.common import tls
from wiresum.controller.api.certificates import ensure_server, issue_client
from wiresum.controller.errors import ServeError
from wiresum.controller.state.sqlite import SqliteStore

NAMES = ["localhost", "127.0.0.1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ensure_server(tmp_path / "tls", NAMES)
    return tmp_path / "tls"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(call: object) -> str:
    assert callable(call)
    with pytest.raises(ServeError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("lost", ["gone", "link to what is not mounted"])
def test_a_missing_ca_key_replaces_nothing(folder: Path, tmp_path: Path, lost: str) -> None:
    key = folder / "ca.key"
    key.rename(tmp_path / "offline.key")
    if lost != "gone":
        key.symlink_to(tmp_path / "not-mounted" / "ca.key")
    before = contents(folder)
    words = "is missing, and" if lost == "gone" else "cannot be read: no such file"
    # What is good is used.
    ensure_server(folder, NAMES)
    # What needs the key says so.
    text = refused(lambda: issue_client(folder, "bob", tmp_path / "out"))
    assert f"{key} {words}" in text
    text = refused(lambda: ensure_server(folder, [*NAMES, "new.example"]))
    assert f"{key} {words}" in text
    if lost == "gone":
        assert "it does not name new.example): put it back for this" in text
    (folder / "server.key").unlink()
    del before["server.key"]
    assert str(key) in refused(lambda: ensure_server(folder, NAMES))
    assert contents(folder) == before
    assert not (tmp_path / "out").exists()
    # Back for a moment, it does what it is there for.
    key.unlink(missing_ok=True)
    (tmp_path / "offline.key").rename(key)
    ensure_server(folder, NAMES)
    assert (folder / "ca.pem").read_bytes() == before["ca.pem"]


def test_the_commands_say_so_in_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "ca.key").unlink()
    done = run_cli("controller", "certificate", "bob", "--tls-dir", str(folder))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{folder / 'ca.key'} is missing, and it signs certificates: put it back" in done.stderr
    arguments = ("--tls-dir", str(folder), "--tls-name", "x.example")
    done = run_cli(
        "controller", "serve", "--store", ":memory:", "--listen", "127.0.0.1:0", *arguments
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{folder / 'ca.key'} is missing, and {folder / 'server.pem'} must be" in done.stderr


@pytest.mark.parametrize("lost", [["ca.pem"], ["ca.pem", "ca.key"], ["ca.pem", "server.pem"]])
def test_a_missing_ca_certificate_replaces_nothing(folder: Path, lost: list[str]) -> None:
    for name in lost:
        (folder / name).unlink()
    before = contents(folder)
    text = refused(lambda: ensure_server(folder, NAMES))
    assert f"{folder / 'ca.pem'} is missing, and others of this CA's files are there" in text
    assert f"move all of {folder} away" in text
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("another's", "is not the key of"),
        ("protected", "is protected by a password"),
        ("damaged", "cannot be read"),
        ("another kind", "is not a key that wiresum has made"),
    ],
)
def test_a_ca_key_that_does_not_do_replaces_nothing(
    folder: Path, tmp_path: Path, what: str, words: str
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    other = make("other")
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = {
        "another's": other.key_bytes(),
        "protected": other.key_bytes(b"secret"),
        "damaged": (folder / "ca.key").read_bytes().replace(b"MIG", b"AAA", 1),
        "another kind": rsa_key,
    }
    put(folder / "ca.key", key[what])
    before = contents(folder)
    text = refused(lambda: issue_client(folder, "bob", tmp_path / "out"))
    assert words in text, text
    text = refused(lambda: ensure_server(folder, [*NAMES, "new.example"]))
    assert words in text, text
    ensure_server(folder, NAMES)
    assert contents(folder) == before


def test_a_clients_certificate_is_written_over_nothing_else(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    for name in ("ca", "server"):
        text = refused(lambda name=name: issue_client(folder, name, folder))
        assert f"{folder / name}.pem is there, and not a certificate that this CA has" in text
    assert contents(folder) == before
    issue_client(folder, "bob", tmp_path)
    first = (tmp_path / "bob.pem").read_bytes()
    issue_client(folder, "bob", tmp_path)
    assert (tmp_path / "bob.pem").read_bytes() != first
    # The same name at another site.
    ensure_server(tmp_path / "other", NAMES)
    kept = (tmp_path / "bob.key").read_bytes()
    assert "is there, and not" in refused(lambda: issue_client(tmp_path / "other", "bob", tmp_path))
    (tmp_path / "bob.pem").unlink()
    assert "bob.key is there" in refused(lambda: issue_client(folder, "bob", tmp_path))
    assert (tmp_path / "bob.key").read_bytes() == kept


def test_a_key_that_does_not_fit_the_server_certificate_is_made_anew(folder: Path) -> None:
    """As after a power cut between the two."""
    put(folder / "server.key", make("x").key_bytes())
    files = ensure_server(folder, NAMES)
    tls.check_pair(files.cert, files.key)


@pytest.mark.parametrize("moment", [86400.0, 4_102_444_800.0])
def test_a_wild_clock_makes_no_certificates(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: float
) -> None:
    import datetime
    import time

    wild = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    before = contents(folder)
    monkeypatch.setattr(time, "time", lambda: moment)
    monkeypatch.setattr("wiresum.controller.api.certificates.now", lambda: wild)
    monkeypatch.setattr(tls, "now", lambda: wild)
    text = refused(lambda: ensure_server(tmp_path / "new", NAMES))
    assert "no certificate can be made while this machine's clock says" in text
    assert contents(tmp_path / "new") == {}
    if moment < 1e9:
        # Clients' clocks may be right: what is there is served.
        ensure_server(folder, NAMES)
    else:
        assert "expired on" in refused(lambda: ensure_server(folder, NAMES))
    assert contents(folder) == before


def test_a_server_certificate_never_outlives_its_ca(folder: Path) -> None:
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    cert = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    assert cert.not_valid_after_utc <= ca.not_valid_after_utc


# ---- whom the local admin's token is told


def test_the_local_admins_token_goes_only_to_servers_of_the_local_ca(
    tmp_path: Path,
) -> None:
    """A tunnel that ends on localhost leads to a server that another CA vouches for."""
    mine = {"XDG_STATE_HOME": str(tmp_path / "me"), "WIRESUM_TOKEN": ""}
    theirs = {"XDG_STATE_HOME": str(tmp_path / "they"), "WIRESUM_TOKEN": ""}
    with serving(plaintext=False, environment=mine) as own:
        own_ca, address = Path(str(own.ready["ca"])), own.listen

        def ask(address: str, **more: str) -> tuple[int, str]:
            done = run_cli("job", "list", "--controller", address, **(mine | more))
            return done.returncode, done.stderr

        assert ask(address)[0] == 0
        # The local CA may be named, also as a copy; a file that has others in it, too, may not.
        copy = shutil.copy(own_ca, tmp_path / "copy.pem")
        assert ask(address, WIRESUM_CA=str(own_ca))[0] == 0
        assert ask(address, WIRESUM_CA=str(copy))[0] == 0
        with serving(plaintext=False, environment=theirs) as tunnel:
            their_ca = str(tunnel.ready["ca"])
            no_token = "wiresum: the call has no token: give one with WIRESUM_TOKEN or --token-file"
            for ca in (
                their_ca,
                str(put(tmp_path / "both", own_ca.read_bytes(), Path(their_ca).read_bytes())),
            ):
                status, said = ask(tunnel.listen, WIRESUM_CA=ca)
                assert (status, said) == (1, f"{no_token}\n")
            status, said = ask(tunnel.listen)
            assert status == 1
            assert "its certificate is not trusted" in said
        # Without a CA of its own here, nothing vouches for anybody.
        own_ca.unlink()
        status, said = ask(address, WIRESUM_CA=str(copy))
        assert (status, said) == (1, f"{no_token}\n")


# ---- modes of files


@pytest.fixture(params=[0o000, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield int(request.param)
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()
    }


def test_secret_files_are_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    site = tmp_path / "site"
    with serving("--store", str(site / "s.sqlite"), plaintext=False, environment={}):
        found = modes(site)
    secret = {
        "s.sqlite", "s.sqlite-wal", "s.sqlite-shm", "s.sqlite.lock", "s.sqlite.admin-token",
        "ca.key", "server.key",
    }  # fmt: skip
    assert {name: found[name] for name in secret} == dict.fromkeys(secret, 0o600)
    assert set(found) == secret | {"ca.pem", "server.pem"}
    assert stat.S_IMODE(site.stat().st_mode) == 0o700
    token = str(site / "s.sqlite.admin-token")
    assert Path(token).read_text().startswith("wsa_")


def test_secret_files_that_others_may_read_are_closed_at_a_start(tmp_path: Path) -> None:
    site = tmp_path / "site"
    arguments = ("--store", str(site / "s.sqlite"))
    with serving(*arguments, plaintext=False, environment={}):
        pass  # killed: its journal stays
    names = ["s.sqlite", "s.sqlite-wal", "s.sqlite-shm", "s.sqlite.lock", "s.sqlite.admin-token"]
    secret = [*(site / name for name in names), site / "tls/ca.key", site / "tls/server.key"]
    for path in secret:
        path.chmod(0o644)
    with serving(*arguments, plaintext=False, environment={}) as child:
        assert {path: stat.S_IMODE(path.stat().st_mode) for path in secret} == dict.fromkeys(
            secret, 0o600
        )
        child.process.terminate()
        stderr = child.process.communicate(timeout=30)[1]
    for path in secret:
        assert f"{path} could be read by others (mode 0644): it is closed to them now" in stderr
    assert len(stderr.splitlines()) == len(secret)


def test_the_store_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SqliteStore().close()
    assert list(tmp_path.iterdir()) == []
