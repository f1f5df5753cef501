"""The command ``wiresum bench report``."""

from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Argument, Option


def report(
    files: Annotated[list[Path], Argument(help="Files that the benchmarks wrote with --json.")],
    markdown: Annotated[
        Path | None,
        Option(metavar="FILE", help="A page: its tables are put between two marks in it."),
    ] = None,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="A picture of the ratios (.png, .svg).")
    ] = None,
) -> None:
    """Tables and a plot from the benchmarks' JSON; without options, the tables on stdout."""
    from wiresum.measure.bench.record import need

    need("numpy")
    from wiresum.measure.page import put
    from wiresum.measure.report import markdown as text
    from wiresum.measure.report.load import load

    measured = load(files)
    made = text.page(measured)
    if markdown is not None:
        put(markdown, made, "Performance", text.BEGIN)
    if plot is not None:
        from wiresum.measure.report.plot import plot as draw

        draw(measured, plot)
    if markdown is None and plot is None:
        print(made)
