"""What a trial is asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wiresum.measure import lines
from wiresum.measure.remedies import PLAIN, REMEDIES, Carrier, Remedy
from wiresum.measure.trial.errors import TrialUsageError

WARM_SHARE, LEAST_WARM = 0.1, 3
"""The first steps are left out of times and bytes: a tenth, and at least three, in which DDP builds
its buckets anew and PowerSGD sends plain gradients."""

TAIL = 0.2
"""The loss of a run is the mean over this last part of what the script has reported."""

LOSS_PATTERN = r"(?i)\bloss\b[ =:]+([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf))"
"""Finds a loss in a script's output: ``loss 2.31``, ``Loss: 2.31``, ``train loss=2.31e-1``."""


@dataclass(frozen=True)
class Target:
    """The accuracy to reach: a loss, or a distance from the plain run's."""

    within: float = 0.01
    """Largest relative excess over the plain run's loss with the same seed."""
    loss: float | None = None
    """If given, the largest loss, whatever the plain run has."""

    def __str__(self) -> str:
        if self.loss is not None:
            return f"a loss of at most {self.loss:g}"
        return f"a loss at most {100 * self.within:g} % above plain gloo's"


@dataclass(frozen=True)
class TrialOptions:
    """One trial."""

    command: Sequence[str]
    remedies: Sequence[Remedy]
    """In the order in which they run: the plain run first, then those of the fewest bytes."""
    target: Target
    steps: int
    seeds: int
    folder: Path
    controller: str | None = None
    pattern: str = LOSS_PATTERN
    patience_s: float = 300.0
    """How long a run may make no step."""

    @property
    def warm(self) -> int:
        """The first steps, which times and bytes leave out."""
        return max(LEAST_WARM, round(WARM_SHARE * self.steps))

    def run_options(self, remedy: Remedy) -> Sequence[str]:
        """Options of ``wiresum run`` for a remedy; empty: the command is run as it is."""
        if remedy.carrier is Carrier.SWITCH and self.controller:
            return (*remedy.run_options, "--controller", self.controller)
        return remedy.run_options


def chosen(names: Sequence[str], *, switch: bool) -> list[Remedy]:
    """The remedies of these names (none: all that need nothing), in the order of a trial.

    ``switch``: whether there is one. Raises ``TrialUsageError``.
    """
    known = ", ".join(REMEDIES)
    for name in names:
        if name not in REMEDIES:
            raise TrialUsageError(lines.UNKNOWN_REMEDY.of(name=name, names=known))
        if REMEDIES[name].needs and not switch:
            raise TrialUsageError(lines.REMEDY_NEEDS_SWITCH.of(name=name))
    wanted = names or [name for name, each in REMEDIES.items() if switch or not each.needs]
    plain, *others = [REMEDIES[PLAIN], *(REMEDIES[n] for n in dict.fromkeys(wanted) if n != PLAIN)]
    return [plain, *sorted(others, key=_order)]


def _order(remedy: Remedy) -> tuple[float, bool]:
    """Few bytes first, so that what follows can be ended early; those of a switch after others."""
    share = remedy.share()
    return (0.0 if share is None else share, remedy.carrier is Carrier.SWITCH)


def share_of(text: str) -> float:
    """``1%`` or ``0.01`` as a number. Raises ``TrialUsageError``."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", text)
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value < 1:
        raise TrialUsageError(lines.NOT_A_SHARE.of(text=text))
    return value


def pattern_of(text: str | None) -> str:
    """A regular expression with one group, the number. Raises ``TrialUsageError``."""
    if text is None:
        return LOSS_PATTERN
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise TrialUsageError(lines.NOT_A_PATTERN.of(text=text, why=error)) from None
    if groups != 1:
        raise TrialUsageError(lines.NOT_A_PATTERN.of(text=text, why=f"it has {groups} groups"))
    return text
