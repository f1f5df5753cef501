"""The tables of ``wiresum bench collectives``, as Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from wiresum.measure.bench.cases import Side, rate_text, size_text
from wiresum.measure.bench.collectives.fsdp import rows
from wiresum.measure.bench.collectives.kinds import BARRIER
from wiresum.measure.bench.collectives.options import Case
from wiresum.measure.bench.collectives.results import Line
from wiresum.measure.bench.results import Spread

Found = Sequence[Sequence[Line]]
"""By case, all sides of it."""


def sections(found: Found) -> list[str]:
    """All tables that there are numbers for."""
    made = []
    for rate, workers in dict.fromkeys(
        (each[0].case.rate_mbit, each[0].case.workers) for each in found
    ):
        here = [
            each
            for each in found
            if (each[0].case.rate_mbit, each[0].case.workers) == (rate, workers)
        ]
        title = "links without a limit" if rate is None else f"links of {rate_text(rate)}"
        latency = [each for each in here if each[0].p99 is not None]
        sizes = [each for each in here if each[0].p99 is None]
        if sizes:
            made.append(_bandwidth(sizes, f"{title}, {workers} workers"))
        if latency:
            made.append(_latency(latency, f"{title}, {workers} workers"))
    return made


def training(content: dict[str, Any]) -> str:
    """What communication costs a step under FSDP2."""
    headings = ["side", "step, s", "communication, s", "lowest–highest", "gloo / it"]
    headings += ["MB up", "MB down", "last loss"]
    millions = content["parameters"] / 1e6
    (rate,), (workers,) = content["options"]["rates"], content["options"]["workers"]
    where = "links without a limit" if rate is None else f"links of {rate_text(rate)}"
    text = (
        f"A transformer of {millions:.1f} million parameters; communication: a step less the same "
        "step without collectives, of all ranks."
    )
    return f"### FSDP2, {where}, {workers} workers\n\n{text}\n\n{_table(headings, rows(content))}"


def _bandwidth(found: Found, where: str) -> str:
    parts = [
        f"### Collectives, {where}",
        "gloo's time / wiresum's; bold: gloo was faster.",
        _pivot(found, lambda line, _gloo: _ratio(line.ratio), with_gloo=False),
    ]
    if found[0][0].case.rate_mbit is not None:
        parts += [
            "How much of its own limit of the link each reached: in sums the bits of F; the "
            "fullest link, in its fuller direction.",
            _pivot(found, lambda line, _gloo: _share(line.share)),
            "The least time that the link allows an ideal algorithm of float32 without a switch, "
            "/ the time: below 1, such an algorithm, which gloo is not, would be faster.",
            _pivot(found, lambda line, _gloo: _number(line.against_ring)),
        ]
    parts += [
        "Bytes of the rank with the most, up / down, headers included, as shares of gloo's.",
        _pivot(found, _bytes, with_gloo=False),
        "The columns of nccl-tests: time in µs, algbw and busbw in GB/s, wrong elements.",
        _plain(found),
    ]
    return "\n\n".join(parts) + "\n"


def _latency(found: Found, where: str) -> str:
    headings = ["collective", "size", "side", "p50 µs", "p99 µs", "gloo / it, p50", "p99"]
    rows = []
    for case in found:
        for line in case:
            assert line.p99 is not None
            rows.append(
                [
                    *_case(line.case),
                    str(line.side),
                    _us(line.seconds),
                    _us(line.p99),
                    _ratio(line.ratio),
                    _ratio(line.p99_ratio),
                ]
            )
    text = (
        "One at a time: from when the last rank has begun it until the last rank has ended it. In "
        "parentheses the lowest and highest of the rounds."
    )
    return f"### Latency, {where}\n\n{text}\n\n{_table(headings, rows)}"


def _plain(found: Found) -> str:
    headings = ["collective", "size", "side", "time", "algbw", "busbw", "wrong"]
    rows = []
    for case in found:
        for line in case:
            barrier = line.case.kind == BARRIER
            speeds = ["", ""] if barrier else [f"{line.algbw:.3g}", f"{line.busbw:.3g}"]
            said = [str(line.side), _us(line.seconds), *speeds, str(line.wrong)]
            rows.append([*_case(line.case), *said])
    return _table(headings, rows).rstrip("\n")


def _pivot(
    found: Found, cell: Callable[[Line, Line | None], str], *, with_gloo: bool = True
) -> str:
    """A row for each case, a column for each side."""
    sides = sorted({line.side for case in found for line in case}, key=Side.order)
    sides = [side for side in sides if with_gloo or side.field is not None]
    rows = []
    for case in found:
        by_side = {line.side: line for line in case}
        ways = [line for line in case if line.side.field is None]
        gloo = min(ways, key=lambda line: line.seconds.median, default=None)
        cells = [cell(by_side[side], gloo) if side in by_side else "" for side in sides]
        if any(cells):
            rows.append([*_case(case[0].case), *cells])
    return _table(["collective", "size", *map(str, sides)], rows).rstrip("\n")


def _case(case: Case) -> list[str]:
    return [case.kind, "" if case.kind == BARRIER else size_text(case.bytes)]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    text = f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"
    return f"**{text}**" if spread.median < 1 else text


def _bytes(line: Line, gloo: Line | None) -> str:
    if gloo is None:
        return ""
    return f"{line.sent / gloo.sent:.2f} / {line.received / gloo.received:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _us(seconds: Spread) -> str:
    return f"{1e6 * seconds.median:.0f} ({1e6 * seconds.low:.0f}–{1e6 * seconds.high:.0f})"
