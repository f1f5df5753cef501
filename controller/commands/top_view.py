"""How ``wiresum top`` looks.

Every table leaves out columns, the least important first, until it fits the terminal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wiresum.controller.carriers import RANKS
from wiresum.controller.commands.tables import name_below
from wiresum.controller.commands.top_model import Frame, JobRow, RankRow, SwitchRow
from wiresum.controller.text import format_ranks

_COLORS = {
    "up": "green", "ready": "green", "connecting": "yellow", "waiting": "yellow",
    "queued": "yellow", "draining": "yellow", "down": "red",
}  # fmt: skip
_GAP = 2
_SHORTEST = 4  # how far the first column is cut before others go
_STRAGGLER = "bold red"
_UNKNOWN = "-"

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Column(Generic[_Row]):
    """One column; the highest ``keep`` stays longest when the terminal is narrow."""

    title: str
    keep: int
    cell: Callable[[_Row], str]
    left: bool = False
    colored: bool = False
    """By the first word of the cell."""


def number(value: float | None, unit: str = "") -> str:
    """``1234567`` → ``1.23M``, at most five characters and the unit."""
    if value is None:
        return _UNKNOWN
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{letter}{unit}"
    return f"{value:.3g}{unit}" if value and value < 100 else f"{value:.0f}{unit}"


def seconds(value: float | None) -> str:
    """``0.0012`` → ``1.2ms``."""
    if value is None:
        return _UNKNOWN
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value * 1e6:.0f}us"


def share(value: float | None) -> str:
    """``0.25`` → ``25%``."""
    return _UNKNOWN if value is None else f"{100 * value:.0f}%"


_SWITCHES: list[Column[SwitchRow]] = [
    Column("switch", 9, lambda s: s.name, left=True),
    Column("state", 8, lambda s: _switch_state(s), left=True, colored=True),
    Column("jobs", 4, lambda s: str(s.jobs)),
    Column("slots", 6, lambda s: f"{s.slots - s.free_slots}/{s.slots}"),
    Column("chunk/s", 7, lambda s: number(s.chunks)),
    Column("sum bit/s", 3, lambda s: number(s.bits)),
    Column("drop/s", 5, lambda s: number(s.dropped)),
]

_JOBS: list[Column[JobRow]] = [
    Column("job", 9, lambda j: name_below(j.name or j.id, j.parent), left=True),
    Column("tenant", 2, lambda j: j.tenant, left=True),
    Column("state", 8, lambda j: _job_state(j), left=True, colored=True),
    Column("switch", 3, lambda j: j.switch or _UNKNOWN, left=True),
    Column("ranks", 6, lambda j: f"{j.joined}/{j.workers}" if j.workers else _UNKNOWN),
    Column("slots", 4, lambda j: _slots(j)),
    Column("chunk/s", 7, lambda j: number(j.chunks)),
    Column("sum bit/s", 5, lambda j: number(j.bits)),
    Column("again/s", 1, lambda j: number(j.resent)),
    Column("wait/s", 1, lambda j: number(j.waited)),
]

_RANKS: list[Column[RankRow]] = [
    Column("rank", 9, lambda r: str(r.rank)),
    Column("ended", 5, lambda r: str(r.ended)),
    Column("open", 6, lambda r: str(r.started - r.ended)),
    Column("coll/s", 7, lambda r: number(r.collectives)),
    Column("bit/s", 4, lambda r: number(r.bits)),
    Column("each", 8, lambda r: seconds(r.latency_s)),
    Column("stood still", 3, lambda r: share(r.exposed)),
    Column("again/s", 2, lambda r: number(r.retransmissions)),
    Column("rtt", 2, lambda r: seconds(r.rtt_s or None)),
    Column("window", 1, lambda r: str(r.window)),
    Column("fallback", 1, lambda r: str(r.fallback)),
    Column("heard", 0, lambda r: f"{r.age_s:.0f}s ago"),
]


def render(frame: Frame, width: int, *, clock: str = "", problem: str = "") -> RenderableType:
    """The whole picture for a terminal of ``width`` columns.

    ``clock`` is the time of day; ``problem`` is why the picture is old, if it is.
    """
    up = sum(switch.state == "up" for switch in frame.switches)
    title = f"wiresum  {frame.controller}"
    if frame.all_told:
        title += f"  {up}/{len(frame.switches)} switches up"
    live = sum(job.slots > 0 and not job.parent for job in frame.jobs)
    queued = sum(job.state == "queued" for job in frame.jobs)
    title += f"  {live} {'job' if live == 1 else 'jobs'}" + (f"  {queued} queued" if queued else "")
    parts: list[RenderableType] = [_line(f"{title}  {clock}".rstrip(), width, "bold")]
    if problem:
        parts.append(Text(problem, _STRAGGLER, overflow="fold"))
    if frame.all_told:
        parts += [Text(), *_section(frame.switches, _SWITCHES, width, "no switches")]
    for switch in frame.switches:
        parts += _notes(switch, width)
    parts += [Text(), *_section(frame.jobs, _JOBS, width, "no jobs")]
    for job in frame.jobs:
        parts += _job_parts(job, width)
    return Group(*parts)


def _notes(switch: SwitchRow, width: int) -> list[RenderableType]:
    notes: list[RenderableType] = []
    if switch.reason:
        notes.append(Text(f"  {switch.name}: {switch.reason}", "red", overflow="fold"))
    if switch.drops:
        drops = ", ".join(f"{name} {number(rate)}/s" for name, rate in switch.drops.items())
        notes.append(Text(f"  {switch.name} drops {drops}", "yellow", overflow="fold"))
    return notes


def _job_parts(job: JobRow, width: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    label = job.name or job.id
    late = {one.rank: one.why for one in job.stragglers}
    whys = {why: [one.rank for one in job.stragglers if one.why == why] for why in late.values()}
    waits = [
        f"{label} waits for {'rank' if len(ranks) == 1 else 'ranks'} {format_ranks(ranks)}: {why}"
        for why, ranks in whys.items()
    ]
    if job.ranks:
        parts.append(Text())
        columns = _fit(job.ranks, _RANKS, width - _GAP)
        table = _table(
            columns, title=f"{label}, by its ranks' last reports" if width > 50 else label
        )
        for rank in job.ranks:
            style = _STRAGGLER if rank.rank in late else ""
            table.add_row(*(Text(column.cell(rank), style) for column in columns))
        parts.append(table)
    parts += [Text(f"  {wait}", _STRAGGLER, overflow="fold") for wait in waits]
    if job.carrier == RANKS:
        why = f": {job.carrier_reason}" if job.carrier_reason else ""
        parts.append(
            Text(f"  {label}: the ranks sum, not the switch{why}", "yellow", overflow="fold")
        )
    if job.mismatched:
        parts.append(
            Text(f"  {label}: ranks disagree on a collective ({number(job.mismatched)}/s)", "red")
        )
    return parts


def _section(
    rows: Sequence[_Row], columns: Sequence[Column[_Row]], width: int, nothing: str
) -> list[RenderableType]:
    if not rows:
        return [Text(nothing, "dim")]
    fitting = _fit(rows, columns, width)
    table = _table(fitting)
    widest = max(_SHORTEST, width - sum(_width(rows, c) + _GAP for c in fitting[1:]))
    for row in rows:
        cells = [column.cell(row) for column in fitting]
        if cell_len(cells[0]) > widest:
            cells[0] = set_cell_size(cells[0], widest - 1) + "…"
        styles = [_COLORS.get(c.cell(row).split()[0], "") if c.colored else "" for c in fitting]
        table.add_row(*(Text(*one) for one in zip(cells, styles, strict=True)))
    return [table]


def _fit(rows: Sequence[_Row], columns: Sequence[Column[_Row]], width: int) -> list[Column[_Row]]:
    left = list(columns)
    while len(left) > 1:
        # The first may be cut, but not to nothing.
        first = min(_width(rows, left[0]), max(_SHORTEST, width // 3))
        if first + sum(_width(rows, column) + _GAP for column in left[1:]) <= width:
            break
        left.remove(min(left[1:], key=lambda column: column.keep))
    return left


def _width(rows: Sequence[_Row], column: Column[_Row]) -> int:
    return max(cell_len(column.title), *(cell_len(column.cell(row)) for row in rows))


def _table(columns: Sequence[Column[_Row]], title: str = "") -> Table:
    table = Table(
        box=None, padding=(0, _GAP, 0, 0), pad_edge=False, title=title or None,
        title_justify="left", title_style="", header_style="bold",
    )  # fmt: skip
    for column in columns:
        table.add_column(column.title, justify="left" if column.left else "right", no_wrap=True)
    return table


def _line(text: str, width: int, style: str) -> Text:
    line = Text(text, style, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


def _switch_state(switch: SwitchRow) -> str:
    return "draining" if switch.draining and switch.state == "up" else switch.state


def _job_state(job: JobRow) -> str:
    if job.state == "queued":
        return f"queued #{job.queue_position}"
    return f"{job.state} parked" if job.parked and job.slots else job.state


def _slots(job: JobRow) -> str:
    if not job.slots:
        return _UNKNOWN
    return f"{job.slots}<{job.slots_target}" if job.slots < job.slots_target else str(job.slots)
