"""A report as one HTML file that needs nothing else: no network, no script, no font."""

import json
from collections import defaultdict
from html import escape

from wiresum.measure.traces import show
from wiresum.measure.traces.intervals import Intervals
from wiresum.measure.traces.summary import Report
from wiresum.measure.traces.timeline import Lanes, Timeline

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --paper: #fff; --line: #cdd3d9;
  --computation: #8aa7c4; --communication: #3b8f4e; --exposed: #c4572d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14181c; --line: #3b434b;
  --computation: #4d6a86; --communication: #5cb870; --exposed: #e8784c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 1rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0; list-style: none; }
.figures li { flex: 1 1 14rem; border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; }
.figures strong { display: block; font-size: 2rem; line-height: 1.2; }
.verdict { font-size: 1.15rem; }
.wide { overflow-x: auto; } .wide:focus, g:focus { outline: 2px solid var(--exposed); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; min-width: 60rem; height: auto; } text { fill: var(--ink); font-size: 13px; }
.computation { fill: var(--computation); } .communication { fill: var(--communication); }
.exposed { fill: var(--exposed); }
.bar { display: inline-block; height: .8rem; background: var(--communication); }
.key span { display: inline-block; width: .9rem; height: .9rem; margin: 0 .3rem 0 1rem; }
""".strip()
_LANES = ("computation", "communication", "exposed")
_WIDTH, _LEFT, _LANE, _RANK = 1000, 170, 16, 62


def page(report: Report, step: Timeline) -> str:
    """The file's text; its element ``report`` holds the figures as ``--json`` writes them."""
    figures = "".join(
        f"<li><strong>{escape(figure)}</strong>{escape(words)}</li>"
        for figure, words in show.headline(report)
    )
    ranks = [show.rank_cells(each) for each in report.ranks]
    rows = [show.row_cells(row) for row in report.rows]
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in report.notes)
    job = "" if report.job is None else f"<p>{escape(show.job_text(report.job))}</p>\n"
    data = json.dumps(show.as_json(report), allow_nan=False).replace("<", "\\u003c")
    key = "".join(
        f'<span style="background: var(--{lane})" aria-hidden="true"></span>{lane}'
        for lane in _LANES
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>wiresum measure: what communication costs this job</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
<h1>What communication costs this job</h1>
<ul class="figures">{figures}</ul>
<p class="verdict">{escape(report.verdict)}</p>
{job}<h2>{_step_title(step)}</h2>
<p class="key">{key}</p>
{_wide("Timeline", _picture(step))}
<h2>Time per step, in ms</h2>
{_wide("Time per step", _table(show.RANK_HEADINGS, ranks))}
<h2>Sizes of messages</h2>
{_wide("Sizes of messages", _sizes(report))}
<h2>Collectives, of a rank that takes part</h2>
{_wide("Collectives", _table(show.ROW_HEADINGS, rows))}
{_links(report)}{f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""}
</main>
<script type="application/json" id="report">{data}</script>
</body>
</html>
"""


def _wide(label: str, content: str) -> str:
    """A part that scrolls sideways, by keyboard too."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'
    )


def _table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _links(report: Report) -> str:
    """The links of a job that was run to be measured, the slowest ones first."""
    if report.job is None or not report.job.links.pairs:
        return ""
    links = report.job.links
    slow = sorted(links.pairs, key=lambda pair: pair.beta_gbit)
    rows = [show.link_cells(pair) for pair in slow]
    words = "".join(f"<p>{escape(line)}</p>" for line in show.links_text(links))
    title = "Links between the ranks, over TCP"
    return f"<h2>{title}</h2>\n{words}\n{_wide(title, _table(show.LINK_HEADINGS, rows))}\n"


def _step_title(step: Timeline) -> str:
    return "The whole trace" if step.number is None else f"Step {step.number}"


def _picture(step: Timeline) -> str:
    height = _RANK * len(step.ranks) + 30
    scale = (_WIDTH - _LEFT) / max(1, step.length)
    lanes = "".join(
        _rank(each, _RANK * index, scale, step.length) for index, each in enumerate(step.ranks)
    )
    end = f'<text x="{_WIDTH}" y="{height - 8}" text-anchor="end">{step.length / 1e6:.4g} ms</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="group" aria-label="{_step_title(step)}">'
        f'{lanes}<text x="{_LEFT}" y="{height - 8}">0</text>{end}</svg>'
    )


def _rank(lanes: Lanes, top: int, scale: float, length: int) -> str:
    made = f'<text x="0" y="{top + 12}">rank {lanes.rank}</text>'
    for index, name in enumerate(_LANES):
        spans: Intervals = getattr(lanes, name)
        took = sum(b - a for a, b in spans)
        words = (
            f"rank {lanes.rank}: {name} {took / 1e6:.4g} ms, {100 * took / max(1, length):.1f} %"
        )
        y = top + index * (_LANE + 2)
        boxes = "".join(
            f'<rect x="{_LEFT + a * scale:.2f}" y="{y}" width="{max(0.3, (b - a) * scale):.2f}" '
            f'height="{_LANE}"/>'
            for a, b in _coarse(spans, 0.4 / scale)
        )
        made += (
            f'<g class="{name}" tabindex="0" role="img" aria-label="{words}"><title>{words}</title>'
            f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{name}</text>{boxes}</g>'
        )
    return made


def _coarse(spans: Intervals, gap: float) -> Intervals:
    """Without gaps that nobody can see."""
    found: Intervals = []
    for start, end in spans:
        if found and start - found[-1][1] < gap:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _sizes(report: Report) -> str:
    """Messages and bytes per step by powers of two."""
    bins: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in report.rows:
        if row.size:
            count = bins[row.size.bit_length() - 1]
            count[0] += row.per_step
            count[1] += row.bytes_per_step or 0.0
    if not bins:
        return "<p>The traces have no sizes.</p>"
    most = max(value for _, value in bins.values())
    body = "".join(
        f"<tr><td>{show.size_text(1 << power)} to {show.size_text(2 << power)}</td>"
        f"<td>{show.number(count)}</td><td>{show.size_text(value)}</td>"
        f'<td style="text-align: left; width: 20rem"><span class="bar" '
        f'style="width: {100 * value / most:.1f}%"></span></td></tr>'
        for power, (count, value) in sorted(bins.items())
    )
    return (
        '<table><thead><tr><th scope="col">message</th><th scope="col">per step</th>'
        '<th scope="col">bytes per step</th><th scope="col">share of the bytes</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
