"""The command ``wiresum bench accuracy``."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.common.errors import WiresumError
from wiresum.measure import lines


class AccuracyError(WiresumError):
    """The training cannot be played: its one line says why."""


def accuracy(
    methods: Annotated[
        str,
        Option(
            metavar="NAMES",
            help="Methods to compare with float32, with semicolons between  [default: all]",
        ),
    ] = "",
    workers: Annotated[int, Option(min=2, max=64, help="Workers that are played.")] = 4,
    steps: Annotated[int, Option(min=1, help="Steps of each training.")] = 500,
    seeds: Annotated[int, Option(min=1, max=20, help="Trainings of each method.")] = 3,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the losses and bytes there.")
    ] = None,
) -> None:
    """The loss of a small training under each codec; n workers played by one process."""
    if importlib.util.find_spec("torch") is None:
        raise AccuracyError(lines.NEEDS_TORCH.of())
    import torch

    from wiresum.measure.accuracy import judge
    from wiresum.measure.accuracy.methods import METHODS, named
    from wiresum.measure.accuracy.play import play
    from wiresum.measure.demo.text import load

    try:
        chosen = named([each.strip() for each in methods.split(";") if each.strip()])
    except KeyError as error:
        known = "; ".join(METHODS)
        raise AccuracyError(lines.NO_METHOD.of(name=error.args[0], names=known)) from None
    torch.set_num_threads(1)
    corpus = load()
    losses: dict[str, list[float]] = {method.name: [] for method in chosen}
    sizes = {}
    for method in chosen:
        for seed in range(seeds):
            loss, sizes[method.name] = play(method, corpus, workers, steps, seed)
            losses[method.name].append(loss)
    content = {
        "kind": judge.KIND, "version": judge.VERSION, "workers": workers, "steps": steps,
        "seeds": list(range(seeds)), "losses": losses, "bytes": sizes,
    }  # fmt: skip
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise AccuracyError(lines.CANNOT_WRITE.of(path=json_file, why=error.strerror)) from None
    print(judge.markdown(content), end="")
