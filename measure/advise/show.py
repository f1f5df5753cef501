"""The answer on a terminal: the verdict first, then what it rests on."""

import math
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wiresum.measure.advise.advice import Advice
from wiresum.measure.advise.choices import Choice
from wiresum.measure.advise.money import Prices
from wiresum.measure.advise.text import money as amount
from wiresum.measure.advise.text import ms, percent

NOTHING = "–"


def page(advice: Advice) -> RenderableType:
    """All of it."""
    decision = advice.decision
    lines = [f"verdict: {decision.verdict}", f"because {decision.because}"]
    if decision.choice is not None:
        found = decision.choice.prediction
        base = advice.options.base.step_s
        lines.append(
            f"a step takes {ms(base)} ms today and would take {ms(found.step_s)} ms "
            f"({ms(found.low_s)} to {ms(found.high_s)})"
        )
        lines += _money_lines(decision.choice, advice.question.prices)
        lines.append(f"run:   {advice.command}")
    if advice.trial:
        lines.append(f"first: {advice.trial}")
    parts: list[RenderableType] = [Text(line) for line in lines]
    parts += [Text(), _table(advice), Text(), Text("evidence")]
    parts += [Text(f"  {line}") for line in advice.evidence]
    parts += [Text(f"  note: {note}") for note in advice.report.notes]
    parts += [
        Text(f"  not possible: {', '.join(names)}: {why}")
        for why, names in _reasons(advice.options.impossible.items())
    ]
    parts += [
        Text(f"  not proposed: {', '.join(names)}: {why}")
        for why, names in _reasons((e.name, e.refused) for e in advice.options.found if e.refused)
    ]
    if advice.changes:
        parts += [Text(), Text("what would change the answer")]
        parts += [Text(f"  {line}") for line in advice.changes]
    return Group(*parts)


def _reasons(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for name, why in pairs:
        found.setdefault(why, []).append(name)
    return list(found.items())


def _money_lines(choice: Choice, prices: Prices) -> list[str]:
    value, said = choice.worth, []
    if value.hours_before is not None and value.hours_after is not None:
        said.append(f"a run: {value.hours_before:.3g} hours today, {value.hours_after:.3g} then")
    if value.saved_per_run is not None:
        line = f"saved: {amount(value.saved_per_run, prices.currency)} per run"
        if value.saved_per_month is not None:
            line += f", {amount(value.saved_per_month, prices.currency)} per month"
        said.append(line)
    if value.cost and value.payback_months is not None:
        cost = amount(value.cost, prices.currency)
        said.append(f"cost:  {cost} once, back after {value.payback_months:.1f} months")
    return said


def _table(advice: Advice) -> Table:
    prices = advice.question.prices
    money = any(each.worth.saved_per_run is not None for each in advice.options.found)
    made = Table(title="Predicted steps", title_justify="left")
    for heading in ("change", "kind"):
        made.add_column(heading)
    headings = ["step ms", "interval", "exposed", "sent MB", "saved"]
    if money:
        headings += [f"per run, {prices.currency}", "back after"]
    for heading in headings:
        made.add_column(heading, justify="right")
    base = advice.options.base
    made.add_row(
        "none (plain)", "", ms(base.step_s), _interval(base.low_s, base.high_s),
        percent(base.exposed_share), _mb(base.sent_bytes), "", *([""] * (2 if money else 0)),
    )  # fmt: skip
    for each in advice.options.found:
        made.add_row(*_row(each, prices, money, each is advice.decision.choice))
    return made


def _row(each: Choice, prices: Prices, money: bool, chosen: bool) -> list[str]:
    found = each.prediction
    cells = [
        f"{each.name} ←" if chosen else each.name,
        each.effort.name.lower() + (", measured" if found.measured else ""),
        ms(found.step_s),
        _interval(found.low_s, found.high_s),
        percent(found.exposed_share),
        _mb(found.sent_bytes),
        percent(each.saved_share),
    ]
    if money:
        saved, back = each.worth.saved_per_run, each.worth.payback_months
        cells.append(NOTHING if saved is None else f"{saved:,.2f}")
        cells.append(
            NOTHING if back is None else "never" if math.isinf(back) else f"{back:.1f} months"
        )
    return cells


def _interval(low: float, high: float) -> str:
    return f"{ms(low)}–{ms(high)}"


def _mb(size: float) -> str:
    return f"{size / 1e6:.3g}"
