"""The testbed's parts that need neither root nor Mininet."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wiresum.p4 import UnknownProgram
from wiresum.testbed import find_mininet
from wiresum.testbed.errors import RackError, RackUsageError
from wiresum.testbed.options import RackOptions, check_name, parse_loss, parse_rate
from wiresum.testbed.processes import Mark, end, mark


@pytest.mark.parametrize(
    ("text", "mbit"),
    [("100mbit", 100.0), ("1gbit", 1000.0), ("2.5Gbit", 2500.0), ("500kbit", 0.5), ("", None)],
)
def test_rates(text: str, mbit: float | None) -> None:
    assert parse_rate(text) == mbit


@pytest.mark.parametrize(
    ("text", "loss"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("12.5%", 0.125), ("", 0.0)]
)
def test_losses(text: str, loss: float) -> None:
    assert parse_loss(text) == pytest.approx(loss)


@pytest.mark.parametrize("text", ["100", "mbit", "-1mbit", "1 mbit", "fast"])
def test_invalid_rates_are_refused(text: str) -> None:
    with pytest.raises(RackUsageError, match="--rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["100%", "1", "-1%", "x", "1%%"])
def test_invalid_losses_are_refused(text: str) -> None:
    with pytest.raises(RackUsageError, match="--loss"):
        parse_loss(text)


@pytest.mark.parametrize("name", ["", "-", "a/b", "..", "Rack", "x" * 25, "a-"])
def test_invalid_names_of_racks_are_refused(name: str) -> None:
    with pytest.raises(RackUsageError, match="--name"):
        check_name(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"switch": "tofino"}, "bmv2 or soft"),
        ({"workers": 0}, "1 to 64"),
        ({"workers": 65}, "1 to 64"),
        ({"rate_mbit": 1e6}, "100gbit"),
        ({"switch": "bmv2", "offloads": True}, "BMv2 cannot"),
        ({"loss": 0.1, "offloads": True}, "lose them whole"),
    ],
)
def test_unusable_options_are_refused(options: dict, words: str) -> None:
    with pytest.raises(RackUsageError, match=words):
        RackOptions(**options).check()


def test_a_number_of_lanes_without_a_program_is_refused() -> None:
    with pytest.raises(UnknownProgram, match="64 or 256"):
        RackOptions(lanes=63).check()


def test_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RackError, match="needs root"):
        find_mininet.bring_mininet()


def test_without_mininet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(find_mininet, "COMMANDS", ())
    monkeypatch.setattr(find_mininet, "SYSTEM_PACKAGES", tmp_path)
    monkeypatch.delitem(sys.modules, "mininet", raising=False)
    reason = find_mininet.why_not()
    assert reason is not None
    assert "apt install mininet" in reason
    assert "\n" not in reason


def test_without_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(find_mininet, "COMMANDS", ("no-such-command",))
    assert "no-such-command" in str(find_mininet.why_not())


def sleeper(*, stubborn: bool = False) -> "subprocess.Popen[str]":
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    script = f"import signal, time; {ignore} print('up', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_a_process_with_a_recycled_pid_is_left_alone() -> None:
    with sleeper() as process:
        now = mark(process.pid)
        assert now is not None
        before = Mark(now.pid, now.started - 1)  # of the process that had the pid before
        assert not before.alive()
        before.send(signal.SIGKILL)
        assert end([before]) == 0
        assert process.poll() is None
        assert end([now]) == 1
        assert process.wait() == -signal.SIGTERM
        assert not now.alive()


def test_a_stubborn_process_is_killed() -> None:
    with sleeper(stubborn=True) as process:
        now = mark(process.pid)
        assert now is not None
        assert end([now], limit_s=0.2) == 1
        assert process.wait() == -signal.SIGKILL
