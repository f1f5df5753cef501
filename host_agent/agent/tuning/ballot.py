"""The ranks agree on the field, and on what carries, whatever carries their collectives.

With every few collectives go words more, of which the largest count: what this rank asks for. What
they say on all ranks holds from the next collective on that has such words. That one waits until
the words before are there, so all ranks change their field between the same collectives, and begin
to go over to another carrier at the same one.
"""

import array
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from wiresum.host_agent._engine import SMALL
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.face import Call, Ended, Finished, Unit
from wiresum.host_agent.agent.gate import Gate, Passed
from wiresum.host_agent.agent.tuning.carrier import NOT_READY, CarrierPolicy, Decision, Why
from wiresum.host_agent.agent.tuning.error import errors
from wiresum.host_agent.agent.tuning.policy import Policy, Reason, Window
from wiresum.host_agent.agent.tuning.wish import Wish

log = logging.getLogger("wiresum")

_SHIFT = 8
_MOST_SAID = 6
EVERY = 4
"""Collectives with a field from the words of one to the next ones: so many may be in flight while
they travel."""

FLOATS = ("float32", "float16", "bfloat16")

LARGE = 0.5
"""The error is measured on tensors of at least this share of the largest one seen."""


SUGGESTED_H = 8
"""Of the local steps that a run is told of, where fields do not help enough."""

MUCH_EXPOSED = 0.2
"""Above this share of a step it is told of them."""

SETTLED = 3
"""Windows without another field, before that."""


class Choice(NamedTuple):
    """A field, from a collective on."""

    collective: int
    """The first one, counted from 1."""
    field: int
    reason: str


class CarrierChoice(NamedTuple):
    """A carrier, from a collective on."""

    collective: int
    carrier: str
    reason: str
    step_ms: Mapping[str, float]
    """Of the carriers that were compared: the mean time of a step."""


class IntervalChoice(NamedTuple):
    """H of local steps, from a step on."""

    step: int
    h: int
    reason: str


class _Stamped(tuple[Call, ...]):
    """A collective as the engine gets it: its floats have a field, and it may have words more."""

    plain: Unit
    """As the caller has asked for it."""


