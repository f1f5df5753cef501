"""The command ``wiresum bench accuracy``."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

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
    task: Annotated[
        str, Option(metavar="text|glyphs", help="What is learned: text, or letters as images.")
    ] = "text",
    workers: Annotated[int, Option(min=2, max=64, help="Workers that are played.")] = 4,
    steps: Annotated[
        int | None,
        Option(min=1, help="Steps of each training  [default: text 3500, glyphs 2500]"),
    ] = None,
    seeds: Annotated[int, Option(min=1, max=20, help="Trainings of each method.")] = 3,
    json_file: Annotated[
        Path | None,
        Option(
            "--json",
            metavar="FILE",
            help="Write the losses and bytes there after each training. What it has is kept.",
        ),
    ] = None,
) -> None:
    """The loss of a small training under each codec; n workers played by one process."""
    if importlib.util.find_spec("torch") is None:
        raise AccuracyError(lines.NEEDS_TORCH.of())
    import torch

    from wiresum.measure.accuracy import judge
    from wiresum.measure.accuracy.methods import METHODS, encoding_rate, named
    from wiresum.measure.accuracy.play import play
    from wiresum.measure.accuracy.tasks import TASKS

    try:
        chosen = named([each.strip() for each in methods.split(";") if each.strip()])
    except KeyError as error:
        known = "; ".join(METHODS)
        raise AccuracyError(lines.NO_METHOD.of(name=error.args[0], names=known)) from None
    if task not in TASKS:
        raise AccuracyError(lines.NO_TASK.of(name=task, names=", ".join(TASKS)))
    if task == "glyphs" and importlib.util.find_spec("matplotlib") is None:
        raise AccuracyError(lines.GLYPHS_NEED_MATPLOTLIB.of())
    torch.set_num_threads(1)
    made = TASKS[task]()
    steps = steps or made.steps
    training: dict[str, Any] = {
        "kind": judge.KIND, "version": judge.VERSION, "task": task, "workers": workers,
        "steps": steps,
    }  # fmt: skip
    content = kept(json_file, training) or training | {"losses": {}, "bytes": {}, "encoding": {}}
    content["seeds"] = list(range(seeds))
    for method in chosen:
        losses = content["losses"].setdefault(method.name, [])
        del losses[seeds:]
        if method.name not in content["encoding"]:
            content["encoding"][method.name] = encoding_rate(method, workers)
        while len(losses) < seeds:
            played = play(method, made, workers, steps, len(losses))
            losses.append(played.loss)
            content["bytes"][method.name] = played.bytes_per_step
            _write(json_file, content)
    _write(json_file, content)
    print(judge.markdown(judge.only(content, [each.name for each in chosen])), end="")


def kept(path: Path | None, training: dict[str, Any]) -> dict[str, Any] | None:
    """What the file has of this training already. Raises :class:`AccuracyError`."""
    if path is None or not path.exists():
        return None
    from wiresum.measure.accuracy import judge

    try:
        found = judge.checked(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise AccuracyError(lines.CANNOT_READ.of(path=path, why=error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise AccuracyError(lines.NOT_ITS_FILE.of(path=path, why=_short(error))) from None
    if any(found[key] != value for key, value in training.items()):
        raise AccuracyError(lines.ANOTHER_TRAINING.of(path=path))
    return found


def _short(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split())[:200] or "it cannot be read"


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise AccuracyError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None
