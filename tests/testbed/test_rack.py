"""A rack that is up: its network and its frames; nothing is left of it afterwards."""

import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import Commands
from support.rack_process import LIMIT_S, Up, namespaces, wait_for
from wiresum.testbed.processes import mark

pytestmark = pytest.mark.root

MTU_FRAME = 1514

# Counts frames on the switch's side of worker 0's link, and their longest, until SIGTERM.
SNIFF = """
import json, signal, socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("s1-eth1", 3))
s.settimeout(0.1)
seen, longest, stop = 0, 0, []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
print("ready", flush=True)
while not stop:
    try:
        size = len(s.recv(1 << 17))
    except TimeoutError:
        continue
    seen, longest = seen + 1, max(longest, size)
print(json.dumps([seen, longest]))
"""

RECEIVE = """
import hashlib, socket, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
udp.bind(("10.0.0.2", 5000))
udp.settimeout(40)
tcp = socket.create_server(("10.0.0.2", 5001))
tcp.settimeout(40)
print("ready", flush=True)
c, _ = tcp.accept()
c.settimeout(40)
started, digest = time.monotonic(), hashlib.sha256()
while data := c.recv(1 << 16):
    digest.update(data)
print(digest.hexdigest(), time.monotonic() - started)
udp.settimeout(1)
try:
    print(sum(udp.recv(2000) == bytes(1000) for _ in range(40)))
except TimeoutError:
    print("too few")
"""

SEND = """
import random, socket, struct
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# 40 datagrams in one call: the kernel takes them as one frame for as long as it can.
udp.sendmsg([bytes(40_000)], [(17, 103, struct.pack("H", 1000))], 0, ("10.0.0.2", 5000))
with socket.create_connection(("10.0.0.2", 5001), 40) as c:
    c.sendall(random.Random(5).randbytes(1 << 20))
"""


def script(text: str) -> list[str]:
    return ["python3", "-c", textwrap.dedent(text)]


def begun(process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def test_a_rack(up: Callable[..., Up], kind: str, cli: Commands) -> None:
    rack = up("--switch", kind, "--workers", "2", "--rate", "20mbit")
    check_facts(rack, kind)
    check_network(rack)
    check_frames_and_rate(rack)
    check_one_rack_of_a_name(rack)
    rack.process.send_signal(signal.SIGINT)
    out, err = rack.process.communicate(timeout=LIMIT_S)
    assert rack.process.returncode == 0, err
    assert out == ""
    assert namespaces(rack.name) == []
    assert not Path(rack.facts["logs"]).exists()
    assert not cli.left_behind()
    done = cli.run("testbed", "exec", "--name", rack.name, "w0", "--", "true")
    assert done.returncode == 1
    assert "is not up" in done.stderr


def check_facts(rack: Up, kind: str) -> None:
    assert rack.facts["switch"] == kind
    assert rack.facts["workers"] == {"w0": "10.0.0.1", "w1": "10.0.0.2"}
    assert len(namespaces(rack.name)) == 3
    switch = rack.switch()  # asked from a worker, so through the forwarder
    assert (switch["state"], switch["lanes"]) == ("up", 64)
    env = rack.on("w1", "env").splitlines()
    assert "GLOO_SOCKET_IFNAME=w1-eth0" in env
    assert f"WIRESUM_CONTROLLER={rack.facts['controller']}" in env


def check_network(rack: Up) -> None:
    ping = ["ping", "-q", "-c", "3", "-i", "0.05", "-W", "20"]
    rack.on("w0", *ping, "10.0.0.2")
    rack.on("w1", *ping, "10.0.0.254")  # the switch program answers
    links = [line.split("@")[0] for line in rack.on("w0", "ip", "-br", "link").splitlines()]
    assert [name.split()[0] for name in links] == ["lo", "w0-eth0"]


def check_frames_and_rate(rack: Up) -> None:
    """Nothing longer than the MTU crosses, unharmed, and no faster than the rate."""
    sniffer = begun(rack.start("s1", *script(SNIFF)))
    receiver = begun(rack.start("w1", *script(RECEIVE)))
    rack.on("w0", *script(SEND))
    out, err = receiver.communicate(timeout=LIMIT_S)
    assert receiver.returncode == 0, err
    (digest, seconds), (datagrams,) = (line.split() for line in out.splitlines())
    expected = "".join(rack.on("w0", *script(DIGEST))).strip()
    assert digest == expected
    assert datagrams == "40"
    # A MiB at 20 Mbit/s takes 0.42 s, less what the sender may burst: an upper limit of speed.
    assert float(seconds) > 0.35
    sniffer.send_signal(signal.SIGTERM)
    out, err = sniffer.communicate(timeout=LIMIT_S)
    assert sniffer.returncode == 0, err
    seen, longest = json.loads(out)
    assert seen > (1 << 20) / 1448 + 40
    assert longest == MTU_FRAME


DIGEST = """
import hashlib, random
print(hashlib.sha256(random.Random(5).randbytes(1 << 20)).hexdigest())
"""


def check_one_rack_of_a_name(rack: Up) -> None:
    second = rack.cli.run("testbed", "up", "--name", rack.name, "--workers", "1")
    assert second.returncode == 1
    assert "is up" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    nowhere = rack.cli.run("testbed", "exec", "--name", rack.name, "w9", "--", "true")
    assert nowhere.returncode == 2
    assert "w0, w1, s1" in nowhere.stderr
    status = rack.cli.run("testbed", "exec", "--name", rack.name, "w0", "--", "sh", "-c", "exit 7")
    assert status.returncode == 7


@pytest.fixture
def bystanders() -> Any:
    """A namespace and a process that look like a rack's, but are in no record."""
    name = f"wiresum-other-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    process = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "600"])
    try:
        yield name, process
    finally:
        process.kill()
        process.wait()
        subprocess.run(["ip", "netns", "del", name], check=True)


def kill_reaper(name: str) -> None:
    """Kill the process that would remove the rack after the end of its own."""
    found = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and f"wiresum.testbed.reaper\0{name}\0".encode() in command_line(entry)
    ]
    (pid,) = found
    os.kill(int(pid), signal.SIGKILL)


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def used(up: Callable[..., Up]) -> tuple[Up, "subprocess.Popen[str]"]:
    """A rack, and a process of a user's in it that ends for SIGKILL only."""
    rack = up("--workers", "2")
    user = rack.start("w0", "sh", "-c", "trap '' TERM HUP; echo ready; sleep 600 & wait; wait")
    begun(user)
    return rack, user


