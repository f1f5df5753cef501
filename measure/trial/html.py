"""The result of a trial as one HTML file that needs nothing else, no network, script or font."""

import json
import math
from collections.abc import Callable
from html import escape

from wiresum.measure.traces.show import size_text
from wiresum.measure.trial import show
from wiresum.measure.trial.judge import MEETS
from wiresum.measure.trial.report import Report, Row, as_json

Scale = Callable[[float], float]
"""From a value to a place in the picture."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --paper: #fff; --line: #cdd3d9;
  --meets: #2f7d43; --misses: #b8471f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14181c; --line: #3b434b;
  --meets: #5cb870; --misses: #e8784c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 1rem; }
.verdict { font-size: 1.3rem; font-weight: 600; }
pre { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; }
.wide, pre { overflow-x: auto; }
.wide:focus, pre:focus, g:focus { outline: 2px solid var(--misses); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child, td:nth-child(n+5), th:nth-child(n+5) { text-align: left; }
tr.least { font-weight: 600; }
svg { width: 100%; min-width: 40rem; height: auto; } text { fill: var(--ink); font-size: 13px; }
.axis { stroke: var(--line); } .target { stroke: var(--meets); stroke-dasharray: 6 4; }
.front { stroke: var(--ink); fill: none; opacity: .4; }
.meets { fill: var(--meets); stroke: var(--meets); }
.misses { fill: var(--misses); stroke: var(--misses); }
""".strip()
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 420, 90, 130, 20, 50


def page(report: Report) -> str:
    """The file's text; its element ``report`` holds the figures as ``--json`` writes them."""
    data = json.dumps(as_json(report), allow_nan=False).replace("<", "\\u003c")
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    command = show.how_to(report)
    start = f'<pre tabindex="0">{escape(command)}</pre>' if command else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>wiresum trial: the least volume that meets the target</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
<h1>The least volume that meets the target</h1>
<p class="verdict">{escape(report.conclusion)}</p>
{start}
<p>Target: {escape(report.target)}. {report.world} ranks.</p>
<h2>Loss against bytes per step</h2>
{_wide("Loss against bytes per step", _picture(report))}
<h2>All remedies</h2>
{_wide("All remedies", _table(report))}
<h2>Notes</h2>
<ul>{notes}</ul>
</main>
<script type="application/json" id="report">{data}</script>
</body>
</html>
"""


def front(rows: list[Row]) -> list[Row]:
    """The remedies that no other one beats in both bytes and loss, from few bytes to many."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda each: (each.bytes_per_step, _loss(each))):
        if not found or _loss(row) < _loss(found[-1]):
            found.append(row)
    return found


def _wide(label: str, content: str) -> str:
    """A part that scrolls sideways, by keyboard too."""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'
    )


def _table(report: Report) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in show.HEADINGS)
    body = "".join(
        f"<tr{_least(row, report)}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in show.cells(row, report))
        + "</tr>"
        for row in report.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _least(row: Row, report: Report) -> str:
    return ' class="least"' if row.remedy.name == report.least else ""


def _loss(row: Row) -> float:
    return math.inf if row.loss is None else row.loss.median


def _picture(report: Report) -> str:
    rows = [
        row
        for row in report.rows
        if row.bytes_per_step and row.loss is not None and math.isfinite(row.loss.high)
    ]
    if not rows:
        return "<p>No run has ended with both.</p>"
    values = [value for row in rows for value in row.loss or ()]
    values += [report.limit] if report.limit is not None else []
    margin = 0.1 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
    low, high = min(values) - margin, max(values) + margin
    widest = 1.05 * max(row.bytes_per_step or 0.0 for row in rows)

    def x(size: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * size / widest

    def y(loss: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (loss - low) / (high - low)

    parts = [_axes(widest, low, high, x, y)]
    if report.limit is not None:
        at = y(report.limit)
        parts.append(
            f'<line class="target" x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" '
            f'y2="{at:.1f}"/><text x="{_WIDTH - _RIGHT + 6}" y="{at + 4:.1f}">target</text>'
        )
    points = " ".join(
        f"{x(row.bytes_per_step or 0.0):.1f},{y(_loss(row)):.1f}" for row in front(rows)
    )
    parts.append(f'<polyline class="front" points="{points}"/>')
    parts.extend(_point(row, x, y) for row in rows)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" '
        f'aria-label="Loss against bytes per step">{"".join(parts)}</svg>'
    )


def _axes(widest: float, low: float, high: float, x: Scale, y: Scale) -> str:
    bottom = _HEIGHT - _BOTTOM
    made = (
        f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">bytes that a rank sends per step; '
        "bottom left is best</text>"
        f'<text x="8" y="{_TOP}">loss</text>'
    )
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        size, loss = part * widest / 1.05, low + part * (high - low)
        made += (
            f'<text x="{x(size):.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{size_text(size)}</text>"
            f'<text x="{_LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.4g}</text>'
        )
    return made


def _point(row: Row, x: Scale, y: Scale) -> str:
    assert row.loss is not None
    kind = "meets" if row.verdict.outcome == MEETS else "misses"
    across, name = x(row.bytes_per_step or 0.0), row.remedy.name
    took = "" if row.step_ms is None else f", {row.step_ms.median:.3g} ms per step"
    words = escape(
        f"{name}: {size_text(row.bytes_per_step)} per step, loss {row.loss.median:.4g}{took}; "
        f"{kind} the target"
    )
    shape = (
        f'<circle cx="{across:.1f}" cy="{y(row.loss.median):.1f}" r="6"/>'
        if kind == "meets"
        else f'<path d="M{across - 6:.1f} {y(row.loss.median) - 6:.1f}l12 12m0-12l-12 12" '
        'stroke-width="3"/>'
    )
    return (
        f'<g class="{kind}" tabindex="0" role="img" aria-label="{words}"><title>{words}</title>'
        f'<line x1="{across:.1f}" y1="{y(row.loss.low):.1f}" x2="{across:.1f}" '
        f'y2="{y(row.loss.high):.1f}" stroke-width="2"/>{shape}'
        f'<text stroke="none" x="{across + 10:.1f}" y="{y(row.loss.median) - 8:.1f}">{name}</text>'
        "</g>"
    )
