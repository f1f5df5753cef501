"""What would change the answer: figures at which another verdict would be right."""

import math
from collections.abc import Callable
from dataclasses import replace

from wiresum.measure.advise.choices import Choice, Choices, Effort
from wiresum.measure.advise.money import Prices
from wiresum.measure.advise.verdict import Decision, Verdict
from wiresum.measure.model.costs import Costs
from wiresum.measure.model.growth import with_workers
from wiresum.measure.model.job import Job
from wiresum.measure.model.links import Link
from wiresum.measure.model.step import Setting, predict
from wiresum.measure.remedies import PLAIN, REMEDIES

_ROUNDS = 60
_MOST_GBIT = 10_000.0
_LEAST_GBIT = 1e-4
_MOST_WORKERS = 10_000


def changes(
    job: Job,
    now: Setting,
    options: Choices,
    decision: Decision,
    prices: Prices,
    costs: Costs,
    threshold: float,
) -> list[str]:
    """Sentences, the most telling first."""
    found = []
    exposed = exposure(job, now, costs)
    if decision.verdict is Verdict.STOP and options.base.exposed_share <= threshold:
        slower = _edge(lambda gbit: exposed(gbit) > threshold, now.link.beta_gbit, _LEAST_GBIT)
        if slower is not None:
            found.append(f"links of {slower:.3g} Gbit/s or less: exposed communication above it")
        workers = _workers_for(job, now, threshold)
        if workers is not None:
            found.append(f"{workers} workers or more on the same links, each with the same batch")
        found.append("a faster accelerator or a smaller batch: less computation to hide behind")
    elif decision.verdict is not Verdict.STOP:
        enough = _edge(lambda gbit: exposed(gbit) <= threshold, now.link.beta_gbit, _MOST_GBIT)
        if enough is not None:
            found.append(f"links of {enough:.3g} Gbit/s or more: nothing would be worth it then")
        else:
            found.append("no link makes plain gloo hide: its own software is the limit")
    if decision.choice is not None and not decision.choice.prediction.measured:
        low = 1 - decision.choice.prediction.high_s / options.base.step_s
        if low <= threshold:
            found.append(
                "the interval reaches down to no gain: a trial on the same links decides it"
            )
        if decision.choice.lossy:
            found.append(
                "a trial that shows a worse loss with "
                f"{decision.choice.name}: the next gentler remedy is right then"
            )
    if job.waiting_s > 0.25 * job.comm_s:
        found.append(
            f"{100 * job.waiting_s / job.comm_s:.0f} % of the communication is waiting for late "
            "ranks: balance their work first, then measure again"
        )
    found += _by_price(decision, options, prices)
    return found


def exposure(job: Job, now: Setting, costs: Costs) -> Callable[[float], float]:
    """The exposed share of a step of plain gloo, by the bandwidth of links in Gbit/s."""

    def share(gbit: float) -> float:
        then = replace(now, link=Link(now.link.alpha_s, gbit * 1e9 / 8))
        return predict(job, REMEDIES[PLAIN], now, then, costs).exposed_share

    return share


def _edge(holds: Callable[[float], bool], now: float, limit: float) -> float | None:
    """Where something that grows from ``now`` towards ``limit`` begins to hold; None: nowhere."""
    if not holds(limit):
        return None
    near, far = now, limit
    for _ in range(_ROUNDS):
        middle = math.sqrt(near * far)
        near, far = (near, middle) if holds(middle) else (middle, far)
    return far


def _workers_for(job: Job, now: Setting, threshold: float) -> int | None:
    workers = 2 * job.workers
    while workers <= _MOST_WORKERS:
        if with_workers(job, workers, now).exposed_share > threshold:
            return workers
        workers *= 2
    return None


def _by_price(decision: Decision, options: Choices, prices: Prices) -> list[str]:
    """The price at which the hardware that was not chosen would pay."""
    found = []
    for each in options.found:
        if each.effort is Effort.SOFTWARE or each is decision.choice or each.refused:
            continue
        if each.worth.saved_per_month is None or each.worth.cost is not None:
            continue
        most = each.worth.saved_per_month * prices.horizon_months
        if most > 0 and _first_of_its_kind(each, options):
            found.append(
                f"{each.name} for less than {most:,.0f} {prices.currency}: back within "
                f"{prices.horizon_months:g} months, beside today's runs"
            )
    return found


def _first_of_its_kind(choice: Choice, options: Choices) -> bool:
    same = [each for each in options.found if each.effort is choice.effort and not each.refused]
    return choice is max(same, key=lambda each: each.saved_share)
