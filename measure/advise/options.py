"""What ``wiresum advise`` is told on its command line."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.measure.advise.errors import AdviceUsageError
from wiresum.measure.advise.money import Prices
from wiresum.measure.model.links import PROTECTIONS, Link, Protection

_MOST = 1e12
_MONEY = ("price_per_hour", "engineering_day", "links_cost", "switch_cost", "racks_cost")


class Protected(StrEnum):
    """Names of the protections."""

    NONE = "none"
    MACSEC = "macsec"
    WIREGUARD = "wireguard"

    @property
    def protection(self) -> Protection:
        """What it adds."""
        return PROTECTIONS[self.value]


@dataclass(frozen=True)
class Network:
    """The job's network, as it is and as it could be."""

    alpha_us: Annotated[
        float | None,
        Option(metavar="US", min=0, max=1e6, help="Latency of a link, one way, in microseconds."),
    ] = None
    beta_gbit: Annotated[
        float | None,
        Option(metavar="GBIT", min=1e-4, max=1e5, help="Bandwidth of a link, in Gbit/s."),
    ] = None
    mtu: Annotated[int, Option(min=576, max=65535, help="MTU of the links, in bytes.")] = 1500
    protection: Annotated[
        Protected,
        Option(help="What will encrypt and authenticate the job's traffic, and does not yet."),
    ] = Protected.NONE
    faster_gbit: Annotated[
        float | None,
        Option(
            metavar="GBIT",
            min=1e-4,
            max=1e5,
            help="Bandwidth of the links that you could buy.  [the next step of Ethernet]",
        ),
    ] = None

    def link(self, probed: Link | None) -> Link:
        """The slowest link; raises :class:`AdviceUsageError` if nobody says what it is."""
        alpha, beta = self.alpha_us, self.beta_gbit
        if probed is not None:
            alpha = probed.alpha_s * 1e6 if alpha is None else alpha
            beta = probed.beta_gbit if beta is None else beta
        if alpha is None or beta is None:
            raise AdviceUsageError(lines.LINKS_UNKNOWN.of())
        return Link.of(alpha, beta)


@dataclass(frozen=True)
class PriceOptions:
    """What runs cost, and what changes would cost; all are optional."""

    currency: Annotated[
        str | None, Option(metavar="CODE", help="Of all prices: EUR, USD, JPY, …")
    ] = None
    price_per_hour: Annotated[
        float | None,
        Option(min=0, max=_MOST, help="Of all machines of the job together."),
    ] = None
    runs_per_month: Annotated[float | None, Option(min=0, max=1e6, help="Runs like this one.")] = (
        None
    )
    hours_per_run: Annotated[
        float | None, Option(min=0, max=1e6, help="Hours that a run takes today.")
    ] = None
    steps_per_run: Annotated[
        float | None, Option(min=0, max=_MOST, help="Steps of a run, instead of its hours.")
    ] = None
    engineering_days: Annotated[
        float | None, Option(min=0, max=1e5, help="To change the software.")
    ] = None
    engineering_day: Annotated[
        float | None, Option(min=0, max=_MOST, help="Price of one such day.")
    ] = None
    links_cost: Annotated[
        float | None, Option(min=0, max=_MOST, help="Price of faster links for all hosts.")
    ] = None
    switch_cost: Annotated[
        float | None, Option(min=0, max=_MOST, help="Price of a switch that sums.")
    ] = None
    racks_cost: Annotated[
        float | None, Option(min=0, max=_MOST, help="Price of as many machines again.")
    ] = None
    horizon_months: Annotated[
        float, Option(min=0, max=1200, help="By when what is spent must have come back.")
    ] = 12.0

    def prices(self) -> Prices:
        """The prices; raises :class:`AdviceUsageError` for prices that make no sense together."""
        given = [name for name in _MONEY if getattr(self, name) is not None]
        if given and self.currency is None:
            option = "--" + given[0].replace("_", "-")
            raise AdviceUsageError(lines.NO_CURRENCY.of(option=option))
        if self.currency is not None and not re.fullmatch(r"[A-Za-z]{3}", self.currency):
            raise AdviceUsageError(lines.NOT_A_CURRENCY.of(text=self.currency))
        if self.hours_per_run is not None and self.steps_per_run is not None:
            raise AdviceUsageError(lines.HOURS_OR_STEPS.of())
        if self.engineering_days and self.engineering_day is None and given:
            raise AdviceUsageError(lines.DAYS_WITHOUT_PRICE.of())
        return Prices(
            currency=(self.currency or "").upper(),
            per_hour=self.price_per_hour,
            runs_per_month=self.runs_per_month,
            hours_per_run=self.hours_per_run,
            steps_per_run=self.steps_per_run,
            engineering_days=self.engineering_days,
            engineering_day=self.engineering_day,
            links_cost=self.links_cost,
            switch_cost=self.switch_cost,
            racks_cost=self.racks_cost,
            horizon_months=self.horizon_months,
        )
