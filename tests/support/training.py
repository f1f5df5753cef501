"""The training script of the end-to-end tests, and how it is started."""

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO, Literal

from support import spawn
from support.processes import Commands, marked

SCRIPT = Path(__file__).resolve().parents[1] / "e2e" / "train.py"


def torchrun(workers: int, *options: str) -> list[str]:
    """The command that starts ``workers`` processes on this machine."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0",
        f"--nproc-per-node={workers}", *options,
    ]  # fmt: skip


def spawned(workers: int, until: Literal["first", "last"] = "first") -> list[str]:
    """The same without torchrun, and without importing torch again: see ``support/spawn.py``.

    ``until``: whether the first worker that fails ends the others, or all end by themselves.
    """
    return [sys.executable, "-S", spawn.__file__, _spawner(), str(workers), until]


def torchrun_of_forks(workers: int, *options: str) -> list[str]:
    """A torchrun whose workers do not import torch again: each is a command that has it forked."""
    return [*torchrun(workers, *options), "--no-python", *spawned(1)]


@cache
def _spawner() -> str:
    """Start the process that forks workers; the socket at which it is asked to."""
    folder = tempfile.mkdtemp(prefix="spawn")
    path = f"{folder}/socket"
    process = subprocess.Popen(
        [sys.executable, "-u", spawn.__file__, "serve", path], env=spawn.environment(), cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", "torch cannot be imported: see above"

    def end(pipe: IO[bytes] = process.stdin) -> None:
        pipe.close()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    return path


def rack(
    cli: Commands,
    loss: float = 0.0,
    seed: int = 1,
    lanes: int = 256,
    store: str = ":memory:",
    listen: str = "127.0.0.1:0",
    expiry_s: float = 30.0,
) -> str:
    """Start a switch and a controller that knows it; the controller's address.

    ``loss`` is the share of datagrams that the switch's port loses in each direction; a job expires
    after ``expiry_s`` of silence.
    """
    _, controller = cli.serve(
        "controller", "serve", "--listen", listen, "--store", store, "--plaintext",
        "--expiry", f"{expiry_s:g}",
    )  # fmt: skip
    reached = str(controller["address"])
    add_switch(cli, reached, "s1", loss=loss, seed=seed, lanes=lanes)
    return reached


def add_switch(
    cli: Commands, controller: str, name: str, loss: float = 0.0, seed: int = 1, lanes: int = 256
) -> None:
    """Start a switch that the controller shall know by that name."""
    port = "1=udp:127.0.0.1:0" + (f"?loss={loss}&seed={seed}" if loss else "")
    _, switch = cli.serve(
        "switch", "serve", "--lanes", str(lanes), "--p4runtime", "127.0.0.1:0", "--port", port
    )
    address = switch["ports"]["1"].removeprefix("udp:").partition("?")[0]
    done = cli.run(
        "switch", "add", name, "--p4runtime", switch["p4runtime"], "--address", address,
        "--host", "127.0.0.0/8=1", "--lanes", str(lanes), "--controller", controller,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def serving(cli: Commands, what: str) -> list[int]:
    """The pids of the servers (``switch serve``, ``controller serve``) that ``cli`` caused."""
    return [pid for pid, line in marked(cli.mark).items() if what in line]
