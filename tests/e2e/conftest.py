import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import background
from support.command_fixtures import cli
from support.processes import Commands
from support.training import SCRIPT, spawned

__all__ = ["cli", "start", "train"]


@pytest.fixture
def train(cli: Commands, tmp_path: Path) -> Callable[..., tuple[Any, list[dict[str, Any]]]]:
    """Runs the training script under ``wiresum run``; its outcome and each rank's report."""
    number = iter(range(1000))

    def run(
        *options: str,
        workers: int = 2,
        script: tuple[str, ...] = (),
        limit_s: float = 150,
        started_by: Callable[[int], list[str]] = spawned,
    ):
        out = tmp_path / f"out{next(number)}"
        out.mkdir()
        done = cli.run(
            "run", *options, "--", *started_by(workers), str(SCRIPT), "--out", str(out), *script,
            limit_s=limit_s,
        )  # fmt: skip
        reports = [json.loads(path.read_text()) for path in sorted(out.glob("report.*.json"))]
        return done, reports

    return run


@pytest.fixture
def start(cli: Commands, tmp_path: Path) -> Callable[..., background.Training]:
    """Starts steady trainings: options of ``wiresum run``, then of the script."""

    def started(*options: str, script: tuple[str, ...] = (), **env: str) -> background.Training:
        return background.train(cli, tmp_path, *options, script=script, **env)

    return started
