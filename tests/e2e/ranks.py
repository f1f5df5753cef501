"""One rank of a scenario in test_ranks_and_peers.py: ``ranks.py SCENARIO FOLDER``.

Writes ``FOLDER/RANK.json`` with the result of its last collective: the kind and line of its error,
or empty texts. Files ``FOLDER/RANK.NAME`` show its progress.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

LIMIT_S = 400.0
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

folder = Path(sys.argv[2])
rank = int(os.environ["RANK"])


def say(name: str) -> None:
    (folder / f"{rank}.{name}").touch()


def await_file(name: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not (folder / name).exists():
        assert time.monotonic() < deadline, f"{name} did not come"
        time.sleep(0.02)


def sums(count: int = 1000) -> None:
    ones = torch.ones(count)
    dist.all_reduce(ones)
    assert ones.eq(dist.get_world_size()).all()


def outcome(action: Callable[[], object]) -> None:
    """Do the last thing, and note how it ends."""
    kind = line = ""
    try:
        action()
    except Exception as error:
        kind, line = type(error).__name__, str(error)
    path = folder / f"{rank}.tmp"
    path.write_text(json.dumps({"kind": kind, "line": line}))
    path.rename(folder / f"{rank}.json")


def killed() -> None:
    for step in range(4):
        if rank == 1 and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        sums()


def leaves() -> None:
    for _ in range(4 if rank == 1 else 5):
        sums()


def leaves_while_others_compute() -> None:
    sums()
    if rank != 1:
        time.sleep(3.0)
        sums()


def ends_together() -> None:
    """Large sums at the end, in flight on the slower ranks when the faster ones leave."""
    for _ in range(3):
        sums(3_000_000)


def differs() -> None:
    sums()
    other = torch.int64 if rank == 1 else torch.float32
    dist.all_reduce(torch.ones(1000, dtype=other))


def another_collective() -> None:
    sums()
    if rank == 1:
        dist.barrier()
    else:
        sums()


def deaf(deaf: bool) -> None:
    """Let nothing in, or everything, at the sockets of this process that talk to the switch."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = Program(1, ctypes.addressof(drop_all))
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            sock = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
        with sock:
            if (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM):
                option = SO_ATTACH_FILTER if deaf else SO_DETACH_FILTER
                sock.setsockopt(socket.SOL_SOCKET, option, bytes(program))


def result_lost() -> None:
    """Of zeros only the exponents travel: one chunk each way, whose result rank 1 never gets."""
    sums()
    if rank == 1:
        deaf(True)
        work = dist.all_reduce(torch.zeros(10), async_op=True)
        await_file("restarted")
        deaf(False)
        work.wait()
        sums(10)
    else:
        dist.all_reduce(torch.zeros(10))
        say("has_it")
        await_file("restarted")
        sums(10)  # needs rank 1, which does not get so far


def has_all(lacking: int) -> None:
    """All ranks but ``lacking`` have all sums, and leave, when the switch dies."""
    sums()
    if rank == lacking:
        deaf(True)
        work = dist.all_reduce(torch.zeros(10), async_op=True)
        say("lacks")
        work.wait()
    else:
        dist.all_reduce(torch.zeros(10))
        say("has_all")


def rank_0_lacks_its_last_sum() -> None:
    has_all(0)


def rank_1_lacks_its_last_sum() -> None:
    has_all(1)


def steady() -> None:
    until = time.monotonic() + LIMIT_S
    flag = torch.zeros(1)
    while not flag.item() and time.monotonic() < until:
        sums()
        say("steps")
        flag = torch.tensor([float((folder / "stop").exists())])
        dist.all_reduce(flag)
        time.sleep(0.05)


def helper() -> None:
    """A helper makes a group of its own in the same environment while the training goes on."""
    sums()
    if rank == 0:
        script = (
            "import torch, torch.distributed as d; d.init_process_group('wiresum');"
            "x = torch.ones(3); d.all_reduce(x); assert x.tolist() == [1.0] * 3;"
            "d.destroy_process_group()"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": str(port)}
        subprocess.run([sys.executable, "-c", script], env=os.environ | own, check=True)
    dist.barrier()
    sums()


def again() -> None:
    """The world is destroyed and made anew."""
    for _ in range(3):
        sums()
        dist.destroy_process_group()
        make_world()
    sums()


worlds = iter(range(10))
size = int(os.environ["WORLD_SIZE"])


def make_world() -> None:
    """Each at the one store of all, under keys of its own."""
    own = dist.PrefixStore(f"world{next(worlds)}", store)
    dist.init_process_group("wiresum", store=own, rank=rank, world_size=size)


if __name__ == "__main__":
    # The scenario does not test torch's rendezvous: no rank is late for it, no port is used twice.
    store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), size, rank == 0)
    if sys.argv[1] == "late" and rank == 0:
        time.sleep(4.0)
    make_world()
    outcome(sums if sys.argv[1] == "late" else globals()[sys.argv[1]])
    if not json.loads((folder / f"{rank}.json").read_text())["kind"]:
        dist.destroy_process_group()
