"""The remedies against communication that a training can try: one table, for all who name them.

A remedy is a way to carry DDP's all-reduces of a script that stays as it is, or to do with fewer.
Factors are bytes that one worker sends per step, relative to plain gloo in float32 on the same
number of workers; headers are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from wiresum.host_agent.remedies.spec import VARIABLE as HOOK_VARIABLE

EXPONENTS = 1 / 256
"""Wiresum's exponents: one word for a block of 256 elements, as a share of float32's bytes."""


class Carrier(StrEnum):
    """What carries a remedy's all-reduces."""

    GLOO = "gloo"
    RANKS = "ranks"
    SWITCH = "switch"


@dataclass(frozen=True)
class Remedy:
    """One row of the table."""

    name: str
    title: str
    """In a few words, for tables."""
    carrier: Carrier
    field: int | None = None
    """Bits of an element on the wire; None where the bytes depend on the model (PowerSGD)."""
    hook: str = ""
    """What is put on the DDP models, see ``host_agent/remedies``; empty: nothing."""
    density: float = 1.0
    """The part of the elements that is sent."""
    calls: int = 1
    """All-reduces of one bucket, one after the other."""
    every: int = 1
    """Steps between synchronizations."""
    needs: str = ""
    """What must be there beside the training's own hosts; empty: nothing."""

    @property
    def run_options(self) -> tuple[str, ...]:
        """Options of ``wiresum run``; empty: the command is run as it is."""
        if self.carrier is Carrier.GLOO:
            return ()
        return ("--as-default", "--carrier", self.carrier.value, "--field", str(self.field))

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for the command, beside those that ``wiresum run`` sets."""
        return {HOOK_VARIABLE: self.hook} if self.hook else {}

    @property
    def has_exponents(self) -> bool:
        """Whether exponents go ahead of the elements."""
        return self.carrier is not Carrier.GLOO or self.density < 1

    @property
    def chooses(self) -> bool:
        """Whether its hook computes what to send from the whole gradient."""
        return self.field is None or self.density < 1

    @property
    def gentle(self) -> bool:
        """Whether its loss is likely to be plain gloo's: all gradients are summed at each step."""
        return self.hook in ("", "fp16")

    def share(self) -> float | None:
        """Bytes per step on this wire format, relative to float32; None: not known ahead."""
        if self.field is None:
            return None
        exponents = EXPONENTS if self.has_exponents else 0.0
        return (self.density * self.field / 32 + exponents) / self.every

    def bytes_factor(self, workers: int) -> float | None:
        """Bytes that one of ``workers`` sends, relative to gloo's ring in float32.

        A ring sends a tensor 2(n−1)/n times, a worker of a switch once. None: not known ahead.
        Raises ``ValueError`` for fewer than two workers.
        """
        if workers < 2:
            raise ValueError(f"{workers} workers have nothing to send each other")
        share = self.share()
        if share is None:
            return None
        return share * sent(self.carrier, workers) / sent(Carrier.GLOO, workers)


def sent(carrier: Carrier, workers: int) -> float:
    """How often one of ``workers`` sends each byte of a tensor that is all-reduced."""
    return 1.0 if carrier is Carrier.SWITCH else 2 * (workers - 1) / workers


def _ranks(field: int) -> Remedy:
    title = f"wiresum, the ranks sum {field}-bit fields"
    return Remedy(f"ranks-{field}", title, Carrier.RANKS, field)


def _switch(field: int) -> Remedy:
    title = f"wiresum, a switch sums {field}-bit fields"
    return Remedy(f"switch-{field}", title, Carrier.SWITCH, field, needs="a switch")


PLAIN = "gloo"
"""The remedy that is none: what all others are compared with."""

REMEDIES: Mapping[str, Remedy] = MappingProxyType(
    {
        each.name: each
        for each in (
            Remedy(PLAIN, "plain gloo", Carrier.GLOO, 32),
            Remedy("fp16", "torch's fp16 hook over gloo", Carrier.GLOO, 16, hook="fp16"),
            Remedy(
                "powersgd",
                "torch's PowerSGD hook, rank 1",
                Carrier.GLOO,
                hook="powersgd",
                calls=3,
            ),
            Remedy(
                "top-k",
                "a tenth of the blocks in 8 bits, the rest later",
                Carrier.GLOO,
                8,
                hook="top-k:k=0.1,bits=8",
                density=0.1,
                calls=2,
            ),
            Remedy(
                "local-steps",
                "the models' mean every 8 steps",
                Carrier.GLOO,
                32,
                hook="local-steps:h=8",
                every=8,
            ),
            Remedy(
                "sparse-loco",
                "a tenth of the models' change in 8 bits, every 8 steps",
                Carrier.GLOO,
                8,
                hook="sparse-loco:h=8,k=0.1,bits=8",
                density=0.1,
                calls=2,
                every=8,
            ),
            _ranks(32),
            _ranks(16),
            _ranks(8),
            _switch(32),
            _switch(16),
            _switch(8),
        )
    }
)
"""All remedies by name; the plain run first, what needs more hardware last."""
