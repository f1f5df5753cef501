"""The plot of a benchmark report: gloo's time by wiresum's over the size, for each link and n."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wiresum.measure import lines
from wiresum.measure.bench.cases import UDP, Side, rate_text, size_text
from wiresum.measure.bench.results import Line
from wiresum.measure.report.load import Measured
from wiresum.testbed.errors import RackError

_COLOURS = {32: "#1b6ca8", 16: "#3b8f4e", 8: "#c4572d"}
_METADATA = {"Software": None}  # the same numbers give the same file


def plot(measured: Measured, path: Path) -> None:
    """Draw it. Raises :class:`RackError`, also where there is no matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise RackError(lines.PLOT_NEEDS_MATPLOTLIB.of()) from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cases = [found for found in measured.allreduce if found[0].case.loss is None]
    rates = list(dict.fromkeys(found[0].case.rate_mbit for found in cases))
    counts = sorted({found[0].case.workers for found in cases})
    if not cases:
        raise RackError(lines.NOTHING_TO_PLOT.of())
    figure, axes = plt.subplots(
        len(rates),
        len(counts),
        figsize=(3.2 * len(counts) + 0.6, 2.6 * len(rates) + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, rate in enumerate(rates):
        for column, count in enumerate(counts):
            axis = axes[row][column]
            chosen = [
                found
                for found in cases
                if found[0].case.rate_mbit == rate and found[0].case.workers == count
            ]
            _panel(axis, chosen)
            axis.set_title(f"{rate_text(rate)}, {count} workers", fontsize=9)
    for row_of in axes:
        row_of[0].set_ylabel("gloo's time / wiresum's")
    shown = [axis.get_legend_handles_labels() for row_of in axes for axis in row_of]
    legend = {
        label: handle
        for handles, labels in shown
        for handle, label in zip(handles, labels, strict=True)
    }
    figure.legend(legend.values(), legend.keys(), loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata=_METADATA if path.suffix == ".png" else None)
    except (OSError, ValueError) as error:
        raise RackError(lines.CANNOT_WRITE.of(path=path, why=error)) from None
    finally:
        plt.close(figure)


def _panel(axis: Any, cases: Sequence[Sequence[Line]]) -> None:
    sides = {line.side for found in cases for line in found if line.side.field is not None}
    for side in sorted(sides, key=Side.order):
        points = [
            (line.case.size / (1 << 20), line.ratio)
            for found in cases
            for line in found
            if line.side == side and line.ratio is not None
        ]
        if not points:
            continue
        sizes = [size for size, _ in points]
        middle = [ratio.median for _, ratio in points]
        below = [max(0.0, ratio.median - ratio.low) for _, ratio in points]
        above = [max(0.0, ratio.high - ratio.median) for _, ratio in points]
        axis.errorbar(
            sizes, middle, yerr=(below, above), marker="o", markersize=3, capsize=2, linewidth=1.2,
            color=_COLOURS.get(side.field or 0), label=str(side),
            linestyle="-" if side.transport == UDP else ":",
        )  # fmt: skip
    axis.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
    axis.set_xscale("log", base=4)
    axis.set_yscale("log", base=2)
    ticks = sorted({found[0].case.size for found in cases})
    axis.set_xticks([size / (1 << 20) for size in ticks], [size_text(size) for size in ticks])
    axis.tick_params(axis="x", labelsize=7, labelrotation=30)
    axis.minorticks_off()
    axis.yaxis.set_major_formatter("{x:g}")
    axis.grid(visible=True, linewidth=0.3)
