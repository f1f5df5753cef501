"""Switches that forward, as processes: BMv2 and the softswitch, over P4Runtime on a Unix socket."""

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from controller_process import LIMIT_S, first_line

Start = Callable[[Path], "subprocess.Popen[str]"]
"""Starts a switch that serves P4Runtime at ``unix:DIRECTORY/p4``."""

PARAMETERS = [pytest.param("bmv2", marks=pytest.mark.bmv2), pytest.param("softswitch", id="soft")]


def start_bmv2(directory: Path) -> "subprocess.Popen[str]":
    """BMv2 without ports: all that matters here is its P4Runtime server."""
    return subprocess.Popen(
        [
            *["simple_switch_grpc", "--no-p4", "--device-id", "0", "--"],
            *["--grpc-server-addr", f"unix:{directory}/p4"],
            *["--dp-grpc-server-addr", f"unix:{directory}/data"],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def start_softswitch(directory: Path) -> "subprocess.Popen[str]":
    """The softswitch without a program: the controller brings it."""
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "wiresum.softswitch", "--port", "1=udp:127.0.0.1:0"],
            *["--p4runtime", f"unix:{directory}/p4"],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first_line(process)
    except BaseException:
        end(process)
        raise
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    with contextlib.suppress(json.JSONDecodeError):
        process.communicate(timeout=LIMIT_S)


def starter(name: str) -> Start:
    """How to start the switch of that name; skips the test where it is not there."""
    if name == "bmv2":
        if shutil.which("simple_switch_grpc") is None:
            pytest.skip("simple_switch_grpc is not on PATH")
        return start_bmv2
    if importlib.util.find_spec("wiresum.softswitch._softswitch") is None:
        pytest.skip("the softswitch is not built")
    return start_softswitch
