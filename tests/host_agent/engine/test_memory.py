"""What an engine keeps beside the tensor."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from group_rig import Group

from wiresum.host_agent.launcher.embedded import Embedded
from wiresum.p4 import program

MOST = 64 << 20
WORKERS = 2


def peak() -> int:
    """The most bytes that this process has had since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def forget_peak() -> None:
    """Start again from what the process has now, without memory that is free inside it."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize("kind", ["udp", "shm"])
@pytest.mark.parametrize("field", [32, 8])
def test_buffers_are_bounded_whatever_the_tensor(embedded: Embedded, kind: str, field: int) -> None:
    arrays = [np.ones(48 << 18, np.float32) for _ in range(WORKERS)]  # 48 MiB each
    forget_peak()
    before = peak()
    # The largest lease that there is: all slots of the switch.
    with Group(embedded, kind, WORKERS, field, slots=program(256).slots) as group:
        group.reduce(arrays)
        added = peak() - before
        assert all(engine.stats()["window"] > 0 for engine in group.engines)
    for each in arrays:
        np.testing.assert_array_equal(each, np.float32(WORKERS))
    assert 0 < added < WORKERS * MOST
