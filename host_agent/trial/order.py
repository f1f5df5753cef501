"""What `wiresum trial` tells its workers, and what they record for it. Knows nothing of torch."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "WIRESUM_TRIAL"
"""The order, as JSON."""

SEED = "WIRESUM_SEED"
"""The number of the seed, from 0, for scripts that want it."""

PROGRESS = "progress"
"""The file to which rank 0 adds a line of JSON for each step."""


@dataclass(frozen=True)
class Order:
    """How many steps to run, and where to record them."""

    folder: str
    steps: int
    warm: int
    """The first steps, which time and bytes leave out."""
    seed: int
    """Its number, from 0; 0 leaves the script's own seeds as they are."""

    def variables(self) -> dict[str, str]:
        """For the environment of the workers; :func:`read_order` reads them back."""
        return {VARIABLE: json.dumps(dataclasses.asdict(self)), SEED: str(self.seed)}


def read_order() -> Order:
    """The order in this process's environment."""
    return Order(**json.loads(os.environ[VARIABLE]))


@dataclass
class Record:
    """What one rank has done."""

    rank: int = 0
    world: int = 1
    steps: int = 0
    took_s: list[float] = dataclasses.field(default_factory=list)
    """Of each step after the first ones."""
    sent: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    """(Step, bytes that this rank has sent by its end), for some steps after the first ones."""
    losses: list[float] = dataclasses.field(default_factory=list)
    """As the script has reported them, in order."""
    carried: int = 0
    """Collectives that wiresum's own carriers have carried."""
    hooks: list[str] = dataclasses.field(default_factory=list)
    """Of each DDP model: the hook that it has got; empty where none was asked for."""

    @property
    def bytes_per_step(self) -> float | None:
        """Bytes sent per step, headers left out; None if it has not been counted twice."""
        if len(self.sent) < 2:
            return None
        (first, before), (last, after) = self.sent[0], self.sent[-1]
        return (after - before) / (last - first)

    def write(self, folder: Path) -> None:
        """Into a file of its own in ``folder``, whole or not at all."""
        path = folder / f"rank{self.rank}.json"
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(dataclasses.asdict(self)))
        new.replace(path)


def read_records(folder: Path) -> list[Record]:
    """The records of all ranks, in their order."""
    found: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in folder.glob("rank*.json")
    ]
    return sorted((Record(**each) for each in found), key=lambda record: record.rank)
