"""The events of one Chrome trace of torch.profiler, sorted by what readers look for.

The format is that of ``export_chrome_trace`` since torch 2.0: an object with ``traceEvents``, times
``ts`` and ``dur`` in microseconds, and ``distributedInfo`` where the job had a process group.
"""

import math
import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from wiresum.common.logs import one_line
from wiresum.measure.traces.intervals import Interval
from wiresum.measure.traces.names import dtype_of, message_bytes
from wiresum.measure.traces.records import Group, Step

Args = dict[str, Any]

_STEP = re.compile(r"ProfilerStep#(\d+)")
LONGEST_TIME = 1 << 63
"""Nanoseconds. No trace is longer; what is derived from greater numbers would be no float."""
_MOST = 1 << 53
"""Of elements, ranks and the like: JSON's numbers are exact up to it."""
_MOST_RANKS = 1 << 20
_MOST_DIMS = 64  # torch's own limit
_LONGEST_NAME = 200
_LAUNCHES = frozenset({"cuda_runtime", "cuda_driver", "hip_runtime", "xpu_runtime"})


@dataclass(frozen=True)
class Event:
    """One complete event; times in nanoseconds since the first event of the trace."""

    name: str
    thread: object
    start: int
    end: int
    args: Args

    @property
    def span(self) -> Interval:
        """From start to end."""
        return self.start, self.end


@dataclass
class Events:
    """The events of a trace by kind, each list in the order of their starts."""

    kernels: list[Event] = field(default_factory=list)
    """What keeps a GPU's cores busy: kernels and memsets."""
    copies: list[Event] = field(default_factory=list)
    operators: list[Event] = field(default_factory=list)
    annotations: list[Event] = field(default_factory=list)
    """Ranges that the script and torch name, on the host."""
    launches: dict[object, Event] = field(default_factory=dict)
    """Calls of the GPU's runtime by correlation number."""
    steps: list[Step] = field(default_factory=list)
    """As the host sees them."""

    def add(self, category: object, event: Event) -> None:
        """Put one event where it belongs; most categories are nobody's."""
        if category in ("kernel", "gpu_memset"):  # TraceLens takes filling memory for computation
            self.kernels.append(event)
        elif category == "cpu_op":
            self.operators.append(event)
        elif category in _LAUNCHES:
            if "correlation" in event.args:
                self.launches[event.args["correlation"]] = event
        elif category == "gpu_memcpy":
            self.copies.append(event)
        elif category == "user_annotation":
            found = _STEP.fullmatch(event.name)
            if found:
                self.steps.append(Step(int(found[1]), event.start, event.end))
            else:
                self.annotations.append(event)

    @property
    def span(self) -> Interval:
        """From the first start to the last end of what computes, copies or is annotated."""
        every = [*self.kernels, *self.copies, *self.operators, *self.annotations]
        if not every:
            return 0, 0
        return min(each.start for each in every), max(each.end for each in every)

    def launch_of(self, event: Event) -> Event | None:
        """The call that started a kernel or copy."""
        return self.launches.get(event.args.get("correlation"))


class Enclosing:
    """Finds the event of some that encloses a moment on a thread."""

    def __init__(self, events: list[Event]) -> None:
        self._threads: dict[object, list[Event]] = defaultdict(list)
        for event in events:
            self._threads[event.thread].append(event)

    def find(self, thread: object, moment: int) -> Event | None:
        """The last one that began; None if it has ended."""
        events = self._threads.get(thread, [])
        at = bisect_right(events, moment, key=lambda event: event.start)
        return events[at - 1] if at and events[at - 1].end >= moment else None


def events_of(document: dict[str, Any]) -> Events:
    """Sort the events of a parsed trace. Raises TypeError or ValueError for what is no trace."""
    complete = [
        each
        for each in document["traceEvents"]
        if isinstance(each, dict) and each.get("ph") == "X" and each.get("cat") != "Trace"
    ]
    origin = min((each["ts"] for each in complete), default=0)
    found = Events()
    made = []
    for each in complete:
        # Old traces count microseconds since 1970: the difference is exact, the product is not.
        start = round((each["ts"] - origin) * 1000)
        end = start + max(0, round(each.get("dur", 0) * 1000))
        if end > LONGEST_TIME:
            raise ValueError("a time out of range")
        args = each.get("args")
        event = Event(
            text_of(each.get("name")),
            (each.get("pid"), each.get("tid")),
            start,
            end,
            args if isinstance(args, dict) else {},
        )
        made.append((each.get("cat"), event))
    made.sort(key=lambda pair: pair[1].start)
    for category, event in made:
        found.add(category, event)
    return found


