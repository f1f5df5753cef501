"""What a soak must not leave behind: jobs, slots, processes, shared memory, namespaces."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from wiresum.measure import lines
from wiresum.measure.soak.judge import SoakFailed
from wiresum.testbed.namespaces import FOLDER, inhabitants
from wiresum.testbed.processes import mark
from wiresum.testbed.rack import Rack

LIMIT_S = 20.0
_LOOK_S = 0.2

MARK = "WIRESUM_SOAK"
"""In the environment of all processes of a soak, with a name of its own: they are found by it."""


def none_left(find: Callable[[], list[str]], limit_s: float = LIMIT_S) -> None:
    """Wait until ``find`` finds nothing. Raises :class:`SoakFailed` with what it finds at last."""
    deadline = time.monotonic() + limit_s
    while found := find():
        if time.monotonic() > deadline:
            raise SoakFailed(lines.SOAK_LEAVES.of(what=", ".join(found), limit_s=limit_s))
        time.sleep(_LOOK_S)


def in_rack(rack: Rack) -> list[str]:
    """What is left of jobs in a rack that has none any more."""
    found = [f"job {job.name}" for job in rack.client.list_jobs(live_only=True)]
    switch = rack.state()
    if switch.free_slots != switch.slots:
        found.append(f"{switch.slots - switch.free_slots} slots")
    shells = rack.shells()
    for worker in rack.workers:
        for each in inhabitants(rack.record.nodes[worker].namespace):
            if each.pid not in shells:
                found.append(f"process {each.pid} ({_command(each.pid)}) on {worker}")
    segments = shared_memory(rack.switch_mark.pid)
    if segments:
        found.append(f"{segments} segments of shared memory in the switch")
    return found


def shared_memory(pid: int) -> int:
    """How many segments that workers and a switch share process ``pid`` maps."""
    try:
        return Path(f"/proc/{pid}/maps").read_text().count("memfd:wiresum-shm")
    except OSError:
        return 0


def after(rack: str, name: str) -> list[str]:
    """What is left of a rack that is down, and of the soak ``name``."""
    spaces = sorted(path.name for path in FOLDER.glob(f"wiresum-{rack}-*"))
    found = [f"namespace {space}" for space in spaces]
    wanted = f"{MARK}={name}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            ours = wanted in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is another user's
        if ours and mark(int(entry.name)) is not None:
            found.append(f"process {entry.name} ({_command(int(entry.name))})")
    return found


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "ended"
    return " ".join(word.decode(errors="replace") for word in words[:6])
