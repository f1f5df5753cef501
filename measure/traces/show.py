"""A report on a terminal and as JSON."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wiresum.measure.probe.links import Links, Pair
from wiresum.measure.traces.load import KIND
from wiresum.measure.traces.records import Job
from wiresum.measure.traces.summary import THRESHOLD, Rank, Report, Row, Shares

MOST_ROWS = 12
NOTHING = "–"


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs: times in milliseconds, sizes in bytes, bandwidths in GB/s."""
    made: dict[str, Any] = {
        "kind": KIND,
        "version": 1,
        "units": {"time": "ms per step", "size": "bytes", "bandwidth": "GB/s"},
        "verdict": report.verdict,
        "threshold": THRESHOLD,
        "exposed_share": report.exposed_share,
        "comm_share": report.comm_share,
        "bytes_per_step": report.bytes_per_step,
        "sent_bytes_per_step": report.sent_bytes_per_step,
        "waiting_share": report.waiting_share,
        "steps": report.steps,
        "median": _shares(report.typical),
        "ranks": [
            {
                "rank": each.rank,
                "file": each.file,
                "steps": each.steps,
                **_shares(each.shares),
                "exposed_share": each.shares.exposed_share,
                "comm_share": each.shares.comm_share,
                "bytes_per_step": each.size,
                "sent_bytes_per_step": each.sent,
                "late_share": each.late,
                "late_by": each.behind_ms,
                "waiting_time": each.waiting_ms,
            }
            for each in report.ranks
        ],
        "collectives": [asdict(row) for row in report.rows],
        "notes": [str(note) for note in report.notes],
    }
    if report.job is not None:
        facts = asdict(report.job)
        made["overhead_share"] = facts.pop("overhead_share")
        made["links"] = _links_json(report.job.links)
        del facts["links"]
        facts["hosts"] = list(report.job.hosts)
        made["job"] = facts
    return made


def _links_json(links: Links) -> dict[str, Any]:
    slowest = links.slowest
    return {
        "pairs": [
            {
                "from": pair.sender,
                "to": pair.receiver,
                "alpha_us": pair.alpha_us,
                "beta_gbit": pair.beta_gbit,
            }
            for pair in links.pairs
        ],
        "slowest": None if slowest is None else [slowest.sender, slowest.receiver],
        "unequal": [[slow.sender, slow.receiver] for slow, _ in links.unequal()],
        "note": links.note,
    }


def _shares(each: Shares) -> dict[str, float]:
    return {**asdict(each), "overlapped_comm_time": each.overlapped}


def headline(report: Report) -> list[tuple[str, str]]:
    """The three figures, each with what it is."""
    return [
        (percent(report.exposed_share), "of a step is exposed communication"),
        (percent(report.comm_share), "of a step is communication"),
        (size_text(report.bytes_per_step), _messages_text(report)),
    ]


def _messages_text(report: Report) -> str:
    sent = report.sent_bytes_per_step
    more = "" if sent is None else f", for which a rank sends {size_text(sent)}"
    return f"of messages per step and rank{more}"


def page(report: Report) -> RenderableType:
    """All of it, for a terminal."""
    lines = [Text(f"{figure:>10}  {words}") for figure, words in headline(report)]
    parts: list[RenderableType] = [*lines, Text(report.verdict), Text(), _times(report), Text()]
    parts.append(_collectives(report))
    left = len(report.rows) - MOST_ROWS
    if left > 0:
        parts.append(Text(f"and {left} more kinds of messages: --json has all"))
    if report.job is not None:
        links = report.job.links
        if links.pairs:
            parts += [Text(), _links(links), *map(Text, links_text(links)), Text()]
        parts.append(Text(job_text(report.job)))
    parts += [Text(f"note: {note}") for note in report.notes]
    return Group(*parts)


def job_text(job: Job) -> str:
    """What was measured, and what the measuring cost, in one line."""
    hosts = "1 host" if len(job.hosts) == 1 else f"{len(job.hosts)} hosts"
    cost = (
        "" if job.overhead_share is None else f"; the profiler adds {percent(job.overhead_share)}"
    )
    return f"{job.world_size} ranks on {hosts}, {job.backend}, {job.device}{cost}"


