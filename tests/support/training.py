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
    cli: Commands, loss: float = 0.0, seed: int = 1, lanes: int = 256, store: str = ":memory:"
) -> str:
    """Start a switch and a controller that knows it; the controller's address.

    ``loss`` is the share of datagrams that the switch's port loses in each direction.
    """
    port = "1=udp:127.0.0.1:0" + (f"?loss={loss}&seed={seed}" if loss else "")
    _, switch = cli.serve(
        "switch", "serve", "--lanes", str(lanes), "--p4runtime", "127.0.0.1:0", "--port", port
    )
    _, controller = cli.serve(
        "controller", "serve", "--listen", "127.0.0.1:0", "--store", store, "--plaintext"
    )
    address = switch["ports"]["1"].removeprefix("udp:").partition("?")[0]
    reached = str(controller["address"])
    done = cli.run(
        "switch", "add", "s1", "--p4runtime", switch["p4runtime"], "--address", address,
        "--host", "127.0.0.0/8=1", "--lanes", str(lanes), "--controller", reached,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return reached


def serving(cli: Commands, what: str) -> list[int]:
    """The pids of the servers (``switch serve``, ``controller serve``) that ``cli`` caused."""
    return [pid for pid, line in marked(cli.mark).items() if what in line]
