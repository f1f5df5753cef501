"""The effect of every signal on servers, by the table and with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.torchruns import clean_environment
from wiresum.common.signals import TABLE, Kind

LIMIT_S = 120.0
WIRESUM = [sys.executable, "-P", "-m", "wiresum.cli.main"]
SERVERS = {
    "switch": ["switch", "serve", "--port", "1=udp:127.0.0.1:0", "--p4runtime", "127.0.0.1:0"],
    "controller": [
        *["controller", "serve", "--listen", "127.0.0.1:0", "--store", ":memory:", "--plaintext"],
    ],
}
HARMLESS = [n for n, rule in TABLE.items() if rule.kind in (Kind.NOTICE, Kind.NEWS)]
ENDING = [n for n, rule in TABLE.items() if rule.ends_server]


@contextmanager
def server(kind: str, folder: Path, before: str = "") -> "Iterator[subprocess.Popen[str]]":
    command = ["sh", "-c", f'{before} exec "$@"', "sh", *WIRESUM, *SERVERS[kind]]
    env = clean_environment() | {"TMPDIR": str(folder), "WIRESUM_ADMIN_TOKEN": "a" * 32}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            json.loads(process.stdout.readline())
            yield process
        finally:
            process.kill()


def handled(pid: int) -> set[int]:
    """The signals that wait to be handled by a process or its main thread."""
    text = Path(f"/proc/{pid}/status").read_text()
    masks = [line.split()[1] for line in text.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    pending = int(masks[0], 16) | int(masks[1], 16)
    return {n for n in TABLE if pending >> (n - 1) & 1}


@pytest.mark.parametrize("kind", SERVERS)
def test_servers_ignore_harmless_signals_and_end_cleanly_on_others(
    kind: str, tmp_path: Path
) -> None:
    for number in ENDING:
        with server(kind, tmp_path) as process:
            for harmless in HARMLESS:
                process.send_signal(harmless)
            deadline = time.monotonic() + LIMIT_S
            while handled(process.pid) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(number)
            _, err = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 0, (number, err)
            assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SERVERS)
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(kind: str, tmp_path: Path) -> None:
    with server(kind, tmp_path, before="trap '' HUP INT;") as process:
        for number in (signal.SIGHUP, signal.SIGINT):
            os.kill(process.pid, number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
