"""What each rank says of itself beside its trace, and what follows from it for the whole job."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from wiresum.common.logs import one_line
from wiresum.measure.probe.links import Links, fitted
from wiresum.measure.reading import read_at_most
from wiresum.measure.traces.events import count_of
from wiresum.measure.traces.records import CPU

KIND = "wiresum observed"
SUFFIX = ".observed"
_MOST_S = 1e9
_LEAST_STEP_S = 1e-9


@dataclass(frozen=True)
class Took:
    """Seconds of a step, and seconds of CPU time of the thread that trains."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Observed:
    """One rank, or a process without a process group (``rank``: None).

    ``recorded`` of ``wanted`` steps are in its trace; the script took ``seen`` steps until its end
    or until nothing was left to see, which would have been ``needed``.
    """

    rank: int | None
    world_size: int
    local_size: int
    """How many ranks its host has."""
    host: str
    backend: str
    device: str
    wanted: int
    needed: int
    seen: int
    recorded: int
    plain: tuple[Took, ...]
    """Steps without the profiler."""
    profiled: tuple[Took, ...]
    links: Links
    """What it knows of the links between the hosts."""
    failed: str | None
    """Why the rank could not be observed to the end."""
    cores: int | None = None
    """On which it may run; None: it does not say."""


def read_all(folder: Path) -> list[Observed]:
    """What the ranks have left in a folder, in the order of ranks; damaged files are left out."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            if not path.is_file():
                continue
            document = json.loads(read_at_most(path))
            if document["kind"] == KIND:
                found.append(_observed(document))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return sorted(found, key=lambda each: (each.rank is None, each.rank or 0))


def _observed(document: dict[str, Any]) -> Observed:
    steps, times = document["steps"], document["step_s"]
    rank, failed = document.get("rank"), document.get("failed")
    return Observed(
        rank=None if rank is None else _count(rank),
        world_size=_count(document.get("world_size", 1)),
        local_size=_count(document.get("local_size", 1)),
        host=one_line(str(document.get("host", ""))),
        backend=one_line(str(document.get("backend", ""))),
        device=one_line(str(document.get("device", ""))),
        wanted=_count(steps["wanted"]),
        needed=_count(steps["needed"]),
        seen=_count(steps["seen"]),
        recorded=_count(steps["recorded"]),
        plain=_took([*times["before"], *times["after"]]),
        profiled=_took(times["recorded"]),
        links=fitted(document.get("links", []), one_line(str(document.get("links_note", "")))),
        failed=None if failed is None else one_line(str(failed)),
        cores=_count(document["cores"]) or None if "cores" in document else None,
    )


def _took(times: list[tuple[float, float]]) -> tuple[Took, ...]:
    return tuple(Took(_seconds(wall), _seconds(cpu)) for wall, cpu in times)


def _count(value: object) -> int:
    found = count_of(value)
    if found is None:
        raise ValueError(f"{value!r} is no count")
    return found


def _seconds(value: float) -> float:
    if not abs(value) <= _MOST_S:  # nor NaN
        raise ValueError(f"{value!r} is no time")
    return float(value)


def overhead(ranks: list[Observed]) -> float | None:
    """How much longer the profiler made a step, as a share of a step without it.

    By the medians of each rank; the median over the ranks. Where the CPU computes it is the CPU
    time of the thread that trains, in which the profiler works: other programs of the host hardly
    change that. Elsewhere it is the time of the step. Below zero where chance outweighs it, None if
    no rank has steps of both kinds.
    """
    shares = []
    for each in ranks:
        if each.plain and each.profiled:
            step = median(took.wall for took in each.plain)
            by_cpu = each.device == CPU
            with_it, without = (
                median(took.cpu if by_cpu else took.wall for took in times)
                for times in (each.profiled, each.plain)
            )
            shares += [(with_it - without) / step] if step >= _LEAST_STEP_S else []
    return median(shares) if shares else None


def links(ranks: list[Observed]) -> Links:
    """What the ranks know together."""
    pairs = {(p.sender, p.receiver): p for each in ranks for p in each.links.pairs}
    note = next((each.links.note for each in ranks if each.links.note), "")
    return Links(tuple(pairs[key] for key in sorted(pairs)), note)
