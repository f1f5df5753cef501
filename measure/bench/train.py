"""``wiresum bench train``: trains across limited links with each method, to the same loss."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from wiresum.measure import lines
from wiresum.measure.bench.record import machine, need, write
from wiresum.measure.bench.train_methods import METHODS, Method
from wiresum.measure.bench.train_rack import START_S, Trainings
from wiresum.measure.bench.train_results import KIND, VERSION, page, reached
from wiresum.measure.reading import read_at_most
from wiresum.measure.remedies import PLAIN
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts

_END_S = 20.0


@dataclass(frozen=True)
class Options:
    """One run. ``limit_s``: how long a training may take; ``patience``: and how many times gloo's
    time, of the same round; ``steps``: and how many steps."""

    rates: tuple[float, ...]
    workers: tuple[int, ...]
    methods: tuple[Method, ...]
    rounds: int = 3
    target: float = 2.4
    limit_s: float = 60.0
    patience: float = 2.0
    steps: int = 1000
    name: str = "train"

    def settings(self) -> dict[str, Any]:
        """What all trainings of a file have in common."""
        kept = asdict(self)
        return {name: kept[name] for name in ("target", "limit_s", "patience", "steps")}

    def cells(self) -> Iterator[tuple[float, int, int, Method]]:
        """Rate, workers, seed and method of each training: of a round, gloo first."""
        for seed in range(self.rounds):
            for rate in self.rates:
                for workers in self.workers:
                    for method in self.methods:
                        yield rate, workers, seed, method


def bench(
    options: Options, json_file: Path | None, append: bool, table_only: bool
) -> dict[str, Any]:
    """Measure what the file has not; the content of the file. Raises ``WiresumError``."""
    head = {"kind": KIND, "version": VERSION, "machine": machine(), "options": options.settings()}
    content: dict[str, Any] = {**head, "runs": []}
    if json_file is not None and (table_only or (append and json_file.exists())):
        content = _kept(json_file)
        if not table_only and any(content[name] != head[name] for name in head):
            raise RackError(lines.OTHER_RUN.of(path=json_file))
    todo = [cell for cell in options.cells() if _found(content, *cell) is None]
    if table_only or not todo:
        return content
    if os.geteuid() != 0:
        raise RackError(lines.NEEDS_ROOT.of())
    need("numpy", "torch")
    say = Console(stderr=True, highlight=False).print
    trainer = "wiresum.measure.bench.train_worker"
    most, fastest = max(options.workers), max(options.rates)
    with Interrupts(), Trainings(options.name, most, fastest, trainer) as trainings:
        for rate, workers, seed, method in todo:
            run = _train(options, content, trainings, (rate, workers, seed, method), say)
            content["runs"].append(run)
            if json_file is not None:
                write(json_file, content)
    return content


def _kept(path: Path) -> dict[str, Any]:
    """What an earlier run has measured. Raises :class:`RackError`."""
    try:
        content: dict[str, Any] = json.loads(read_at_most(path))
        if content["kind"] != KIND or content["version"] != VERSION:
            raise ValueError(f"it is of kind {content['kind']!r}")
        page(content)  # fails where something is missing
    except OSError as error:
        raise RackError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise RackError(lines.NOT_A_RESULT.of(path=path, why=error)) from None
    return content


def _found(
    content: dict[str, Any], rate: float, workers: int, seed: int, method: Method
) -> dict[str, Any] | None:
    """The training of a cell, if there was one."""
    key = (rate, workers, seed, method.name)
    names = ("rate_mbit", "workers", "seed", "method")
    same = (each for each in content["runs"] if tuple(each[name] for name in names) == key)
    return next(same, None)


def _train(
    options: Options,
    content: dict[str, Any],
    trainings: Trainings,
    cell: tuple[float, int, int, Method],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """One training, an entry of the JSON; once more, if a rank fails or does not end in time."""
    rate, workers, seed, method = cell
    stop_s = options.limit_s
    plain = _found(content, rate, workers, seed, METHODS[PLAIN])
    if plain is not None:
        gloo_s = reached(plain["looks"], options.target)
        stop_s = min(stop_s, options.patience * (gloo_s or stop_s))
    order = {
        "method": method.name,
        "seed": seed,
        "target": options.target,
        "stop_s": stop_s,
        "steps": options.steps,
    }
    trainings.shape([rate] * workers)
    what = f"{rate:g} Mbit/s, {workers} workers, round {seed + 1}: {method.name}"
    answer: dict[str, Any] = {}
    for again in (False, True):
        if again:
            say(f"{what}: once more, since {answer['error']}")
        limit_s = START_S + 2 * stop_s + _END_S
        answer = trainings.run(order, workers, method.carrier, method.field, limit_s)
        if "error" not in answer and len({each["weights"] for each in answer["ranks"]}) > 1:
            answer = {"error": "the ranks have ended with different weights"}
        if "error" not in answer:
            break
    if "error" in answer:
        raise RackError(lines.PART_FAILED.of(part=f"a training ({what})", why=answer["error"]))
    first = answer["ranks"][0]
    took = reached(first["looks"], options.target)
    end = f"{took:.2f} s" if took else f"not reached, {first['looks'][-1][1]:.3f}"
    say(f"{what}: {end}, {first['steps']} steps")
    return {
        "rate_mbit": rate, "workers": workers, "seed": seed, "method": method.name,
        "steps": first["steps"], "looks": first["looks"], "weights": first["weights"],
        "sent": sum(each["sent"] for each in answer["ranks"]) / workers,
    }  # fmt: skip
