"""Which jobs and networks predictions are checked on."""

from dataclasses import dataclass

from wiresum.measure import lines
from wiresum.measure.remedies import REMEDIES
from wiresum.testbed.errors import RackUsageError

MIB = 1 << 20


@dataclass(frozen=True)
class Model:
    """A stand-in for a model on an accelerator: layers that take time and have gradients.

    ``layers`` layers alike hold ``size`` bytes of float32 together. A step computes for
    ``compute_ms``: a third of it forwards, the rest backwards. Computing is waiting, which leaves
    the cores free, as an accelerator does.
    """

    name: str
    size: int
    layers: int
    compute_ms: float


MODELS = {
    each.name: each
    for each in (
        Model("wide", 4 * MIB, 8, 100.0),  # much to send, little to compute
        Model("even", 4 * MIB, 8, 600.0),
        Model("deep", 1 * MIB, 8, 1500.0),  # little to send, much to compute
    )
}


@dataclass(frozen=True)
class Case:
    """``unequal``: the last worker's link has half of the rate."""

    model: Model
    rate_mbit: float
    workers: int
    unequal: bool = False

    @property
    def rates(self) -> list[float]:
        """Mbit/s of each worker's link."""
        rates = [self.rate_mbit] * self.workers
        if self.unequal:
            rates[-1] /= 2
        return rates

    def __str__(self) -> str:
        unequal = ", one at half of it" if self.unequal else ""
        return f"{self.model.name}, {self.rate_mbit:g} Mbit/s{unequal}, {self.workers} workers"


@dataclass(frozen=True)
class Options:
    """One run."""

    rates: tuple[float, ...]
    workers: tuple[int, ...]
    models: tuple[str, ...]
    remedies: tuple[str, ...]
    steps: int = 6
    unequal: bool = True
    name: str = "advise"

    def case_list(self) -> list[Case]:
        """All cases; the one with unequal links is the first rate's and model's."""
        found = [
            Case(MODELS[model], rate, workers)
            for rate in self.rates
            for workers in self.workers
            for model in self.models
        ]
        if self.unequal:
            first = Case(MODELS[self.models[0]], self.rates[0], max(self.workers), unequal=True)
            found.append(first)
        return found


def parse_models(text: str) -> tuple[str, ...]:
    """Parse ``wide,even``. Raises ``RackUsageError``."""
    return _names("--models", text, list(MODELS))


def parse_remedies(text: str) -> tuple[str, ...]:
    """Parse ``fp16,ranks-8``; plain gloo is always measured. Raises ``RackUsageError``."""
    return _names("--remedies", text, list(REMEDIES)[1:])


def _names(option: str, text: str, known: list[str]) -> tuple[str, ...]:
    items = [item.strip() for item in text.split(",")]
    if not set(items) <= set(known) or len(set(items)) < len(items):
        raise RackUsageError(
            lines.UNKNOWN_NAMES.of(option=option, text=text, known=", ".join(known))
        )
    return tuple(items)
