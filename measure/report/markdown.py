"""The tables of a benchmark report, as Markdown: ratios and shares, never times."""

from collections.abc import Iterable, Sequence
from typing import Any

from wiresum.measure.bench import codecs
from wiresum.measure.bench.cases import Case, Side, rate_text, size_text
from wiresum.measure.bench.engine import ratio
from wiresum.measure.bench.results import Line, Spread
from wiresum.measure.bench.switch import LANE_BYTES, kernel_share
from wiresum.measure.report import collectives
from wiresum.measure.report.load import Measured

BEGIN = "<!-- made by `wiresum bench report`: do not edit from here -->"


def page(measured: Measured) -> str:
    """All sections that there are numbers for."""
    sections = [
        _about(measured),
        *(_against_gloo(measured, rate) for rate in _rates(measured)),
        _costs(measured),
        _loss(measured),
        _growth(measured),
        *collectives.sections(measured.collectives),
        *measured.fsdp,
        *(_switch(content) for content in measured.switches),
        *(_codec(content) for content in measured.engines),
        *(codecs_of_gradients(content) for content in measured.engines if "codecs" in content),
    ]
    return "\n".join(section for section in sections if section)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _spread(spread: Spread, digits: int = 2) -> str:
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f}–{spread.high:.{digits}f})"


def _about(measured: Measured) -> str:
    said = [
        f"{each['cores']} cores of {each['model'] or 'an unnamed processor'}, "
        f"Linux {each['kernel']}, Python {each['python']}"
        for each in measured.machines
    ]
    rounds = "–".join(str(each) for each in sorted({*measured.rounds}))
    text = f"Measured on {'; '.join(said)}."
    if rounds:
        what = "All-reduces" if measured.allreduce else "Collectives"
        text += f" {what}: medians of {rounds} rounds; in parentheses the lowest and highest."
    if measured.tcp:
        text += f" gloo over TCP with {' and '.join(sorted(measured.tcp))}."
    return text + "\n"


def _rates(measured: Measured) -> list[float | None]:
    rates: list[float | None] = []
    for found in measured.allreduce:
        case = found[0].case
        if case.loss is None and case.rate_mbit not in rates:
            rates.append(case.rate_mbit)
    return rates


def _line(found: Sequence[Line], side: Side) -> Line | None:
    return next((line for line in found if line.side == side), None)


def _gloo(found: Sequence[Line]) -> Line | None:
    """Gloo's fastest way."""
    ways = [line for line in found if line.side.field is None]
    return min(ways, key=lambda line: line.seconds.median, default=None)


def _own(cases: Iterable[Sequence[Line]]) -> list[Side]:
    """Wiresum's sides, in order."""
    sides = {line.side for found in cases for line in found if line.side.field is not None}
    return sorted(sides, key=Side.order)


def _against_gloo(measured: Measured, rate: float | None) -> str:
    cases = [
        found
        for found in measured.allreduce
        if found[0].case.rate_mbit == rate and found[0].case.loss is None
    ]
    own = _own(cases)
    limited = rate is not None
    headings = ["n", "size", *(str(side) for side in own)]
    if limited:
        headings += [f"limit, {side}" for side in own] + ["limit, gloo"]
    rows = []
    for found in cases:
        row = [str(found[0].case.workers), size_text(found[0].case.size)]
        of_own = [_line(found, side) for side in own]
        row += [_ratio(line) for line in of_own]
        if limited:
            row += [_share(line.share if line else None) for line in [*of_own, _gloo(found)]]
        rows.append(row)
    title = "Links without a limit" if rate is None else f"Links of {rate_text(rate)}"
    head = f"### {title}\n\ngloo's time / wiresum's; bold: gloo was faster."
    if limited:
        head += " Limit: how much of the link's was reached."
    return f"{head}\n\n{_table(headings, rows)}"


def _ratio(line: Line | None) -> str:
    if line is None or line.ratio is None:
        return ""
    text = _spread(line.ratio)
    return f"**{text}**" if line.ratio.median < 1 else text


def _costs(measured: Measured) -> str:
    """Bytes and CPU seconds beside gloo's, for the largest size of each setting."""
    largest: dict[tuple[float | None, int], Sequence[Line]] = {}
    for found in measured.allreduce:
        case = found[0].case
        if case.loss is None and _gloo(found) is not None:
            largest[case.rate_mbit, case.workers] = found  # sizes ascend
    rows = []
    own = _own(largest.values())
    for sides_of in largest.values():
        case, gloo = sides_of[0].case, _gloo(sides_of)
        assert gloo is not None
        of_own = [_line(sides_of, side) for side in own]
        row = [rate_text(case.rate_mbit), str(case.workers), size_text(case.size)]
        row += [f"{line.sent / gloo.sent:.2f}" if line else "" for line in of_own]
        row += [f"{_cpu(line) / _cpu(gloo):.2f}" if line else "" for line in of_own]
        rows.append(row)
    if not rows:
        return ""
    headings = ["links", "n", "size", *(f"bytes, {side}" for side in own)]
    headings += [f"CPU, {side}" for side in own]
    text = "Wiresum's share of gloo's: bytes that a worker sends, headers included; CPU seconds of "
    text += "all workers and the switch."
    return f"### Bytes and CPU time\n\n{text}\n\n{_table(headings, rows)}"


