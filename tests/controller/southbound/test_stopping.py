"""A switch and its controller that end at the same time, as one Ctrl-C ends both: in silence."""

import signal
import subprocess
import sys
import time

import pytest
from controller_process import LIMIT_S, first_line, serving, switch_spec

from wiresum.controller.v1 import controller_pb2 as pb

_UP = pb.SWITCH_STATE_UP


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("order", ["switch first", "controller first"])
@pytest.mark.parametrize("when", ["in service", "while it is set up"])
def test_a_switch_and_its_controller_end_together_without_a_traceback(
    number: signal.Signals, order: str, when: str
) -> None:
    pytest.importorskip("wiresum.softswitch._softswitch")
    command = [sys.executable, "-m", "wiresum.softswitch", "--p4runtime", "127.0.0.1:0"]
    switch = subprocess.Popen(
        [*command, "--port", "1=udp:127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        spec = switch_spec(first_line(switch)["p4runtime"])
        with serving("--store", ":memory:", "--switch", spec) as controller:
            with controller.client() as client:
                deadline = time.monotonic() + 3 * LIMIT_S
                while when == "in service" and client.list_switches()[0].state != _UP:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            if when != "in service":
                time.sleep(0.5)
            both = [switch, controller.process]
            for process in both if order == "switch first" else reversed(both):
                process.send_signal(number)
            for process in both:
                _, stderr = process.communicate(timeout=LIMIT_S)
                assert process.returncode == 0
                assert "Traceback" not in stderr, stderr
                assert "CancelledError" not in stderr, stderr
    finally:
        switch.kill()
        switch.communicate()
