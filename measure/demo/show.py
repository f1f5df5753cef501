"""The demo's output: progress, table, JSON and plot."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from wiresum.common.errors import WiresumError
from wiresum.measure import lines
from wiresum.measure.demo.results import Training

_PLAIN_LINES = 5  # per training, where there is no terminal to draw on


class OutputError(WiresumError):
    """A file cannot be written."""


class Bars:
    """One progress bar per training, or a few plain lines where stdout is no terminal."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}

    def follow(self, name: str, file: Path) -> Callable[[], None]:
        """A function that shows how far the worker that writes ``file`` has come."""
        self._tasks[name] = self._bars.add_task(name, total=self._steps, loss="…")
        self._shown[name] = 0
        if not self._console.is_terminal:
            self._console.print(f"{name}: starting")

        def look() -> None:
            try:
                reports = file.read_text().splitlines()
                last = json.loads(reports[-1]) if reports else None
            except (OSError, ValueError):
                return  # not there yet, or in the middle of a line
            if last is not None:
                self._show(name, last["step"], last["loss"])

        return look

    def _show(self, name: str, step: int, loss: float) -> None:
        self._bars.update(self._tasks[name], completed=step, loss=f"{loss:.3f}")
        part = step * _PLAIN_LINES // self._steps
        if not self._console.is_terminal and part > self._shown[name]:
            self._shown[name] = part
            self._console.print(f"{name}: step {step} of {self._steps}, loss {loss:.3f}")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def table(gloo: Training, wiresum: Training, field: int) -> Table:
    """Both trainings side by side."""
    out = Table(title="The same training, over gloo and over the switch")
    out.add_column("", no_wrap=True)
    out.add_column("gloo", justify="right")
    out.add_column(f"wiresum, {field}-bit fields", justify="right")
    both = (gloo, wiresum)
    row = out.add_row
    row("train loss, mean of last tenth", *(f"{t.train_loss:.4f}" for t in both))
    row("validation loss", *(f"{t.validation_loss:.4f}" for t in both))
    row("same weights on all workers", *("yes" if t.same_weights else "NO" for t in both))
    row("seconds, start included", *(f"{t.seconds:.1f}" for t in both))
    out.add_section()
    row("wire bytes per worker and step", *(_size(t.wire_bytes) for t in both))
    row("  to and from the switch ¹", "–", _size(wiresum.switch_bytes))
    row("  between workers, over TCP ²", *(_size(t.tcp_bytes) for t in both))
    out.add_section()
    row("chunks summed by the switch ³", "–", f"{wiresum.events.get('completed', 0):,}")
    row("contributions in them ³", "–", f"{_taken(wiresum):,}")
    row("retransmissions", "–", f"{wiresum.total('retransmissions'):,}")
    row("all-reduces per worker, switch", "–", f"{sum(wiresum.switch_collectives.values()):,}")
    row("all-reduces per worker, gloo", "all", f"{_reduced_elsewhere(wiresum):,}")
    return out


NOTES = """\
Both trainings ran on this one machine, where gloo has no link to wait for, and the switch takes
a part of the workers' cores: here it is no faster, and may be slower. A switch saves bytes on
links, and time where links are the limit: docs/performance.md has the ratios.
The bytes are what each worker's link would have to carry, both directions together.
¹ sent + received, counted by the engine, Ethernet/IPv4/UDP headers included: what a link
  would carry; here the datagrams go through memory shared with the switch
² sent + received, from TCP_INFO of gloo's sockets, plus 66 bytes of headers
  for each 1448 bytes of payload (acknowledgements not counted)
³ the switch's own counters, read over P4Runtime"""
"""How each number of the table was obtained."""


def _taken(training: Training) -> int:
    return training.events.get("claimed", 0) + training.events.get("added", 0)


def _reduced_elsewhere(training: Training) -> int:
    return sum(
        sum(reasons.values())
        for name, reasons in training.fallback_collectives.items()
        if name.startswith("all_reduce")
    )


def _size(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.3f} MB"
    return f"{count / 1e3:.2f} kB" if count >= 1e3 else f"{count:.0f} B"


def as_json(
    gloo: Training, wiresum: Training, *, workers: int, steps: int, field: int, seed: int
) -> dict[str, Any]:
    """All numbers of the table, and more, as plain values."""
    trainings = {
        t.backend: {
            **dataclasses.asdict(t),
            "wire_bytes": t.wire_bytes,
            "chunks": t.chunks,
            "retransmissions": t.total("retransmissions"),
        }
        for t in (gloo, wiresum)
    }
    return {
        "workers": workers,
        "steps": steps,
        "field": field,
        "seed": seed,
        "bytes": "mean per worker and step, sent and received, headers included",
        **trainings,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content``. Raises :class:`OutputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise OutputError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None


def write_plot(path: Path, gloo: Training, wiresum: Training, field: int) -> None:
    """Both loss curves as PNG. Raises :class:`OutputError`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(range(1, len(gloo.losses) + 1), gloo.losses, label="gloo", linewidth=2.5, alpha=0.5)
    label = f"wiresum, {field}-bit fields"
    axes.plot(range(1, len(wiresum.losses) + 1), wiresum.losses, label=label, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss (nats per character)")
    axes.set_title("Same seeds, gradients summed by the workers and by the switch")
    axes.legend()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise OutputError(lines.CANNOT_WRITE.of(path=path, why=error.strerror)) from None
