"""``wiresum switch serve``: its start, its refusals, and its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from echo_program import BACK, ECHO

from support.p4runtime import Client
from support.switch_process import SERVE, SwitchProcess
from wiresum import p4
from wiresum.common.errors import WiresumError
from wiresum.softswitch.ports import PortError, PortSpec, parse_port
from wiresum.softswitch.serve import ServeOptions
from wiresum.softswitch.serve import serve as serve_switch

LIMIT_S = 60
Serve = Callable[..., SwitchProcess]


def refused(*options: str) -> str:
    """The one line that a switch with these options ends with."""
    done = subprocess.run([*SERVE, *options], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


ANY = ("--p4runtime", "127.0.0.1:0")


def test_the_ready_line(serve: Serve) -> None:
    switch = serve("--port", "3=udp:127.0.0.1:0", "--device-id", "5")
    assert switch.facts["device_id"] == 5
    assert set(switch.facts) == {"p4runtime", "device_id", "ports"}
    host, port = switch.udp(3)
    assert (host, switch.facts["ports"].keys()) == ("127.0.0.1", {"3"})
    with Client(switch.p4runtime, 1, device_id=5) as client:
        assert client.standing()[0] == 0
        assert client.get_config().p4_device_config == ECHO.read_bytes()
        assert client.get_config().p4info.pkg_info.arch == "v1model"  # found next to the JSON
    assert port != 0


def test_nothing_more_on_stdout(serve: Serve) -> None:
    switch = serve()
    switch.process.terminate()
    assert switch.process.stdout is not None
    assert switch.process.stdout.read() == ""
    assert switch.process.wait(LIMIT_S) == 0


def test_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'p4rt.sock'}"
    switch = serve("--p4runtime", address)
    assert switch.p4runtime == address
    with Client(address, 1) as client:
        assert client.standing()[0] == 0
    assert "in use" in refused("--p4runtime", address)
    switch.process.kill()
    switch.process.wait()
    # A socket without a listener is replaced.
    again = serve("--p4runtime", address)
    with Client(again.p4runtime, 1) as client:
        assert client.standing()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_at_once(serve: Serve, number: signal.Signals) -> None:
    switch = serve("--port", "1=udp:127.0.0.1:0")
    with Client(switch.p4runtime, 1) as client:
        assert client.standing()[0] == 0  # an open stream must not hold it up
        switch.process.send_signal(number)
        assert switch.process.wait(LIMIT_S) == 0


def test_it_ends_while_it_compiles(tmp_path: Path) -> None:
    """The program is not in the cache, and compiling it takes a while."""
    command = [*SERVE, *ANY, "--program", str(ECHO)]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        limit = time.monotonic() + LIMIT_S
        while not list(tmp_path.glob("wiresum/programs/*.tmp")):
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait(LIMIT_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""
    compilers = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _mentions(p, str(tmp_path))]
    assert compilers == []


def _mentions(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


def test_it_ends_with_its_parent() -> None:
    """The parent starts it from a thread that ends, and is then killed."""
    script = f"""
import subprocess, sys, threading, time
def start():
    global child
    child = subprocess.Popen({[*SERVE, *ANY, "--exit-with-parent"]!r}, stdout=subprocess.PIPE)
thread = threading.Thread(target=start)
thread.start(); thread.join()
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        assert signal.pidfd_send_signal(handle, 0) is None  # it lives on after the thread's end
        parent.kill()
        limit = time.monotonic() + LIMIT_S
        while Path(f"/proc/{child}/stat").exists():
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                break
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.close(handle)


def test_ports_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        line = refused(*ANY, "--port", f"1=udp:127.0.0.1:{port}")
        assert f"port 1 (udp:127.0.0.1:{port})" in line
        assert "in use" in line
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refused("--p4runtime", f"127.0.0.1:{port}")
        assert f"127.0.0.1:{port}" in line
        assert "in use" in line


