"""Runs small jobs for the host agent's tests, and ends them whatever happens."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.training import spawned
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.session import Session

LIMIT_S = 100.0


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``output`` is its stdout and stderr together."""

    status: int
    output: str


def clean_environment() -> dict[str, str]:
    """This process's environment without any of wiresum's variables; one thread per worker."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_")}
    env.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    return env | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def finish(command: list[str], env: Mapping[str, str], limit_s: float = LIMIT_S) -> Ended:
    """Run a command to its end; kills it, and fails, if it takes longer than ``limit_s``."""
    process = subprocess.Popen(
        command,
        env={**env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        raise AssertionError(f"{command} did not end within {limit_s:g} s:\n{output}") from None
    return Ended(process.returncode, output)


def spawn(script: Path, *arguments: str, workers: int, env: Mapping[str, str]) -> Ended:
    """Run a script in ``workers`` processes to its end: see ``support/spawn.py``."""
    return finish([*spawned(workers), str(script), *arguments], env)


@contextlib.contextmanager
def fresh_session(**options: Any) -> Iterator[Session]:
    """A job on an embedded switch and controller, for any number of torchruns in a row."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("WIRESUM_"):
                patch.delenv(name)
        patch.setenv("OMP_NUM_THREADS", "1")
        with Session(JobOptions(name="test", **options)) as session:
            yield session
