"""Finds BMv2 and p4c, and has them say themselves what is wrong with them."""

import shutil
import subprocess
from pathlib import Path

from wiresum.common.children import process
from wiresum.testbed import lines
from wiresum.testbed.children import Child
from wiresum.testbed.errors import RackError

BINARY = "simple_switch_grpc"
P4C = "p4c-bm2-ss"
DEVICE = 3
_LIMIT_S = 20.0
_LAST_WORDS = 300


class Bmv2Process(Child):
    """A running BMv2."""

    def telling(self, said: list[str]) -> str:
        """Built with Thrift, it names a port that is taken, and then gives advice."""
        return next((f"{s}: another program has it" for s in said if "bind to port" in s), said[-1])


def version(binary: str = BINARY) -> str:
    """What ``--version`` says. Raises :class:`RackError` with the program's own words."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise RackError(lines.VERSION_FAILED.of(binary=binary, why=error)) from error
    said = (done.stdout.split("\n"), done.stderr.split("\n"))
    out, errors = ([line.strip() for line in each if line.strip()] for each in said)
    if done.returncode != 0:
        words = (errors or out or ["it says nothing"])[-1][:_LAST_WORDS]
        why = f"{words} (exit status {process.exit_status(done.returncode)})"
        raise RackError(lines.VERSION_FAILED.of(binary=binary, why=why))
    return (out or errors or ["no version"])[-1][:_LAST_WORDS]


def why_not() -> str | None:
    """Why BMv2 cannot run here, in one line; None if nothing is known against it."""
    if shutil.which(BINARY) is None:
        return lines.NEEDS_BMV2.of(command=BINARY)
    try:
        version()
    except RackError as error:
        return error.args[0]  # type: ignore[no-any-return]  # with its code
    return None


def command(control: Path, data: Path) -> list[str]:
    """BMv2 without a program or interfaces, with P4Runtime and frames over two Unix sockets."""
    return [
        BINARY, "--no-p4", "--device-id", str(DEVICE), "--",
        "--grpc-server-addr", f"unix:{control}", "--dp-grpc-server-addr", f"unix:{data}",
    ]  # fmt: skip
