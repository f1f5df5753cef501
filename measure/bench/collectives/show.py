"""The tables of the benchmark of collectives on a terminal."""

from collections.abc import Sequence

from rich.table import Table

from wiresum.measure.bench.cases import size_text
from wiresum.measure.bench.collectives.kinds import BARRIER
from wiresum.measure.bench.collectives.results import Line
from wiresum.measure.bench.results import Spread

_CASE = ("links", "n", "collective", "size", "side")
BANDWIDTH = (
    *_CASE, "time us", "lowest–highest", "algbw GB/s", "busbw GB/s", "gloo / it", "lowest–highest",
    "MB up", "MB down", "resent", "reached", "ring / it", "wrong",
)  # fmt: skip
LATENCY = (
    *_CASE, "p50 us", "lowest–highest", "gloo / it", "lowest–highest", "p99 us", "gloo / it",
    "wrong",
)  # fmt: skip


def _cells(line: Line) -> list[str]:
    case = line.case
    size = "" if case.kind == BARRIER else size_text(case.bytes)
    return [case.links, str(case.workers), case.kind, size, str(line.side)]


def _bandwidth(line: Line) -> list[str]:
    barrier = line.case.kind == BARRIER
    return [
        *_cells(line),
        *(_us(line.seconds.median), _span(line.seconds)),
        *(("", "") if barrier else (f"{line.algbw:.3g}", f"{line.busbw:.3g}")),
        *_ratio(line.ratio),
        f"{line.sent / 1e6:.4g}",
        f"{line.received / 1e6:.4g}",
        f"{line.retransmissions:.0f}",
        "" if line.share is None else f"{100 * line.share:.1f} %",
        "" if line.against_ring is None else f"{line.against_ring:.2f}",
        str(line.wrong),
    ]


def _latency(line: Line) -> list[str]:
    assert line.p99 is not None
    return [
        *_cells(line),
        *(_us(line.seconds.median), _span(line.seconds)),
        *_ratio(line.ratio),
        _us(line.p99.median),
        _ratio(line.p99_ratio)[0],
        str(line.wrong),
    ]


def table(lines: Sequence[Line]) -> Table:
    """All of them: bandwidths, or latencies where these were measured."""
    latency = all(line.p99 is not None for line in lines)
    made = Table(title="Collectives of float32: wiresum and gloo on the same links")
    for heading in LATENCY if latency else BANDWIDTH:
        made.add_column(heading, justify="right", no_wrap=True)
    last = None
    for line in lines:
        if last not in (None, line.case):
            made.add_section()
        last = line.case
        made.add_row(*(_latency(line) if latency else _bandwidth(line)))
    return made


def _ratio(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "", ""
    return f"{spread.median:.2f}", f"{spread.low:.2f}–{spread.high:.2f}"


def _us(seconds: float) -> str:
    value = 1e6 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _span(spread: Spread) -> str:
    return f"{_us(spread.low)}–{_us(spread.high)}"
