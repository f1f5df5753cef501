"""The training script of the end-to-end tests, and how it is started."""

import sys
from pathlib import Path

from support.processes import Commands, marked

SCRIPT = Path(__file__).resolve().parents[1] / "e2e" / "train.py"


def torchrun(workers: int) -> list[str]:
    """The command that starts ``workers`` processes on this machine."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0",
        f"--nproc-per-node={workers}",
    ]  # fmt: skip


def spawned(workers: int) -> list[str]:
    """The same without torchrun, which takes a while to start: see ``support/spawn.py``."""
    return [sys.executable, str(Path(__file__).with_name("spawn.py")), str(workers)]


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