def _cpu(line: Line) -> float:
    return line.cpu_worker * line.case.workers + line.cpu_switch


def _loss(measured: Measured) -> str:
    lossy = [found for found in measured.allreduce if found[0].case.loss is not None]
    own = _own(lossy)
    rows = []
    for found in lossy:
        case = found[0].case
        assert case.loss is not None
        base = 0.0 if case.loss else None
        free = measured.case(Case(case.rate_mbit, base, case.workers, case.size))
        row = [rate_text(case.rate_mbit), str(case.workers), size_text(case.size)]
        row.append(f"{100 * case.loss:g} %")
        row += [_kept(_line(free, side), _line(found, side)) for side in own]
        row.append(_kept(_gloo(free), _gloo(found)))
        row += [_ratio(_line(found, side)) for side in own]
        rows.append(row)
    if not rows:
        return ""
    headings = ["links", "n", "size", "lost", *(str(side) for side in own), "gloo"]
    headings += [f"gloo / {side}" for side in own]
    text = (
        "Speed kept when frames get lost, each by itself, in both directions: time without loss / "
        "time with it. Frames cross the kernels one by one then; what this alone costs is in the "
        "lines of 0 %, beside trains that cross whole."
    )
    return f"### Loss\n\n{text}\n\n{_table(headings, rows)}"


def _kept(free: Line | None, lossy: Line | None) -> str:
    if free is None or lossy is None:
        return ""
    return _share(free.seconds.median / lossy.seconds.median)


def _growth(measured: Measured) -> str:
    """How much longer a large all-reduce takes with more workers."""
    by_setting: dict[tuple[float, int], list[Sequence[Line]]] = {}
    for found in measured.allreduce:
        case = found[0].case
        if case.rate_mbit is not None and case.loss is None:
            by_setting.setdefault((case.rate_mbit, case.size), []).append(found)
    rows = []
    kept = [found for group in by_setting.values() if len(group) > 1 for found in group]
    own = _own(kept)
    for (rate, size), group in by_setting.items():
        few, many = group[0], group[-1]
        if len(group) == 1 or size != max(s for r, s in by_setting if r == rate):
            continue
        row = [rate_text(rate), size_text(size)]
        row.append(f"{few[0].case.workers} → {many[0].case.workers}")
        row += [_longer(_line(few, side), _line(many, side)) for side in own]
        row.append(_longer(_gloo(few), _gloo(many)))
        rows.append(row)
    if not rows:
        return ""
    headings = ["links", "size", "workers", *(str(side) for side in own), "gloo"]
    return f"### More workers\n\nHow much longer it takes.\n\n{_table(headings, rows)}"


def _longer(few: Line | None, many: Line | None) -> str:
    if few is None or many is None:
        return ""
    percent = round(100 * (many.seconds.median / few.seconds.median - 1))  # an int: no "-0"
    return f"{percent:+d} %"


def _switch(content: dict[str, Any]) -> str:
    alone, lanes = content["alone"], content["lanes"]
    share = kernel_share(alone)
    memory = Spread.of([each / 1e6 for each in alone["memory"]])
    sockets = Spread.of([each["rate"] / 1e6 for each in alone["sockets"]["switch"]])
    rows = [
        ["in memory, one core, million chunks per second", _spread(memory)],
        ["the same in GB/s of lanes", f"{memory.median * lanes * LANE_BYTES / 1e3:.1f}"],
        ["over sockets, million chunks per second", _spread(sockets)],
        [
            "over sockets, share of what a reflector moves",
            f"{_share(share.median)} ({100 * share.low:.0f}–{100 * share.high:.0f})",
        ],
    ]
    if "racks" in content:
        label = list(content["racks"]["switches"])[1]
        ratios = Spread.of(content["racks"]["ratios"])
        rows.append([f"on raw ports, times as many chunks as {label}", _spread(ratios, 1)])
    title = f"### The embedded switch, {lanes} lanes, {content['workers']} workers"
    return f"{title}\n\n{_table(['', 'median (lowest–highest)'], rows)}"


def _codec(content: dict[str, Any]) -> str:
    rows = []
    for entry in content["entries"]:
        row = [entry["isa"], str(entry["field"]), entry["dtype"]]
        for part in ("quantize", "encode", "dequantize"):
            spread = ratio(entry, part)
            row.append(f"{_share(spread.median)} ({_share(spread.low)})")
        rows.append(row)
    text = f"Shares of memcpy's speed for the same bytes, {size_text(content['size'])} of tensor, "
    text += "one core; in parentheses the lowest round."
    headings = ["kernels", "field", "dtype", "quantize", "with exponents", "dequantize"]
    return f"### The codec\n\n{text}\n\n{_table(headings, rows)}"


def codecs_of_gradients(content: dict[str, Any]) -> str:
    """What `bench engine --codec` has measured."""
    text = f"{size_text(content['size'])} of gradient in float32, {content['workers']} workers, "
    text += "one core; shares of a copy's speed, in parentheses the lowest round."
    rows = [codecs.row(entry, content["size"]) for entry in content["codecs"]]
    return f"### The codecs of gradients\n\n{text}\n\n{_table(codecs.headings(), rows)}"