def step_at(steps: list[Step], moment: int) -> int | None:
    """The number of the step that a moment of the host is in.

    What lies between two steps belongs to the earlier one.
    """
    at = bisect_right(steps, moment, key=lambda step: step.start)
    if not at or (at == len(steps) and moment > steps[-1].end):
        return None
    return steps[at - 1].number


def text_of(value: object) -> str:
    """A name in a trace, as one line that can be printed; empty for what is no name."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        return ""
    text = value[:_LONGEST_NAME]
    return text if text.isprintable() else one_line(text)


def count_of(value: object) -> int | None:
    """A number of ranks, elements and the like in a trace; None for what is no such number."""
    return value if type(value) is int and 0 <= value <= _MOST else None


def message_of(kind: str, args: Args, ranks: int | None) -> tuple[str | None, int | None]:
    """The dtype and the size in bytes of a collective's message; None for what is not known.

    ``ranks``: of its group.
    """
    dtype, taken = dtype_of(args.get("dtype")), count_of(args.get("In msg nelems"))
    if taken is None:
        dtype, taken = shapes(args)
    given = count_of(args.get("Out msg nelems"))
    return dtype, message_bytes(kind, dtype, taken, given, ranks)


def shapes(args: Args, first: int = 0) -> tuple[str | None, int | None]:
    """The dtype and the number of elements of an event's tensors (``record_shapes=True``).

    Of the tensors from the argument ``first`` on; None for what is not known.
    """
    dims, types = args.get("Input Dims"), args.get("Input type")
    if not isinstance(dims, list) or not isinstance(types, list):
        return None, None
    dtypes, elements = set(), 0
    for dim, kind in list(zip(dims, types, strict=False))[first:]:
        dtype = dtype_of(kind)
        if dtype is not None and isinstance(dim, list):
            if len(dim) > _MOST_DIMS or any(count_of(each) is None for each in dim):
                return None, None
            dtypes.add(dtype)
            elements += math.prod(dim)
    known = count_of(elements)
    return (dtypes.pop(), known) if len(dtypes) == 1 and known is not None else (None, None)


class Groups:
    """Names the group of a collective by what the trace says of the job's groups."""

    def __init__(self, document: dict[str, Any]) -> None:
        info = document.get("distributedInfo")
        known = info.get("pg_config") if isinstance(info, dict) else None
        self._known: dict[str, Group] = {}
        for each in known if isinstance(known, list) else []:
            if isinstance(each, dict):
                name = text_of(each.get("pg_name"))
                self._known[name] = Group(
                    text_of(each.get("pg_desc")) or name,
                    _ranks(each.get("ranks")),
                    count_of(each.get("pg_size")),
                )

    def only(self) -> Group:
        """The group of a collective that names none: known where the job has one."""
        return next(iter(self._known.values())) if len(self._known) == 1 else Group()

    def of(self, args: Args) -> Group:
        """The group that an event's arguments name."""
        name = args.get("Process Group Name", args.get("Process Group ID"))
        size = count_of(args.get("Group size"))
        if name is None and size is None:
            return self.only()
        known = self._known.get(text_of(name), Group())
        ranks = _ranks(args.get("Process Group Ranks")) or known.ranks or _strided(args, size)
        label = text_of(args.get("Process Group Description")) or known.name or text_of(name)
        return Group(label, ranks, size or known.size)


def _ranks(value: object) -> tuple[int, ...] | None:
    """A list of ranks, or its text; None for a text that torch has cut short."""
    if isinstance(value, str):
        parts = value.strip("[] ").split(",")
        if not all(part.strip().isdigit() for part in parts):
            return None
        value = [int(part) for part in parts]
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return tuple(sorted(value))
    return None


def _strided(args: Args, size: int | None) -> tuple[int, ...] | None:
    start = count_of(args.get("Global rank start"))
    stride = count_of(args.get("Global rank stride"))
    if size is None or size > _MOST_RANKS or start is None or not stride:
        return None
    return tuple(range(start, start + size * stride, stride))
