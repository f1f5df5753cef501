"""A forked helper that ends as usual writes none of the buffers that its parent's threads hold."""

import subprocess
import sys

import pytest

_SCRIPT = """
import os, sys, threading
{make}
def hold(held):
    ready.set()
    done.wait()
ready, done = threading.Event(), threading.Event()
thread = threading.Thread(target=hold, args=(make(),))
thread.start()
ready.wait()
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print("the child is gone", file=sys.stderr, flush=True)
done.set()
thread.join()
"""

_OBJECTS = {
    "wiresum.host_agent._engine": (
        "import socket\n"
        "from wiresum.host_agent._engine import Engine, Lease, UdpSocket\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "sock.bind(('127.0.0.1', 0))\n"
        "def make():\n"
        "    return Engine(UdpSocket(fd=sock.fileno()), Lease(switch_ip='127.0.0.1', "
        "switch_udp_port=9, switch_name='s', rank=0, workers=2, job=1, epoch=1, key=1, "
        "reply_key=2, slots=64, lanes=64, field=32))"
    ),
    "wiresum.softswitch._softswitch": (
        "from wiresum.softswitch.ports import SwitchPorts, parse_port\n"
        "def make(): return SwitchPorts([parse_port('1=udp:127.0.0.1:0')], None)"
    ),
}


@pytest.mark.parametrize("module", _OBJECTS)
def test_a_forked_helper_ends_in_silence(module: str) -> None:
    pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(make=_OBJECTS[module])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Neither does the parent, whose objects are let go of.
    assert (done.returncode, done.stderr) == (0, "the child is gone\n")
