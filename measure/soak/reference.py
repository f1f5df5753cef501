"""The undisturbed training of a recipe: one lap on the loopback, summed by its ranks."""

import json
import subprocess
import time
from pathlib import Path

from wiresum.common.children import process
from wiresum.measure import lines
from wiresum.measure.soak.jobs import Size, environment_of_reference
from wiresum.measure.soak.judge import SoakFailed
from wiresum.measure.soak.schedule import Recipe

_LIMIT_S = 600.0
_LOOK_S = 0.1


def undisturbed(recipe: Recipe, size: Size, folder: Path, log: Path) -> tuple[str, ...]:
    """The digests of the steps of a lap. Raises :class:`SoakFailed` if the ranks differ."""
    folder.mkdir()
    command = [
        *process.module("wiresum.measure.soak.train"),
        *["--forks", str(recipe.workers), "--laps", "1"],
        *size.at_once().arguments(folder),
    ]
    with log.open("ab") as output:
        child = process.start(
            command,
            supervised=True,
            options=process.ProcessOptions(
                env=environment_of_reference(recipe.field),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ),
        )
        try:
            deadline = time.monotonic() + _LIMIT_S
            while child.poll() is None and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        finally:
            status = process.exit_status(process.end_supervised(child))
    workers, field = recipe.workers, recipe.field
    if status:
        raise SoakFailed(
            lines.SOAK_NO_REFERENCE.of(workers=workers, field=field, status=status, log=log)
        )
    ranks = [
        tuple(json.loads(line)["digest"] for line in path.read_text().splitlines())
        for path in sorted(folder.glob("steps.*"))
    ]
    if len(ranks) != recipe.workers or len(set(ranks)) != 1 or len(ranks[0]) != size.steps:
        raise SoakFailed(lines.SOAK_REFERENCE_DIFFERS.of(workers=workers, field=field, log=log))
    return ranks[0]