class Tuning(Gate):
    """Field and carrier of one rank's collectives, chosen by all. Any thread may call the methods.

    :meth:`carriers` says between what it chooses; without, it chooses the field alone.
    """

    def __init__(self, wish: Wish, rank: int, workers: int) -> None:
        self.choices = [Choice(1, 32, Reason.START.words)]
        """So far; the same on all ranks, but for those that a rank has yet to make."""
        self.carrier_choices: list[CarrierChoice] = []
        """The same on all ranks."""
        self.interval_choices: list[IntervalChoice] = []
        """The same on all ranks."""
        self._policy = Policy(wish)
        self._carrier_policy = CarrierPolicy((), wish.steps)
        self._carrier: Callable[[], str] = str
        self._prefer: Callable[[Decision], None] = lambda _decision: None
        self.has_local_steps = False
        """Whether the script synchronizes every H steps, or was told that it could."""
        self._settled = 0  # windows without another field
        self._is_free: Callable[[], bool] = lambda: True
        self._rank = rank
        self.workers = workers
        self._lock = threading.Lock()
        self._collectives = 0  # that have passed
        self._with_field = 0  # of these
        self._words: dict[int, array.array[int]] = {}  # that are in flight, by ticket
        self._said: Sequence[int] | None = None  # on all ranks, for the next words on
        self._largest = 0
        self._measure = True  # the error, at the next large tensor
        self._took_s = self._exposed_s = 0.0
        self._steps = 0
        self._losses: list[float] = []
        COUNTERS.tuned = self.summary()

    def carriers(
        self,
        candidates: Sequence[str],
        *,
        carrier: Callable[[], str],
        prefer: Callable[[Decision], None],
        is_free: Callable[[], bool],
    ) -> None:
        """Choose the carrier, too, of two ``candidates``; before any collective.

        ``carrier``: what carries now. ``prefer`` is called on all ranks with the same choices, in
        the order of the collectives, under the relay's lock. ``is_free``: whether another carrier
        may be tried.
        """
        self._carrier_policy = CarrierPolicy(candidates, self._policy.wish.steps)
        self._carrier, self._prefer, self._is_free = carrier, prefer, is_free

    # -- the training's side ------------------------------------------------------------------

    def step(self, took_s: float, exposed_s: float) -> None:
        """A step of the training has ended; it has waited ``exposed_s`` for collectives."""
        carrier = self._carrier()
        with self._lock:
            self._carrier_policy.step(took_s, exposed_s, carrier, self._policy.field)
            self._took_s += took_s
            self._exposed_s += exposed_s
            self._steps += 1
            if self._steps < self._policy.wish.steps:
                return
            share = min(1.0, self._exposed_s / self._took_s) if self._took_s > 0 else 0.0
            self._policy.window(Window(share, tuple(self._losses)))
            self._settled += 1
            self._suggest(share)
            self._took_s = self._exposed_s = 0.0
            self._steps = 0
            self._losses.clear()
            self._measure = True

    def _suggest(self, share: float) -> None:
        """Say once what local steps would save, where the field is as narrow as it may be.

        They are another algorithm than that of the script, so they are not for the run to choose.
        """
        settled = self._settled > SETTLED and self._policy.asks == self._policy.field
        if self.has_local_steps or not settled or share < MUCH_EXPOSED:
            return
        self.has_local_steps = True
        if self._rank == 0:
            log.warning(
                "wiresum: %.0f %% of a step is still exposed: with wiresum.optim.LocalSGD or "
                "DiLoCo, which synchronize every H steps, it would take about %.2g of its time at "
                "H = %d; try it first: wiresum trial --candidates local-steps",
                *(100 * share, 1 - share + share / SUGGESTED_H, SUGGESTED_H),
            )

    def loss(self, value: float) -> None:
        """The script reports a loss."""
        with self._lock:
            self._losses.append(value)
            self._policy.loss(value)

    def interval(self, choice: IntervalChoice) -> None:
        """The ranks have chosen an H."""
        with self._lock:
            self.interval_choices.append(choice)
            COUNTERS.tuned = self.summary()

    # -- the collectives: see Gate ------------------------------------------------------------

    @property
    def field(self) -> int:
        """Bits of an element, of the collectives that pass now."""
        return self._policy.field

    def holds(self, unit: Unit) -> bool:
        """Words are due, and the ones before are not there yet."""
        due = self._with_field % EVERY == 0 and not isinstance(unit, _Stamped)
        return due and bool(self._words)

    def passing(self, unit: Unit) -> Unit:
        """Give its floats their field, and, if they are due, the collective words more.

        Tickets of the engine are twice the caller's; an odd one is that of words.
        """
        if isinstance(unit, _Stamped):  # another engine has given it back
            return unit
        self._collectives += 1
        word: tuple[Call, ...] = ()
        if any(map(_has_field, unit)):
            for call in unit:
                self._look_at(call)
            if self._with_field % EVERY == 0:
                word = (self._ask(2 * unit[-1].ticket + 1),)
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
        """Nobody will hear of its words."""
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
                self._said = said.tolist()
        return Passed(callers, own)

    def _ask(self, ticket: int) -> Call:
        """What this rank asks for; what all have said before holds from now on."""
        if self._said is not None:
            field, *times = self._said
            bits, reason = field >> _SHIFT, Reason(field & ((1 << _SHIFT) - 1))
            if not self._take(bits, reason):
                self._go_over(times)
            self._said = None
        is_free = bool(self._carrier_policy.tried) or self._is_free()
        with self._lock:
            field = (self._policy.asks << _SHIFT) | self._policy.reason
            own = self._carrier_policy.words() if is_free else (NOT_READY, 0)
        said = array.array("I", [field, *own])
        self._words[ticket] = said
        return Call(said.buffer_info()[0], len(said), "max_uint32", False, ticket)

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

    def _take(self, bits: int, reason: Reason) -> bool:
        """Take the widest field that any rank has asked for, from this collective on.

        Whether it is another one than before.
        """
        with self._lock:
            before = self._policy.field
            if bits == before:
                return False
            self._policy.agreed(bits, reason)
            self._settled = 0
            choice = Choice(self._collectives, bits, reason.words)
            self.choices.append(choice)
            COUNTERS.tuned = self.summary()
            last, found = self._policy.last, self._policy.errors.get(bits)
            decision = self._carrier_policy.field_changed(bits)
        if self._rank == 0:
            log.warning(
                "wiresum: fields of %d bits, %d before, from collective %d on: %s (rank 0: %s)",
                *(bits, before, choice.collective, choice.reason),
                _figures(last, found),
            )
        if decision is not None:
            self._decided(decision)
        return True

    def _go_over(self, times: Sequence[int]) -> None:
        """What the times of all ranks say on the carrier, from this collective on."""
        with self._lock:
            decision = self._carrier_policy.agreed(times)
        if decision is not None:
            self._decided(decision)

    def _decided(self, decision: Decision) -> None:
        step_ms = {carrier: time.mean / 1000 for carrier, time in decision.times}
        choice = CarrierChoice(self._collectives, decision.carrier, decision.why.words, step_ms)
        with self._lock:
            self.carrier_choices.append(choice)
            COUNTERS.tuned = self.summary()
        if self._rank == 0:
            took = [
                f"{time.mean / 1000:.4g} ms ± {time.doubt / 1000:.2g} over the {carrier}"
                for carrier, time in decision.times
            ]
            log.log(
                logging.INFO if decision.why is Why.TRY else logging.WARNING,
                "wiresum: the %s shall sum from collective %d on: %s%s",
                *(choice.carrier, choice.collective, choice.reason),
                f" (a step takes {', '.join(took)})" if took else "",
            )
        self._prefer(decision)

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
                "carrier": self._carrier_policy.home,
                "tried": self._carrier_policy.tried,
                "carrier_choices": [each._asdict() for each in self.carrier_choices],
                "interval_choices": [each._asdict() for each in self.interval_choices],
            }

    def summary(self) -> str:
        """The choices in one line: ``fields of 32 bits, 16 from collective 41 on; …``.

        Of many the last ones; of the carriers those that were not only tried.
        """
        first, *others = self.choices
        parts = [
            _line(
                f"fields of {first.field} bits",
                [f"{each.field} from collective {each.collective} on" for each in others],
            )
        ]
        if self.carrier_choices:
            chosen = [each for each in self.carrier_choices if each.reason != Why.TRY.words]
            parts.append(
                _line(
                    f"the {self._carrier_policy.candidates[0]} first",
                    [f"the {each.carrier} from collective {each.collective} on" for each in chosen],
                )
            )
        if self.interval_choices:
            said = [f"{each.h} from step {each.step} on" for each in self.interval_choices]
            parts.append(_line("H as it began", said))
        return "; ".join(parts)


def _line(first: str, others: Sequence[str]) -> str:
    if len(others) > _MOST_SAID:
        others = ["…", *others[-_MOST_SAID:]]
    return ", ".join([first, *others])


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
