"""The decision: stop here, change the software, or invest. A pure function of figures and prices.

1. Exposed communication is at most the threshold: **stop here**; nothing can save more than that.
2. Communication that took no time at all would save less than the threshold, because the rest is
   waiting for late ranks: **stop here**.
3. Where prices tell what every change brings and costs: the change with the largest gain within
   the horizon; **stop here** if none comes back in that time.
4. Else **software**, if it saves more than the threshold; else **infrastructure**, the cheapest
   kind that does: faster links, then a switch; else **stop here**.

More racks shorten a run and save no machine hours: they are proposed only where a run must end in
time and nothing cheaper brings it there.

A change counts only if it is likely enough: at the pessimistic ends of the intervals, software must
still save something, and hardware more than the threshold.

Of several software changes, the gentlest counts that saves at least four fifths of the most that
any of them saves: bits that are kept cost little then. A switch counts with as many bits as the
software that would be chosen, so that both lose the same.
"""

from dataclasses import dataclass
from enum import StrEnum

from wiresum.measure.advise.choices import GENTLE, Choice, Choices, Effort
from wiresum.measure.advise.money import Prices
from wiresum.measure.model.job import Job
from wiresum.measure.remedies import REMEDIES

ENOUGH = 0.8
"""Of what the best change of a kind saves, what a gentler one must save to be preferred."""


class Verdict(StrEnum):
    """What to do."""

    STOP = "stop here"
    SOFTWARE = "software"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Decision:
    """The verdict, what it proposes, and why. ``choice``: None for *stop here*."""

    verdict: Verdict
    choice: Choice | None
    because: str


def decide(
    job: Job,
    options: Choices,
    prices: Prices,
    threshold: float,
    wanted_hours: float | None = None,
) -> Decision:
    """Decide; ``wanted_hours``: how long a run may take at most, if that matters."""
    limit = f"{100 * threshold:.0f} %"
    base_exposed = options.base.exposed_share
    if base_exposed <= threshold and wanted_hours is None:
        return Decision(
            Verdict.STOP,
            None,
            f"{100 * base_exposed:.1f} % of a step is exposed communication: no change of the "
            f"network can save more than that (the threshold is {limit})",
        )
    if options.best_possible_share <= threshold and wanted_hours is None:
        return Decision(
            Verdict.STOP,
            None,
            f"communication that took no time at all would save {_share(options)} of a step "
            f"(the threshold is {limit}): the rest is waiting for ranks that come later",
        )
    able = _able(options, threshold)
    if wanted_hours is not None:
        return _in_time(options, able, wanted_hours, job)
    if not able:
        most = max((each.saved_share for each in options.found if not each.refused), default=0.0)
        return Decision(
            Verdict.STOP,
            None,
            f"no change saves more than {limit} of a step for sure (the best is predicted to save "
            f"{100 * max(0.0, most):.1f} %)",
        )
    if all(each.worth.payback_months is not None for each in able):
        return _by_money(able, prices)
    chosen = min(able, key=lambda each: each.effort)
    return Decision(_kind(chosen), chosen, _saves(chosen))


def _share(options: Choices) -> str:
    return f"{100 * options.best_possible_share:.1f} %"


def _kind(choice: Choice) -> Verdict:
    return Verdict.SOFTWARE if choice.effort is Effort.SOFTWARE else Verdict.INFRASTRUCTURE


def _saves(choice: Choice) -> str:
    how = "measured by the trial" if choice.prediction.measured else "predicted"
    return f"{choice.title}: saves {100 * choice.saved_share:.0f} % of a step ({how})"


def _counts(choice: Choice, threshold: float) -> bool:
    """Whether it saves more than the threshold: hardware surely, software at least something."""
    least = 0.0 if choice.effort is Effort.SOFTWARE else threshold
    return not choice.refused and choice.saved_share > threshold and choice.sure_share > least


def _best(options: Choices, effort: Effort, threshold: float) -> Choice | None:
    """The gentlest change of one kind that saves nearly as much as the best of it."""
    found = [each for each in options.found if each.effort is effort and _counts(each, threshold)]
    if not found:
        return None
    most = max(each.saved_share for each in found)
    good = [each for each in found if each.saved_share >= ENOUGH * most]
    order = {name: at for at, name in enumerate(GENTLE)}
    return min(good, key=lambda each: order.get(each.name, len(order)))


def _able(options: Choices, threshold: float) -> list[Choice]:
    """The best of each kind that saves more than the threshold, in the order of cost."""
    software = _best(options, Effort.SOFTWARE, threshold)
    found = [software, *(_best(options, effort, threshold) for effort in list(Effort)[1:])]
    bits = None if software is None else REMEDIES[software.remedy].field
    alike = f"switch-{bits}"
    for each in options.found:
        if each.name == alike and _counts(each, threshold):
            found[Effort.SWITCH] = each
    return [each for each in found if each is not None]


def _by_money(able: list[Choice], prices: Prices) -> Decision:
    horizon = prices.horizon_months

    def gain(each: Choice) -> float:
        return (each.worth.saved_per_month or 0.0) * horizon - (each.worth.cost or 0.0)

    paying = [each for each in able if each.worth.pays_back(horizon)]
    if not paying:
        soonest = min(able, key=lambda each: each.worth.payback_months or 0.0)
        return Decision(
            Verdict.STOP,
            None,
            f"nothing comes back within {horizon:g} months; the soonest is {soonest.name}, after "
            f"{soonest.worth.payback_months:.1f}",
        )
    chosen = max(paying, key=lambda each: (gain(each), -each.effort))
    return Decision(_kind(chosen), chosen, _saves(chosen))


def _in_time(options: Choices, able: list[Choice], wanted_hours: float, job: Job) -> Decision:
    """The cheapest kind of change with which a run ends in time."""
    today = next(each.worth.hours_before for each in options.found)
    if today is not None and today <= wanted_hours:
        why = f"a run takes {today:.3g} hours today, and {wanted_hours:g} are allowed"
        return Decision(Verdict.STOP, None, why)
    racks = [each for each in options.found if each.effort is Effort.RACKS]
    for each in sorted([*able, *racks], key=lambda each: each.effort):
        if each.worth.hours_after is not None and each.worth.hours_after <= wanted_hours:
            return Decision(_kind(each), each, f"{_saves(each)}: the cheapest that is in time")
    return Decision(
        Verdict.STOP,
        None,
        f"no single change brings a run of this job under {wanted_hours:g} hours",
    )
