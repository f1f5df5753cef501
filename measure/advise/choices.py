"""What could be done: software, faster links, a switch, more racks; what each would bring."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from wiresum.measure.advise.money import Prices, Worth, worth
from wiresum.measure.model.costs import Costs
from wiresum.measure.model.growth import more_workers
from wiresum.measure.model.job import Job
from wiresum.measure.model.links import Link
from wiresum.measure.model.step import Prediction, Setting, all_remedies, exposed_s, predict
from wiresum.measure.remedies import PLAIN, REMEDIES, Carrier

ETHERNET_GBIT = (0.1, 1.0, 2.5, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0)

GENTLE = (
    "fp16",
    "ranks-32",
    "ranks-16",
    "ranks-8",
    "powersgd",
    "top-k",
    "local-steps",
    "sparse-loco",
    "switch-32",
    "switch-16",
    "switch-8",
)
"""The remedies by how little they change what is summed, for each kind of carrier."""


class Effort(IntEnum):
    """The kinds of change, in the order of what they cost."""

    SOFTWARE = 0
    LINKS = 1
    SWITCH = 2
    RACKS = 3


@dataclass(frozen=True)
class Choice:
    """One thing that could be done. ``remedy``: what the runs would use then."""

    name: str
    title: str
    effort: Effort
    remedy: str
    prediction: Prediction
    saved_share: float
    """Of today's time per run; what several runs side by side save is the same."""
    worth: Worth
    sure_share: float
    """What is saved at the pessimistic ends of both intervals."""
    refused: str = ""
    """Why it is not proposed although it can be done; empty: it may be."""

    @property
    def lossy(self) -> bool:
        """Whether gradients are rounded to fewer bits than float32 has."""
        return self.remedy not in (PLAIN, "ranks-32", "switch-32")


@dataclass(frozen=True)
class Choices:
    """All of them. ``base``: the step without any change, under the protection that is to come."""

    base: Prediction
    found: tuple[Choice, ...]
    impossible: Mapping[str, str]
    best_possible_share: float
    """What communication that takes no time at all would save."""


def faster_gbit(now: float) -> float | None:
    """The next step of Ethernet that is at least twice as fast; None: there is none."""
    return next((each for each in ETHERNET_GBIT if each >= 2 * now), None)


def choices(
    job: Job,
    now: Setting,
    then: Setting,
    prices: Prices,
    costs: Costs,
    faster: float | None = None,
    measured: Mapping[str, tuple[float, float, float]] | None = None,
    rejected: Mapping[str, str] | None = None,
    missed: Collection[str] = (),
) -> Choices:
    """All that could be done for a job.

    ``now``: its network; ``then``: the same with the protection that is to come. ``faster``: the
    bandwidth of better links, Gbit/s. ``measured``: seconds of a step by remedy from a trial;
    ``rejected``: remedies that the trial rejects, with its reason; ``missed``: those of them whose
    loss was the reason, which holds for another carrier of the same bits.
    """
    measured, rejected = measured or {}, rejected or {}
    base = predict(job, REMEDIES[PLAIN], now, then, costs)
    predicted, impossible = all_remedies(job, now, then, costs)
    found = []
    for each in predicted:
        if each.remedy == PLAIN:
            continue
        prediction = _with_trial(each, base, measured)
        remedy = REMEDIES[each.remedy]
        switched = remedy.carrier is Carrier.SWITCH
        # The ranks and a switch sum to the same bits: what one loses the other loses.
        alike = (name for name in _same_bits(each.remedy) if name in missed and name in rejected)
        refused = rejected.get(each.remedy) or next((rejected[name] for name in alike), "")
        if each.remedy not in measured and not switched and not refused:
            if measured:
                refused = "not tried by the trial"
            elif not remedy.gentle:
                refused = "its accuracy depends on the model: only a trial can tell"
        effort = Effort.SWITCH if switched else Effort.SOFTWARE
        cost = _cost(prices.switch_cost, prices) if switched else prices.engineering
        found.append(
            _choice(
                (each.remedy, remedy.title), effort, each.remedy, prediction, base, prices, cost,
                refused,
            )
        )  # fmt: skip
    found += _links(job, now, then, prices, costs, faster, base)
    found.append(_racks(job, now, prices, base))
    nothing = job.step_s - job.exposed_s + exposed_s(job, 0.0)
    return Choices(base, tuple(found), impossible, max(0.0, 1 - nothing / base.step_s))


def _same_bits(name: str) -> tuple[str, ...]:
    """The remedy, and the one with another carrier of the same lanes."""
    remedy = REMEDIES[name]
    if remedy.carrier is Carrier.GLOO:
        return (name,)
    return tuple(f"{carrier}-{remedy.field}" for carrier in (Carrier.RANKS, Carrier.SWITCH))


def _with_trial(
    each: Prediction, base: Prediction, measured: Mapping[str, tuple[float, float, float]]
) -> Prediction:
    if each.remedy not in measured:
        return each
    low, middle, high = measured[each.remedy]
    exposed = max(0.0, middle - (base.step_s - base.exposed_s))
    return replace(
        each, step_s=middle, low_s=low, high_s=high, exposed_s=min(exposed, middle), measured=True
    )


def _cost(price: float | None, prices: Prices) -> float | None:
    """Of hardware, with the work on the software that it needs."""
    return None if price is None else price + (prices.engineering or 0.0)


def _choice(
    named: tuple[str, str],
    effort: Effort,
    remedy: str,
    prediction: Prediction,
    base: Prediction,
    prices: Prices,
    cost: float | None,
    refused: str = "",
) -> Choice:
    if effort is Effort.SOFTWARE and cost is None:
        cost = 0.0
    saved = 1 - prediction.step_s / base.step_s
    value = worth(prices, base.step_s, prediction.step_s, cost)
    sure = 1 - prediction.high_s / base.high_s
    return Choice(named[0], named[1], effort, remedy, prediction, saved, value, sure, refused)


def _links(
    job: Job,
    now: Setting,
    then: Setting,
    prices: Prices,
    costs: Costs,
    faster: float | None,
    base: Prediction,
) -> list[Choice]:
    wanted = faster if faster is not None else faster_gbit(now.link.beta_gbit)
    if wanted is None or wanted <= now.link.beta_gbit:
        return []
    link = Link(then.link.alpha_s, wanted * 1e9 / 8)
    prediction = predict(job, REMEDIES[PLAIN], now, replace(then, link=link), costs)
    return [
        _choice(
            ("links", f"links of {wanted:g} Gbit/s, nothing else changed"),
            Effort.LINKS,
            PLAIN,
            prediction,
            base,
            prices,
            prices.links_cost,
        )
    ]


def _racks(job: Job, now: Setting, prices: Prices, base: Prediction) -> Choice:
    """As many workers again. Twice the machines run for the time that is left."""
    prediction = more_workers(job, 2, now, base)
    value = worth(prices, base.step_s, prediction.step_s, prices.racks_cost)
    if prices.per_hour is not None and value.hours_before is not None:
        after = value.hours_after or 0.0
        per_run = (value.hours_before - 2 * after) * prices.per_hour
        month = None if prices.runs_per_month is None else per_run * prices.runs_per_month
        payback = None if month is None or prices.racks_cost is None else math.inf
        value = replace(value, saved_per_run=per_run, saved_per_month=month, payback_months=payback)
    return Choice(
        "racks",
        f"{2 * job.workers} workers in more racks, half the steps",
        Effort.RACKS,
        PLAIN,
        prediction,
        1 - prediction.step_s / base.step_s,
        value,
        1 - prediction.high_s / base.high_s,
        "it buys time, and no machine hours",
    )
