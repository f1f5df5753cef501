"""The switch of ``wiresum run``: nobody but its user can be in charge of it; it may be slow."""

import contextlib
import os
import stat
from pathlib import Path

import grpc
import pytest
from finsy.proto import p4r, p4r_grpc

from wiresum.common.children.child import SlowStart
from wiresum.host_agent.launcher.embedded import Embedded

LISTEN = "0A"  # in /proc/net/tcp
LIMIT_S = 60.0


def listening(pid: int) -> list[str]:
    """The TCP sockets on which a process listens, as /proc/net/tcp has them."""
    inodes: set[str] = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(str(fd.readlink()))
    found: list[str] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in inodes:
                found.append(fields[1])
    return found


def test_the_switch_of_a_run_listens_on_no_tcp_port() -> None:
    with Embedded() as embedded:
        switch, controller = embedded.children
        assert listening(switch.process.pid) == []
        assert len(listening(controller.process.pid)) == 1  # which asks for a token
        address = embedded.p4runtime
        path = Path(address.removeprefix("unix:"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.parent.stat().st_uid == os.geteuid()
        with grpc.insecure_channel(address) as channel:
            stub = p4r_grpc.P4RuntimeStub(channel)
            stub.Capabilities(p4r.CapabilitiesRequest(), timeout=LIMIT_S)
    assert not path.parent.exists()


def test_a_switch_that_starts_slowly_is_one_line_that_names_the_option() -> None:
    with pytest.raises(SlowStart) as caught:
        Embedded(0.05)
    assert str(caught.value).startswith("the embedded switch did not start within 0.05 s")
    assert "--timeout" in str(caught.value)
    assert "\n" not in str(caught.value)
