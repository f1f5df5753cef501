"""Reads the trace of a rank that computes on a GPU: NCCL's kernels are its communication."""

import re
from itertools import pairwise

from wiresum.measure.traces.events import (
    Args,
    Enclosing,
    Event,
    Events,
    Groups,
    message_of,
    step_at,
    text_of,
)
from wiresum.measure.traces.intervals import Intervals, union
from wiresum.measure.traces.names import kernel_kind, kind_of
from wiresum.measure.traces.records import NCCL, Collective, Step

_NCCL = re.compile(r"nccl|rccl", re.IGNORECASE)
"""Anywhere in a kernel's name, as in TraceLens."""
_ISSUER = "record_param_comms"
_CALL = "nccl:"


def is_nccl(kernel: Event) -> bool:
    """Whether a kernel communicates."""
    return _NCCL.search(kernel.name) is not None


def computation(events: Events) -> Intervals:
    """When kernels run that do not communicate, and memsets."""
    return union(each.span for each in events.kernels if not is_nccl(each))


def calls(events: Events) -> list[Event]:
    """The host's events of calls of NCCL."""
    return [each for each in events.annotations if each.name.startswith(_CALL)]


def steps(events: Events) -> list[Step]:
    """The steps as the GPU sees them.

    The host runs ahead of the GPU. A step of the GPU goes from the first kernel that the host
    launched in its step to that of the next step; the last one, to the end of its last kernel.
    Where the trace lacks launches, these are the steps of the host.
    """
    starts: dict[int, int] = {}
    end = 0
    for kernel in events.kernels:
        launch = events.launch_of(kernel)
        number = None if launch is None else step_at(events.steps, launch.start)
        if number is not None:
            starts.setdefault(number, kernel.start)
            if number == events.steps[-1].number:
                end = max(end, kernel.end)
    bounds = [starts.get(step.number) for step in events.steps if step.number is not None] + [end]
    known = [each for each in bounds if each is not None]
    if len(known) < len(bounds) or any(b <= a for a, b in pairwise(known)):
        return events.steps
    return [
        Step(step.number, start, until)
        for step, (start, until) in zip(events.steps, pairwise(known), strict=True)
    ]


class Issuers:
    """Finds what the host says of a collective that runs as a kernel."""

    def __init__(self, events: Events) -> None:
        issuers = [each for each in events.operators if each.name == _ISSUER]
        self._events = events
        self._by_id = {each.args["External id"]: each for each in issuers if _described(each)}
        self._operators = Enclosing([each for each in issuers if _described(each)])
        self._annotations = Enclosing(calls(events))

    def args(self, kernel: Event) -> Args:
        """The arguments of a collective, from its kernel or, in older traces, from its call."""
        if "Collective name" in kernel.args:
            return kernel.args
        launch = self._events.launch_of(kernel)
        issuer = self._by_id.get(kernel.args.get("External id"))
        if issuer is None and launch is not None:
            issuer = self._operators.find(launch.thread, launch.start)
        if issuer is not None:
            return issuer.args
        named = None if launch is None else self._annotations.find(launch.thread, launch.start)
        if named is None:
            return {}
        return named.args | {"Collective name": named.name.removeprefix(_CALL)}


def _described(issuer: Event) -> bool:
    return "Collective name" in issuer.args and "External id" in issuer.args


def collectives(events: Events, groups: Groups) -> list[Collective]:
    """The collectives of NCCL, in the order of their starts."""
    issuers = Issuers(events)
    return [
        _collective(kernel, issuers.args(kernel), events, groups)
        for kernel in events.kernels
        if is_nccl(kernel)
    ]


def _collective(kernel: Event, args: Args, events: Events, groups: Groups) -> Collective:
    group = groups.of(args)
    kind = kind_of(text_of(args.get("Collective name")) or kernel_kind(kernel.name))
    dtype, size = message_of(kind, args, group.size)
    launch = events.launch_of(kernel)
    return Collective(
        kind,
        NCCL,
        group,
        dtype,
        size,
        kernel.start,
        kernel.end,
        step_at(events.steps, kernel.start if launch is None else launch.start),
    )
