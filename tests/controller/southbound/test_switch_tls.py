"""P4Runtime with TLS: the embedded switch, the controller, and ``switch deploy``."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from controller_process import LIMIT_S, Serving, run_cli
from finsy.proto import p4r, p4r_grpc

from support.site_certificates import make, put
from support.switch_process import SwitchProcess
from wiresum.controller.client import add_switch_request
from wiresum.controller.v1 import controller_pb2 as pb


class Files:
    """An authority, what it signed for a switch and a controller, and another authority."""

    def __init__(self, folder: Path) -> None:
        authority, other = make("site", authority=True), make("other", authority=True)
        switch = make("switch", authority, hosts=("localhost",))
        controller = make("controller", authority, for_clients=True)
        stranger = make("stranger", other, for_clients=True)
        self.ca = put(folder / "ca.pem", authority.pem())
        self.other_ca = put(folder / "other.pem", other.pem())
        self.switch = put(folder / "switch.pem", switch.pem())
        self.switch_key = put(folder / "switch.key", switch.key_bytes())
        self.controller = put(folder / "controller.pem", controller.pem())
        self.controller_key = put(folder / "controller.key", controller.key_bytes())
        self.stranger = put(folder / "stranger.pem", stranger.pem())
        self.stranger_key = put(folder / "stranger.key", stranger.key_bytes())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("pki"))


@contextmanager
def switch(files: Files, *, mutual: bool) -> Iterator[str]:
    """Where a switch with TLS serves P4Runtime."""
    options = ["--p4runtime-tls-cert", str(files.switch)]
    options += ["--p4runtime-tls-key", str(files.switch_key)]
    options += ["--p4runtime-client-ca", str(files.ca)] if mutual else []
    port = ["--port", "1=udp:127.0.0.1:0"]
    with SwitchProcess("--p4runtime", "127.0.0.1:0", *port, *options) as process:
        assert process.p4runtime.startswith("https://127.0.0.1:")
        yield process.p4runtime.replace("127.0.0.1", "localhost")


def answers(address: str, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a client gets an answer."""
    target = address.removeprefix("https://")
    channel = (
        grpc.insecure_channel(target)
        if credentials is None
        else grpc.secure_channel(target, credentials)
    )
    error: grpc.RpcError
    with channel:
        try:
            stub = p4r_grpc.P4RuntimeStub(channel)
            stub.Capabilities(p4r.CapabilitiesRequest(), timeout=LIMIT_S)
        except grpc.RpcError as refused:
            error = refused
        else:
            return True
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    return False


def test_a_server_with_tls_refuses_plain_text(files: Files) -> None:
    with switch(files, mutual=False) as address:
        assert answers(address, grpc.ssl_channel_credentials(files.ca.read_bytes()))
        assert not answers(address, None)
        assert not answers(address, grpc.ssl_channel_credentials(files.other_ca.read_bytes()))


def test_a_server_with_a_client_ca_refuses_other_clients(files: Files) -> None:
    ca = files.ca.read_bytes()

    def shown(cert: Path, key: Path) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(ca, key.read_bytes(), cert.read_bytes())

    with switch(files, mutual=True) as address:
        assert answers(address, shown(files.controller, files.controller_key))
        assert not answers(address, shown(files.stranger, files.stranger_key))
        assert not answers(address, grpc.ssl_channel_credentials(ca))
        assert not answers(address, None)


def deploying(address: str, *options: str) -> tuple[int, str]:
    """``switch deploy`` to there: its status and what it said."""
    done = run_cli("switch", "deploy", "--lanes", "64", "--p4runtime", address, *options)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_deploy_speaks_tls_to_trusted_switches_only(files: Files) -> None:
    mine = ["--p4runtime-ca", str(files.ca)]
    shown = ["--p4runtime-cert", str(files.controller), "--p4runtime-key"]
    shown.append(str(files.controller_key))
    with switch(files, mutual=True) as address:
        status, said = deploying(address, "--p4runtime-ca", str(files.other_ca), *shown)
        assert status == 1
        assert "cannot be reached with TLS" in said
        status, said = deploying(address, *mine)
        assert status == 1
        assert "cannot be reached with TLS" in said
        status, said = deploying(address, *mine, *shown[:2])
        assert status == 2
        assert "give --p4runtime-cert and --p4runtime-key" in said
        status, said = deploying(address, *mine, *shown)
        assert (status, "pushed" in said) == (0, True), said


def test_a_controller_takes_over_a_switch_with_mutual_tls(files: Files) -> None:
    options = ["--p4runtime-ca", str(files.ca), "--p4runtime-cert", str(files.controller)]
    options += ["--p4runtime-key", str(files.controller_key), "--store", ":memory:"]
    with switch(files, mutual=True) as address:
        serving = Serving(*options)
        try:
            with serving.client() as client:
                request = add_switch_request(
                    "s1", p4runtime=address, ip="127.0.0.1", udp_port=5555,
                    hosts=[("127.0.0.0/8", 1)], lanes=64,
                )  # fmt: skip
                state = client.add_switch(request)
                deadline = time.monotonic() + LIMIT_S
                while state.state != pb.SWITCH_STATE_UP:
                    assert time.monotonic() < deadline, state.reason
                    time.sleep(0.05)
                    state = client.list_switches()[0]
                assert state.p4runtime == address
        finally:
            serving.end()


def test_files_that_cannot_be_used_are_named_at_the_start(files: Files, tmp_path: Path) -> None:
    done = run_cli("controller", "serve", "--plaintext", "--listen", "127.0.0.1:0", "--store",
                   ":memory:", "--p4runtime-ca", str(tmp_path / "nothing"))  # fmt: skip
    assert done.returncode != 0
    assert "--p4runtime-ca" in done.stderr
    assert "Traceback" not in done.stderr
