"""The all-reduce benchmark's table on a terminal."""

from collections.abc import Sequence

from rich.table import Table

from wiresum.measure.bench.cases import size_text
from wiresum.measure.bench.results import Line, Spread

HEADINGS = (
    "links", "n", "size", "side", "ms", "lowest–highest", "gloo / it", "lowest–highest",
    "MB sent", "MB rec'd", "CPU ms worker", "switch", "all", "resent", "limit ms", "reached",
)  # fmt: skip


def cells(line: Line) -> list[str]:
    """One line of the table, as text."""
    case = line.case
    return [
        case.links,
        str(case.workers),
        size_text(case.size),
        str(line.side),
        _ms(line.seconds.median),
        _span(line.seconds),
        "" if line.ratio is None else f"{line.ratio.median:.2f}",
        "" if line.ratio is None else f"{line.ratio.low:.2f}–{line.ratio.high:.2f}",
        f"{line.sent / 1e6:.3f}",
        f"{line.received / 1e6:.3f}",
        _ms(line.cpu_worker),
        _ms(line.cpu_switch),
        _ms(line.cpu_machine),
        f"{line.retransmissions:.0f}",
        "" if line.limit_s is None else _ms(line.limit_s),
        "" if line.share is None else f"{100 * line.share:.1f} %",
    ]


def table(lines: Sequence[Line]) -> Table:
    """All of it."""
    made = Table(title="All-reduce of float32: wiresum and gloo on the same links")
    for heading in HEADINGS:
        made.add_column(heading, justify="right", no_wrap=True)
    last = None
    for line in lines:
        if last not in (None, line.case):
            made.add_section()
        last = line.case
        made.add_row(*cells(line))
    return made


def _ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _span(spread: Spread) -> str:
    return f"{_ms(spread.low)}–{_ms(spread.high)}"
