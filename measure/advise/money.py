"""Money and time of runs: only where the user gave prices."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """What the user said. Prices are in ``currency``; None: not said.

    ``per_hour``: of all the job's machines together. ``hours_per_run``: of a run as it is today.
    ``engineering_day``: what a day of an engineer costs. ``horizon_months``: how soon what is
    spent must have come back.
    """

    currency: str = ""
    per_hour: float | None = None
    runs_per_month: float | None = None
    hours_per_run: float | None = None
    steps_per_run: float | None = None
    engineering_days: float | None = None
    engineering_day: float | None = None
    links_cost: float | None = None
    switch_cost: float | None = None
    racks_cost: float | None = None
    horizon_months: float = 12.0

    def hours(self, step_s: float) -> float | None:
        """Hours of a run today."""
        if self.hours_per_run is not None:
            return self.hours_per_run
        return None if self.steps_per_run is None else self.steps_per_run * step_s / 3600

    @property
    def engineering(self) -> float | None:
        """What changing the software costs once; None: not said."""
        if self.engineering_days is None:
            return None
        return self.engineering_days * (self.engineering_day or 0.0)


@dataclass(frozen=True)
class Worth:
    """What a change of the step is worth. Money is None where a price is missing.

    ``payback_months``: infinite where nothing is saved.
    """

    hours_before: float | None
    hours_after: float | None
    saved_per_run: float | None
    saved_per_month: float | None
    cost: float | None
    payback_months: float | None

    def pays_back(self, horizon_months: float) -> bool | None:
        """Whether the cost is back within the horizon; None: the prices do not say."""
        if self.payback_months is None:
            return None
        return self.payback_months <= horizon_months


def worth(prices: Prices, before_s: float, after_s: float, cost: float | None) -> Worth:
    """Of a step that takes ``after_s`` instead of ``before_s`` seconds, for ``cost`` once."""
    before = prices.hours(before_s)
    after = None if before is None else before * after_s / before_s
    per_run = per_month = payback = None
    if before is not None and after is not None and prices.per_hour is not None:
        per_run = (before - after) * prices.per_hour
        if prices.runs_per_month is not None:
            per_month = per_run * prices.runs_per_month
            if cost is not None:
                payback = cost / per_month if per_month > 0 else math.inf
                payback = 0.0 if cost == 0 and per_month >= 0 else payback
    return Worth(before, after, per_run, per_month, cost, payback)
