"""Starts the workers of a job on this host, as torchrun does, in a fraction of its CPU time.

For tests to which it does not matter who starts the workers. Importing torch takes seconds in each
process, so one process (:func:`serve`, one for each pytest process) imports it, and forks the
workers of all jobs. The command of a job, ``spawn.py SOCKET WORKERS first|last SCRIPT ARGUMENTS``,
asks that process for them and lasts as long as they do: if the command ends, or, with ``first``, if
a worker fails, the others are ended.

The workers have the command's environment (in ``/proc``, too), its folder, its network namespace
and its output, but they are not its children. A command of one rank of a job has what torchrun sets
in its environment (``RANK``, ``WORLD_SIZE``, …). Workers load wiresum themselves. What Python and
OpenMP read when they start is :func:`serve`'s own: see :func:`environment`.

This file imports nothing of the tests: it is a command.
"""

import contextlib
import ctypes
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import time
from pathlib import Path
from types import ModuleType

PATIENCE_S = 10.0
SPAWNED_BY = "SPAWNED_BY"
"""The variable of a worker that holds the pid of its job's command."""
WORKER = "SPAWN_WORKER"
"""The variable of a worker that none of the other processes of its job has."""
_PADDING = "SPAWN_PADDING"
_ROOM = 1 << 15  # bytes for the environment of a worker in /proc
_PR_SET_PDEATHSIG = 1
_NAMESPACES = ("mnt", "net")  # a network's /sys is in a namespace of mounts


def environment() -> dict[str, str]:
    """The environment in which :func:`serve` has to be started."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WIRESUM_")}
    mine = {"OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", _PADDING: "x" * _ROOM}
    return kept | mine


# ---- the process that forks


def serve(path: str) -> None:
    """Fork the workers of jobs until standard input, a pipe from the test's process, ends."""
    import torch._dynamo  # what importing torch leaves for DDP to import takes as long again
    import torch.distributed

    assert torch.distributed.is_available()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                os._exit(0)
            job, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                break
            job.close()
    run(job)


def run(job: socket.socket) -> None:
    """Run a job. Returns in its workers, once they have ended, and does not return otherwise."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with_parent()
    os.setsid()
    request, files, _, _ = socket.recv_fds(job, 1 << 20, 3 + len(_NAMESPACES))
    wanted = json.loads(request)
    for name, file in zip(_NAMESPACES, files[3:], strict=True):
        enter(name, file)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ |= wanted["environment"]
    alone = "RANK" in os.environ  # the other ranks are elsewhere
    if not alone:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(wanted["workers"]),
        }  # fmt: skip
    show_environment()
    pids = set()
    for rank in range(wanted["workers"]):
        pid = os.fork()
        if pid == 0:
            job.close()
            die_with_parent()
            if not alone:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            os.environ[WORKER] = "1"
            show_environment()
            return work(Path(wanted["script"]), wanted["arguments"])
        pids.add(pid)
    status = watch(pids, job, wanted["until"])
    with contextlib.suppress(OSError):
        job.send(bytes([status if alone else min(status, 1)]))  # torchrun's is 1
    os._exit(0)


def enter(kind: str, file: int) -> None:
    """Go into a namespace, unless this process is in it."""
    if os.fstat(file).st_ino != Path(f"/proc/self/ns/{kind}").stat().st_ino:
        c = ctypes.CDLL(None, use_errno=True)
        if c.setns(file, 0) != 0:
            raise OSError(ctypes.get_errno(), f"setns: {kind}")
    os.close(file)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def show_environment() -> None:
    """Let ``/proc/PID/environ`` show ``os.environ``, by which a test finds its processes.

    The kernel reads it where it was when the process started. The C library has copies by now.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    block = b"".join(name + b"=" + value + b"\0" for name, value in os.environb.items())
    assert len(block) <= end - start, "the environment is too large: give SPAWN_PADDING more room"
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, block, len(block))


def work(script: Path, arguments: list[str]) -> None:
    """Run the script as the main module, as ``python SCRIPT`` does."""
    import torch

    torch.distributed.set_debug_level_from_env()
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "0":
        torch._import_device_backends()  # what the end of ``import torch`` would have done
    main = ModuleType("__main__")
    main.__file__ = str(script)
    sys.modules["__main__"] = main
    sys.argv[:] = [str(script), *arguments]
    sys.path[0] = str(script.parent)
    exec(compile(script.read_bytes(), script, "exec"), main.__dict__)


def watch(living: set[int], job: socket.socket, until: str) -> int:
    """Until all workers have ended, the first has failed, or the job's command is gone.

    Returns the exit status of one that has failed, as a shell says it, or 0.
    """
    failed = 0
    try:
        while living and not (failed and until == "first"):
            if select.select([job], [], [], 0.02)[0]:
                break
            status = ended(living)
            failed = failed or status
        return failed
    finally:
        for pid in living:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        while living and time.monotonic() < deadline:
            ended(living)
            time.sleep(0.02)
        for pid in living:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def ended(living: set[int]) -> int:
    """Take out those that have ended; the exit status of one of them that has failed, or 0."""
    failed = 0
    for pid in list(living):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            living.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            failed = failed or (code if code >= 0 else 128 - code)
    return failed


# ---- the command of a job


def ask(path: str, workers: str, until: str, script: str, *arguments: str) -> int:
    """Have a job run; the exit status: 0, or 1 if a worker has failed: a single one's own."""
    request = {
        "workers": int(workers),
        "until": until,
        "script": str(Path(script).resolve()),
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": os.environ | {SPAWNED_BY: str(os.getpid())},
    }
    with socket.socket(socket.AF_UNIX) as job:
        job.connect(path)
        own = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in _NAMESPACES]
        socket.send_fds(job, [json.dumps(request).encode()], [0, 1, 2, *own])
        return (job.recv(1) or b"\1")[0]


def free_port() -> int:
    """A free TCP port of this host, below those that the kernel gives to whoever asks for any."""
    for port in random.SystemRandom().sample(range(10_000, 24_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(*sys.argv[1:]))
