"""The steady training of the end-to-end tests (``e2e/steady.py``) in the background."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import Commands
from support.training import spawned

STEADY = Path(__file__).resolve().parents[1] / "e2e" / "steady.py"
WORKERS = 3
LIMIT_S = 300.0


@dataclass
class Training:
    """A training in the background."""

    process: "subprocess.Popen[str]"
    out: Path

    def step(self) -> int:
        """Of the slowest rank; -1 before its first."""
        assert self.process.poll() is None, self.process.communicate()
        paths = [self.out / f"step.{rank}" for rank in range(WORKERS)]
        return min(int(path.read_text().split()[0]) if path.exists() else -1 for path in paths)

    def carriers(self) -> set[str]:
        """What sums, by the ranks' last steps."""
        assert self.process.poll() is None, self.process.communicate()
        return {(self.out / f"step.{rank}").read_text().split()[1] for rank in range(WORKERS)}

    def slow(self) -> None:
        """Have slow steps until :meth:`fast`, so that the training outlasts what is done to it."""
        (self.out / "slow").touch()

    def fast(self) -> None:
        """Have no slow steps any more."""
        (self.out / "slow").unlink(missing_ok=True)

    def until(self, carrier: str) -> None:
        """Wait until all ranks have this carrier. Steps are slow from now on."""
        self.slow()
        deadline = time.monotonic() + LIMIT_S
        while self.carriers() != {carrier}:
            assert time.monotonic() < deadline, f"not over {carrier} within {LIMIT_S:g} s"
            time.sleep(0.02)

    def reach(self, step: int) -> None:
        """Wait until all ranks have done that step."""
        deadline = time.monotonic() + LIMIT_S
        while self.step() < step:
            assert time.monotonic() < deadline, f"not at step {step} within {LIMIT_S:g} s"
            time.sleep(0.01)

    def end(self) -> tuple[list[dict[str, Any]], str]:
        """The ranks' reports, and what was said. Steps are slow no more."""
        self.fast()
        out, err = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, out + err
        reports = [
            json.loads((self.out / f"report.{rank}.json").read_text()) for rank in range(WORKERS)
        ]
        return reports, out + err


def train(
    cli: Commands,
    folder: Path,
    *options: str,
    script: tuple[str, ...],
    program: Path = STEADY,
    **env: str,
) -> Training:
    """Start one under ``wiresum run OPTIONS``; ``script`` are the options of the training."""
    out = folder / f"run{time.monotonic_ns()}"
    out.mkdir()
    command = [*spawned(WORKERS), str(program), "--out", str(out), *script]
    return Training(cli.start("run", *options, "--", *command, **env), out)


def train_plainly(cli: Commands, folder: Path, *script: str, **env: str) -> Training:
    """Start one without ``wiresum run``."""
    out = folder / f"run{time.monotonic_ns()}"
    out.mkdir()
    return Training(
        cli.popen([*spawned(WORKERS), str(STEADY), "--out", str(out), *script], **env), out
    )