async def refusal(p4runtime: str = "127.0.0.1:0", **options: Any) -> str:
    """The error line of a switch with these options, in this process."""
    ports = [parse_port(text) for text in options.pop("ports", [])]
    with pytest.raises(WiresumError) as refused:
        await serve_switch(
            ServeOptions(p4runtime=p4runtime, ports=ports, **options), lambda _: None
        )
    (line,) = str(refused.value).splitlines()
    return line


async def test_unusable_addresses_and_files_are_refused(tmp_path: Path) -> None:
    udp = "udp:127.0.0.1:0"
    assert "not one of this machine's" in await refusal(ports=["1=udp:192.0.2.1:0"])
    assert "given twice" in await refusal(ports=[f"1={udp}", f"1={udp}"])
    assert "given twice" in await refusal(ports=[f"9={udp}"], cpu_port=9)
    assert "CPU port 511" in await refusal(cpu_port=511)
    assert "HOST:PORT" in await refusal("somewhere")
    assert "192.0.2.1:0" in await refusal("192.0.2.1:0")
    assert "not a directory" in await refusal("unix:/no/such/place")
    taken = tmp_path / "file"
    taken.write_text("precious")
    assert "in use" in await refusal(f"unix:{taken}")
    assert taken.read_text() == "precious"
    missing = tmp_path / "missing.json"
    assert str(missing) in await refusal(program=missing)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert str(broken) in await refusal(program=broken)
    assert "not a P4Info" in await refusal(program=ECHO, p4info=broken)
    other = p4.program(64).p4info
    assert "the program has not" in await refusal(program=ECHO, p4info=other)


@pytest.mark.parametrize(
    "options",
    [("--lanes", "64", "--program", "x.json"), ("--p4info", "x.txtpb"), ("--lanes", "7")],
    ids=" ".join,
)
def test_bad_options(options: tuple[str, ...]) -> None:
    assert options[0].strip("-") in refused(*options)


def test_port_specs() -> None:
    assert parse_port("1=udp:127.0.0.1:5000") == PortSpec(1, "udp", "127.0.0.1", 5000)
    assert parse_port("0=udp:localhost:0").host == "127.0.0.1"
    assert parse_port("510=raw:eth1?loss=0.5") == PortSpec(510, "raw", "eth1", 0, 0.5)
    full = PortSpec(2, "udp", "0.0.0.0", 0, 0.01, 7)
    assert parse_port("2=udp:0.0.0.0:0?loss=0.01&seed=7") == full


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "=udp:127.0.0.1:0", "x=udp:127.0.0.1:0", "511=udp:127.0.0.1:0", "-1=raw:eth0",
        "1=udp", "1=udp:127.0.0.1", "1=udp:127.0.0.1:70000", "1=udp:nowhere:1", "1=udp:[::1]:1",
        "1=tcp:127.0.0.1:1", "1=raw:", "1=raw:a/b", "1=raw:averyveryverylongname",
        "1=udp:127.0.0.1:0?loss=2", "1=udp:127.0.0.1:0?loss=nan", "1=udp:127.0.0.1:0?loss=x",
        "1=udp:127.0.0.1:0?loss=-0.1", "1=udp:127.0.0.1:0?seed=1.5", "1=udp:127.0.0.1:0?seed=-1",
        "1=udp:127.0.0.1:0?delay=3", "1=udp:127.0.0.1:0?loss", "١=udp:127.0.0.1:0",
    ],
)  # fmt: skip
def test_bad_port_specs(text: str) -> None:
    with pytest.raises(PortError) as refusal:
        parse_port(text)
    assert "\n" not in str(refusal.value)


def test_a_program_of_the_users_own(serve: Serve) -> None:
    """echo.p4 was compiled on the fly; its datagrams come back."""
    switch = serve("--port", "1=udp:127.0.0.1:0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(LIMIT_S)
        peer.sendto(bytes([BACK, 5]), switch.udp(1))
        assert peer.recv(100) == bytes([BACK, 5])
    assert json.loads(ECHO.read_bytes())["program"].endswith("echo.p4")
