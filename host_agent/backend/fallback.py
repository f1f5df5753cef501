"""The process group that does what the switch cannot: gloo on CPU, nccl on CUDA.

gloo on CUDA, too, where torch has no nccl: it copies to the host by itself.
"""

import contextlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, ProcessGroup, ProcessGroupGloo, Store

from wiresum.host_agent.backend.connections import listening, opening

SAMPLE_S = 0.002  # a thread that waits for the GIL gets it within this, once it is free


def make_fallback(
    store: Store, rank: int, size: int, timeout: timedelta, prefix: str
) -> ProcessGroup:
    """A plain ``ProcessGroup`` over gloo (and nccl where there is CUDA); all ranks must call it.

    ``prefix`` separates its keys in ``store``: a gloo group must never be used by two threads at
    once, so whoever needs another thread makes another group.
    """
    store = PrefixStore(f"wiresum/{prefix}", store)
    group = ProcessGroup(store, rank, size)
    group._set_default_backend(ProcessGroup.BackendType.GLOO)
    gloo = _make_gloo(PrefixStore("gloo", store), rank, size, timeout)
    gloo._set_sequence_number_for_group()
    group._register_backend(torch.device("cpu"), ProcessGroup.BackendType.GLOO, gloo)
    if torch.cuda.is_available() and not dist.is_nccl_available():
        group._register_backend(torch.device("cuda"), ProcessGroup.BackendType.GLOO, gloo)
    elif torch.cuda.is_available():
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        nccl = dist.ProcessGroupNCCL(PrefixStore("nccl", store), rank, size, options)
        group._register_backend(torch.device("cuda"), ProcessGroup.BackendType.NCCL, nccl)
    return group


def _make_gloo(store: Store, rank: int, size: int, timeout: timedelta) -> ProcessGroupGloo:
    """As torch makes it, with devices whose ports are known: see ``connections``."""
    names = [name.strip() for name in os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")]
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = timeout
    devices, ports = [], []
    for name in filter(None, names):
        device, found = listening(lambda name=name: ProcessGroupGloo.create_device(interface=name))  # type: ignore[misc]
        devices.append(device)
        ports += found
    if not devices:
        device, ports = listening(ProcessGroupGloo.create_default_device)
        devices.append(device)
    options._devices = devices
    options._threads = 2 * len(devices)
    connections = opening()
    if connections is None:
        return ProcessGroupGloo(store, rank, size, options)
    store.set(f"ports/{rank}", json.dumps(ports if len(ports) == len(devices) else []))
    made = ProcessGroupGloo(store, rank, size, options)
    theirs = [json.loads(store.get(f"ports/{each}")) for each in range(size) if each != rank]
    if all(theirs):
        connections.ports(ports, [port for each in theirs for port in each])
    return made


def let_gloo_finish(limit_s: float = 2.0) -> None:
    """Wait until gloo's own threads sleep, so that a group may be freed, or the interpreter end.

    A gloo thread lets go of a collective's tensors shortly *after* ``wait()`` has returned, and
    takes the GIL for it. One that does so while the interpreter ends brings down the process with
    SIGABRT: a known fault of torch (pytorch#190489). One that does so while its group is freed
    waits for ever: torch 2.13 joins it with the GIL held.
    This sleeps with the GIL free until no such thread has run in between, or ``limit_s`` is over.
    """
    deadline = time.monotonic() + limit_s
    before = _gloo_threads()
    while before and time.monotonic() < deadline:
        time.sleep(SAMPLE_S)
        now = _gloo_threads()
        if now == before and all(state == "S" for state, _ in now.values()):
            return
        before = now


def _gloo_threads() -> dict[str, tuple[str, str]]:
    """State and number of voluntary context switches of each gloo thread, as Linux tells them."""
    threads = {}
    for path in Path("/proc/self/task").glob("*/status"):
        # The thread may have ended since; an unknown format of the file must not fail the script.
        with contextlib.suppress(OSError, ValueError, KeyError):
            fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
            if fields["Name"] == "pt_gloo_runloop":
                switches = fields["voluntary_ctxt_switches"]
                threads[path.parent.name] = (fields["State"][:1], switches)
    return threads
