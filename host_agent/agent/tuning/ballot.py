"""The ranks agree on the field, whatever carries their collectives.

With every few collectives goes a word more, of which the largest counts: what this rank asks for.
What it says on all ranks holds from the next collective on that has such a word. That one waits
until the word before is there, so all ranks change their field between the same collectives.
"""

import array
import logging
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from wiresum.host_agent._engine import SMALL
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.face import Call, Ended, Finished, Unit
from wiresum.host_agent.agent.gate import Gate, Passed
from wiresum.host_agent.agent.tuning.error import errors
from wiresum.host_agent.agent.tuning.policy import Policy, Reason, Window
from wiresum.host_agent.agent.tuning.wish import Wish

log = logging.getLogger("wiresum")

_SHIFT = 8
_MOST_SAID = 6
EVERY = 4
"""Collectives with a field from one word to the next: so many may be in flight while it travels."""

FLOATS = ("float32", "float16", "bfloat16")

LARGE = 0.5
"""The error is measured on tensors of at least this share of the largest one seen."""


class Choice(NamedTuple):
    """A field, from a collective on."""

    collective: int
    """The first one, counted from 1."""
    field: int
    reason: str


class _Stamped(tuple[Call, ...]):
    """A collective as the engine gets it: its floats have a field, and it may have a word more."""

    plain: Unit
    """As the caller has asked for it."""


class Tuning(Gate):
    """The field of the collectives of one rank, chosen by all. Any thread may call the methods."""

    def __init__(self, wish: Wish, rank: int, workers: int) -> None:
        self.choices = [Choice(1, 32, Reason.START.words)]
        """So far; the same on all ranks, but for those that a rank has yet to make."""
        self._policy = Policy(wish)
        self._rank = rank
        self.workers = workers
        self._lock = threading.Lock()
        self._collectives = 0  # that have passed
        self._with_field = 0  # of these
        self._words: dict[int, array.array[int]] = {}  # that are in flight, by ticket
        self._said: tuple[int, Reason] | None = None  # on all ranks, for the next word on
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

    # -- the collectives: see Gate ------------------------------------------------------------

    @property
    def field(self) -> int:
        """Bits of an element, of the collectives that pass now."""
        return self._policy.field

    def holds(self, unit: Unit) -> bool:
        """A word is due, and the one before is not there yet."""
        due = self._with_field % EVERY == 0 and not isinstance(unit, _Stamped)
        return due and bool(self._words)

    def passing(self, unit: Unit) -> Unit:
        """Give its floats their field, and, if one is due, the collective a word more.

        Tickets of the engine are twice the caller's; an odd one is a word's.
        """
        if isinstance(unit, _Stamped):  # another engine has given it back
            return unit
        self._collectives += 1
        word: tuple[Call, ...] = ()
        if any(map(_has_field, unit)):
            for call in unit:
                self._look_at(call)
            if self._with_field % EVERY == 0:
                word = (self._word(2 * unit[-1].ticket + 1),)
            self._with_field += 1
        stamped = _Stamped(
            (
                *(
                    call._replace(
                        ticket=2 * call.ticket, field=self.field if _has_field(call) else 0
                    )
                    for call in unit
                ),
                *word,
            )
        )
        stamped.plain = unit
        return stamped

    def refused(self, unit: Unit) -> None:
        """Nobody will hear of its word."""
        for call in unit:
            self._words.pop(call.ticket, None)

    def asked(self, unit: Unit) -> Unit:
        """See :class:`~wiresum.host_agent.agent.gate.Gate`."""
        return unit.plain if isinstance(unit, _Stamped) else unit

    def ended(self, batch: Sequence[Finished]) -> Passed:
        """Take the words out of what has ended."""
        callers: list[Finished] = []
        own = []
        for each in batch:
            if each.ticket % 2 == 0:
                callers.append(Ended(each.ticket // 2, each.error, each.kind, each.nonfinite))
                continue
            own.append(each)
            said = self._words.pop(each.ticket, None)
            if said is not None and each.error is None:
                self._said = said[0] >> _SHIFT, Reason(said[0] & ((1 << _SHIFT) - 1))
        return Passed(callers, own)

    def _word(self, ticket: int) -> Call:
        """What this rank asks for, to be summed; what all have said before holds from now on."""
        if self._said is not None:
            self._take(*self._said)
        with self._lock:
            said = array.array("I", [(self._policy.asks << _SHIFT) | self._policy.reason])
        self._words[ticket] = said
        return Call(said.buffer_info()[0], 1, "max_uint32", False, ticket)

    def _look_at(self, call: Call) -> None:
        """A collective begins; its tensor is still this rank's own."""
        data, count, dtype = call[:3]
        if dtype != "float32" or call.source >= 0:
            return
        with self._lock:
            # What was measured before a tensor of twice the size was a small one.
            measure = self._measure or LARGE * count > self._largest
            self._largest = max(count, self._largest)
            if not measure or count < LARGE * self._largest:
                return
            self._measure = False
        found = errors(data, count, self.workers)
        with self._lock:
            self._policy.errors = found

    def _take(self, bits: int, reason: Reason) -> None:
        """Take the widest field that any rank has asked for, from this collective on."""
        with self._lock:
            before = self._policy.field
            if bits == before:
                return
            self._policy.agreed(bits, reason)
            choice = Choice(self._collectives, bits, reason.words)
            self.choices.append(choice)
            COUNTERS.tuned = self.summary()
            last, found = self._policy.last, self._policy.errors.get(bits)
        if self._rank == 0:
            log.warning(
                "wiresum: fields of %d bits, %d before, from collective %d on: %s (rank 0: %s)",
                *(bits, before, choice.collective, choice.reason),
                _figures(last, found),
            )

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


def _has_field(call: Call) -> bool:
    """Whether it is a sum whose elements may have fewer bits; the same on all ranks."""
    return call.source < 0 and call.dtype in FLOATS and call.count > SMALL


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
