"""Reads the host's part of a trace: operators that compute, and collectives of gloo and wiresum."""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import replace

from wiresum.measure.traces.events import (
    Enclosing,
    Event,
    Events,
    Groups,
    message_of,
    shapes,
    step_at,
)
from wiresum.measure.traces.intervals import Intervals, subtract, union
from wiresum.measure.traces.names import kind_of
from wiresum.measure.traces.records import GLOO, WIRESUM, Collective, Step

_CARRIERS = (GLOO, WIRESUM)
_COLLECTIVES = (
    "c10d::",
    "c10d_functional::",
    "_c10d_functional::",
    "_c10d_functional_autograd::",
    "record_param_comms",
    "wiresum::",
)
"""Operators that issue collectives or wait for them."""
_SCATTER = "c10d::_reduce_scatter_base_"
_CALL = "wiresum::"
"""The calls of wiresum: their arguments describe the event that begins within them."""


def computation(events: Events) -> Intervals:
    """When an operator runs on some thread that is none of a collective.

    Operators nest: the time of a collective's operator is taken out of those around it.
    """
    threads: dict[object, tuple[list[Event], list[Event]]] = {}
    for each in events.operators:
        computing, waiting = threads.setdefault(each.thread, ([], []))
        (waiting if each.name.startswith(_COLLECTIVES) else computing).append(each)
    return union(
        span
        for computing, waiting in threads.values()
        for span in subtract(union(e.span for e in computing), union(e.span for e in waiting))
    )


def collectives(events: Events, groups: Groups) -> list[Collective]:
    """The collectives of gloo and wiresum, in the order of their starts."""
    calls = Enclosing([each for each in events.operators if each.name.startswith(_CALL)])
    scatters = _Scatters(events)
    return [
        _collective(each, calls, scatters, events, groups)
        for each in events.annotations
        if each.name.partition(":")[0] in _CARRIERS
    ]


def completed(found: list[Collective], apart: list[Step]) -> list[Collective]:
    """Give the collectives of steps without operators what only operators tell.

    That is, for wiresum's, dtype, size and group, and, for reduce-scatters, that the script has
    called one. All steps are taken for alike: the n-th collective of a kind and size in a step is
    that of a step in ``apart``, which have operators, if both steps have as many of it.
    """
    by_step: dict[int | None, list[Collective]] = defaultdict(list)
    for each in found:
        if each.step is not None:
            by_step[each.step].append(each)
    told: dict[object, list[Collective]] = {}
    for step in apart:
        # What comes after the step, before the next one, has its number too.
        within = (each for each in by_step.pop(step.number, []) if each.start <= step.end)
        for like, same in _by_likeness(within).items():
            told.setdefault(like, same)
    changed: dict[int, Collective] = {}
    for own in by_step.values():
        for like, same in _by_likeness(own).items():
            known = told.get(like, [])
            if len(known) == len(same):
                for each, other in zip(same, known, strict=True):
                    changed[id(each)] = replace(
                        each,
                        dtype=other.dtype,
                        size=other.size,
                        group=other.group,
                        called=other.called,
                    )
    return [changed.get(id(each), each) for each in found]


def _by_likeness(found: Iterable[Collective]) -> dict[object, list[Collective]]:
    """Those of one step, in their order, by what a trace tells of them without operators."""
    same: dict[object, list[Collective]] = defaultdict(list)
    for each in found:
        size = each.size if each.carrier == GLOO else None
        same[each.kind, each.carrier, size].append(each)
    return same


class _Scatters:
    """The script's reduce-scatters, which gloo carries as all-reduces of the whole input."""

    def __init__(self, events: Events) -> None:
        self._left: dict[int, deque[int]] = defaultdict(deque)
        for each in events.operators:
            if each.name == _SCATTER:
                _, elements = shapes(each.args, first=1)
                if elements is not None:
                    self._left[elements].append(each.start)

    def take(self, event: Event) -> bool:
        """Whether this all-reduce is one; each call of the script is taken once."""
        calls = self._left.get(shapes(event.args)[1] or 0)
        if not calls or calls[0] > event.start:
            return False
        calls.popleft()
        return True


def _collective(
    event: Event, calls: Enclosing, scatters: _Scatters, events: Events, groups: Groups
) -> Collective:
    carrier, _, name = event.name.partition(":")
    call = calls.find(event.thread, event.start) if carrier == WIRESUM else None
    args = event.args if call is None else call.args
    group = groups.of(args)
    kind = kind_of(name)
    dtype, size = message_of(kind, args, group.size)
    return Collective(
        kind,
        carrier,
        group,
        dtype,
        size,
        event.start,
        event.end,
        step_at(events.steps, event.start),
        "reduce_scatter" if kind == "all_reduce" and scatters.take(event) else None,
    )