RANK_HEADINGS = (
    "rank", "step ms", "computation", "communication", "exposed", "overlapped", "idle", "exposed %",
    "last", "behind ms",
)  # fmt: skip
ROW_HEADINGS = (
    "collective", "dtype", "message", "group", "per step", "bytes per step", "latency ms",
    "algbw GB/s", "busbw GB/s", "skew ms", "last",
)  # fmt: skip


LINK_HEADINGS = ("from rank", "to rank", "latency µs", "bandwidth Gbit/s")


def _times(report: Report) -> Table:
    made = _table(f"Time per step, in ms (mean of {report.steps} steps)", RANK_HEADINGS, 1)
    for each in report.ranks:
        made.add_row(*rank_cells(each))
    if len(report.ranks) > 1:
        made.add_section()
        made.add_row("median", *share_cells(report.typical), percent(report.exposed_share), "", "")
    return made


def _collectives(report: Report) -> Table:
    made = _table("Collectives, of a rank that takes part", ROW_HEADINGS, 4)
    for row in report.rows[:MOST_ROWS]:
        made.add_row(*row_cells(row))
    return made


def _links(links: Links) -> Table:
    made = _table("Links between the ranks, over TCP", LINK_HEADINGS, 0)
    slow = sorted(links.pairs, key=lambda pair: pair.beta_gbit)
    for pair in slow[:MOST_ROWS]:
        made.add_row(*link_cells(pair))
    return made


def _table(title: str, headings: tuple[str, ...], left: int) -> Table:
    made = Table(title=title, title_justify="left")
    for index, heading in enumerate(headings):
        made.add_column(heading, justify="left" if index < left else "right")
    return made


def share_cells(each: Shares) -> list[str]:
    """The times of a step, as text."""
    return [
        number(each.total_time),
        number(each.computation_time),
        number(each.total_comm_time),
        number(each.exposed_comm_time),
        number(each.overlapped),
        number(each.idle_time),
    ]


def rank_cells(each: Rank) -> list[str]:
    """One rank of the table, as text."""
    return [
        str(each.rank),
        *share_cells(each.shares),
        percent(each.shares.exposed_share),
        percent(each.late),
        number(each.behind_ms),
    ]


def row_cells(row: Row) -> list[str]:
    """One kind of collectives of the table, as text."""
    return [
        row.kind if row.called is None else f"{row.called}, as {row.kind}",
        row.dtype or NOTHING,
        size_text(row.size),
        row.group,
        number(row.per_step),
        size_text(row.bytes_per_step),
        number(row.latency_ms),
        number(row.algbw),
        number(row.busbw),
        number(row.skew_ms),
        NOTHING if row.most_late is None else f"rank {row.most_late}",
    ]


def link_cells(pair: Pair) -> list[str]:
    """One direction of a link, as text."""
    cells = (pair.sender, pair.receiver)
    return [*map(str, cells), number(pair.alpha_us), number(pair.beta_gbit)]


def links_text(links: Links) -> list[str]:
    """Which link is the slowest, and which have a slow direction: a line each."""
    found = []
    slowest = links.slowest
    if slowest is not None:
        found.append(
            f"The slowest of {len(links.pairs)}: from rank {slowest.sender} to rank "
            f"{slowest.receiver}, {number(slowest.beta_gbit)} Gbit/s."
        )
    for slow, fast in links.unequal()[:MOST_ROWS]:
        found.append(
            f"Unequal: rank {slow.sender} to rank {slow.receiver} {number(slow.beta_gbit)} Gbit/s, "
            f"back {number(fast.beta_gbit)} Gbit/s."
        )
    return found


def percent(share: float | None) -> str:
    """A share as text."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """Three digits of a value."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size_text(size: float | None) -> str:
    """A number of bytes as text, in units of 1024."""
    if size is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.4g} {unit}"
