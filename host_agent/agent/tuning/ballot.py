"""The ranks agree on the field: one word of each collective that they carry."""

import logging
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from wiresum.host_agent.agent.ballot import Ballot
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.face import Call
from wiresum.host_agent.agent.tuning.error import errors
from wiresum.host_agent.agent.tuning.policy import Policy, Reason, Window
from wiresum.host_agent.agent.tuning.wish import Wish

log = logging.getLogger("wiresum")

_SHIFT = 8
_MOST_SAID = 6
LARGE = 0.5
"""The error is measured on tensors of at least this share of the largest one seen."""


class Choice(NamedTuple):
    """A field, from a collective on."""

    collective: int
    """The first one, counted from 1."""
    field: int
    reason: str


class Tuning(Ballot):
    """The field of the collectives of one rank, chosen by all. Any thread may call the methods."""

    size = 1

    def __init__(self, wish: Wish, rank: int, workers: int) -> None:
        self.choices = [Choice(1, 32, Reason.START.words)]
        """So far; the same on all ranks, but for those that a rank has yet to make."""
        self._policy = Policy(wish)
        self._rank = rank
        self._workers = workers
        self._lock = threading.Lock()
        self._collectives = 0
        self._largest = 0
        self._measure = True  # the error, at the next large tensor
        self._took_s = self._exposed_s = 0.0
        self._steps = 0
        self._losses: list[float] = []
        COUNTERS.tuned = self.summary()

    # -- the training's side ------------------------------------------------------------------

    def step(self, took_s: float, exposed_s: float) -> None:
        """A step of the training has ended; it has waited ``exposed_s`` for collectives."""
        with self._lock:
            self._took_s += took_s
            self._exposed_s += exposed_s
            self._steps += 1
            if self._steps < self._policy.wish.steps:
                return
            share = min(1.0, self._exposed_s / self._took_s) if self._took_s > 0 else 0.0
            self._policy.window(Window(share, tuple(self._losses)))
            self._took_s = self._exposed_s = 0.0
            self._steps = 0
            self._losses.clear()
            self._measure = True

    def loss(self, value: float) -> None:
        """The script reports a loss."""
        with self._lock:
            self._losses.append(value)
            self._policy.loss(value)

    # -- the carrier's side: see Ballot -------------------------------------------------------

    @property
    def field(self) -> int:
        """Bits of an element, for the next collective."""
        return self._policy.field

    def looks_at(self, call: Call) -> None:
        """A collective begins; its tensor is still this rank's own."""
        data, count, dtype = call[:3]
        if dtype != "float32":
            return
        with self._lock:
            # What was measured before a tensor of twice the size was a small one.
            measure = self._measure or LARGE * count > self._largest
            self._largest = max(count, self._largest)
            if not measure or count < LARGE * self._largest:
                return
            self._measure = False
        found = errors(data, count, self._workers)
        with self._lock:
            self._policy.errors = found

    def words(self) -> Sequence[int]:
        """The field that this rank asks for, and its reason: the widest field is the largest."""
        with self._lock:
            return ((self._policy.asks << _SHIFT) | self._policy.reason,)

    def counted(self, largest: Sequence[int]) -> bool:
        """Take the widest field that any rank asks for, from the next collective on."""
        (word,) = largest
        with self._lock:
            self._collectives += 1
            bits, reason = word >> _SHIFT, Reason(word & ((1 << _SHIFT) - 1))
            before = self._policy.field
            if bits == before:
                return False
            self._policy.agreed(bits, reason)
            choice = Choice(self._collectives + 1, bits, reason.words)
            self.choices.append(choice)
            COUNTERS.tuned = self.summary()
            last, found = self._policy.last, self._policy.errors.get(bits)
        if self._rank == 0:
            log.warning(
                "wiresum: fields of %d bits, %d before, from collective %d on: %s (rank 0: %s)",
                *(bits, before, choice.collective, choice.reason),
                _figures(last, found),
            )
        return False

    def describe(self) -> dict[str, Any]:
        """For the statistics and the debug dump."""
        with self._lock:
            policy = self._policy
            return {
                "wish": str(policy.wish),
                "field": policy.field,
                "asks": policy.asks,
                "errors": dict(policy.errors),
                "exposed_share": None if policy.last is None else policy.last.exposed_share,
                "choices": [each._asdict() for each in self.choices],
            }

    def summary(self) -> str:
        """The choices in one line: ``32 bits, 16 from collective 41 on``; the last ones if many."""
        first, *others = self.choices
        said = [f"{each.field} from collective {each.collective} on" for each in others]
        if len(said) > _MOST_SAID:
            said = ["…", *said[-_MOST_SAID:]]
        return ", ".join([f"{first.field} bits", *said])


def _figures(window: Window | None, error: float | None) -> str:
    said = []
    if window is not None:
        said.append(f"{100 * window.exposed_share:.0f} % of the step exposed")
        if window.losses:
            said.append(f"loss {sum(window.losses) / len(window.losses):.4g}")
    if error is not None:
        said.append(f"error {100 * error:.2g} %")
    return ", ".join(said) or "no figures"


_tunings: list[Tuning] = []


def begin(tuning: Tuning) -> None:
    """Let the training's steps and losses reach ``tuning`` from now on, and no earlier one."""
    _tunings[:] = [tuning]


def current() -> Tuning | None:
    """That of this process's job; None if there is none."""
    return _tunings[0] if _tunings else None
