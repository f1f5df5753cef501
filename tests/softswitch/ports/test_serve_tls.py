"""``switch serve``: unusable certificates, and the right to connect to a Unix socket."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.site_certificates import make, put
from support.switch_process import LIMIT_S, SwitchProcess


def refused(*options: str) -> str:
    """The line with which it refuses to start."""
    run = subprocess.run(
        [sys.executable, "-m", "wiresum.softswitch", "--p4runtime", "127.0.0.1:0", *options],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert run.returncode != 0
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    return lines[0]


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    own, other = make("switch"), make("other")
    cert = ["--p4runtime-tls-cert", str(put(tmp_path / "cert", own.pem()))]
    key = ["--p4runtime-tls-key", str(put(tmp_path / "key", own.key_bytes()))]
    wrong = ["--p4runtime-tls-key", str(put(tmp_path / "wrong", other.key_bytes()))]
    assert "give --p4runtime-tls-cert and --p4runtime-tls-key" in refused(*cert)
    assert "give --p4runtime-tls-cert" in refused("--p4runtime-client-ca", str(tmp_path / "cert"))
    assert "is not that of" in refused(*cert, *wrong)
    absent = str(tmp_path / "absent")
    assert "--p4runtime-client-ca" in refused(*cert, *key, "--p4runtime-client-ca", absent)
    assert "needs no certificates" in refused(
        *cert, *key, "--p4runtime", f"unix:{tmp_path / 'socket'}"
    )


@pytest.mark.parametrize(("mask", "mode"), [(0, 0o770), (0o022, 0o750), (0o077, 0o700)])
def test_others_cannot_connect_to_a_unix_socket(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with SwitchProcess("--p4runtime", f"unix:{tmp_path / 'socket'}"):
            assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == mode
    finally:
        os.umask(before)