@pytest.fixture
def removed(
    used: tuple[Up, "subprocess.Popen[str]"], cli: Commands, name: str, bystanders: Any
) -> Callable[[], None]:
    """Asserts that all of the rack is gone, and nothing else."""
    rack, user = used

    def check() -> None:
        assert namespaces(name) == []
        assert user.wait(LIMIT_S) == -signal.SIGKILL
        assert not Path(rack.facts["logs"]).exists()
        assert not cli.left_behind()
        other, process = bystanders
        assert process.poll() is None
        assert len(namespaces("other")) == 1, other
        again = cli.run("testbed", "down", "--name", name)
        assert (again.returncode, again.stdout) == (0, f"there is no rack {name}\n")

    return check


def test_a_rack_whose_process_is_killed_is_removed(
    used: tuple[Up, "subprocess.Popen[str]"], removed: Callable[[], None]
) -> None:
    rack, _ = used
    rack.process.kill()
    rack.process.wait()
    wait_for(lambda: not Path(rack.facts["logs"]).exists(), "the end of the rack")
    removed()


def test_down_after_a_crash(
    used: tuple[Up, "subprocess.Popen[str]"],
    removed: Callable[[], None],
    cli: Commands,
    name: str,
) -> None:
    rack, _ = used
    kill_reaper(name)
    rack.process.kill()
    rack.process.wait()
    assert len(namespaces(name)) == 3  # what a crash leaves
    done = cli.run("testbed", "down", "--name", name)
    assert done.returncode == 0, done.stderr
    assert "3 namespaces" in done.stdout
    removed()


def test_up_after_a_crash_and_down_while_up(up: Callable[..., Up], cli: Commands) -> None:
    first = up("--workers", "1")
    first.process.kill()
    first.process.wait()
    second = up("--workers", "1")
    assert second.switch()["state"] == "up"
    done = cli.run("testbed", "down", "--name", second.name)
    assert done.returncode == 0, done.stderr
    assert second.process.wait(LIMIT_S) == 0
    assert namespaces(second.name) == []


def test_a_rack_whose_controller_dies_goes_down(up: Callable[..., Up]) -> None:
    rack = up("--workers", "1")
    controller = mark(rack.record()["processes"]["controller"]["pid"])
    assert controller is not None
    controller.send(signal.SIGKILL)
    _, err = rack.process.communicate(timeout=LIMIT_S)
    assert rack.process.returncode == 1
    assert "the controller has ended" in err.splitlines()[-1]
    wait_for(lambda: namespaces(rack.name) == [], "the end of the rack")


def test_a_switch_that_ends_at_once_over_and_over(up: Callable[..., Up]) -> None:
    rack = up("--workers", "1")
    killed = set()
    while rack.process.poll() is None:
        try:
            switch = mark(rack.record()["processes"]["s1"]["pid"])
        except FileNotFoundError:
            break  # the rack is on its way down
        if switch is not None and switch not in killed:
            killed.add(switch)
            switch.send(signal.SIGKILL)
        time.sleep(0.01)
    _, err = rack.process.communicate(timeout=LIMIT_S)
    assert rack.process.returncode == 1
    assert "times in a row" in err.splitlines()[-1]
    assert err.count("started again") >= 2
