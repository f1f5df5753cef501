"""Records steps with torch.profiler."""

import contextlib
import gc
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import profiler
from torch.autograd.profiler import profile, record_function

KEY = "wiresum"
"""Of a trace whose figures are of steps without operators: which steps have them."""


class ProfilerTaken(RuntimeError):
    """The script uses the profiler itself, of which there is one in a process."""


class Recorder:
    """One recording of torch.profiler: operators of the CPU, and kernels where there is a GPU.

    Or, on a CPU, without ``operators``: the ranges that scripts and torch name alone, among which
    the collectives are; then an operator costs nothing. With the shapes of tensors, which are the
    only place where gloo's events have their sizes, and without stacks, memory and module names,
    which cost time at every operator. It gives way to a profiler of the script: a second one would
    raise there.
    """

    def __init__(self, *, operators: bool = True) -> None:
        self._operators = operators
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities, record_shapes=True)
        self._step: Any = None
        self._number = 0
        self._cut = False
        self._runs = False
        self._taken = False
        self._plain_prepare: Any = None

    def start(self) -> None:
        """Record from now on. Raises :class:`ProfilerTaken`."""
        if torch.autograd.profiler._is_profiler_enabled or _warms_up():
            raise ProfilerTaken("the script's own profiler runs")
        with contextlib.nullcontext() if self._operators else _only_ranges():
            self._profile.start()
        self._runs = True
        self._watch()

    def mark(self, number: int) -> None:
        """Begin the step of that number, as ``profile.step()`` marks it, after the one before.

        Raises :class:`ProfilerTaken`.
        """
        self._check()
        self.leave()
        self._number = number
        self._step = record_function(_name(number))
        self._step.__enter__()

    def stop(self, *, cut: bool = False) -> None:
        """Record no more; ``cut``: in the middle of a step, which is then none of the trace's.

        Raises :class:`ProfilerTaken`.
        """
        self._check()
        self._cut = cut
        self._stop()

    def close(self) -> None:
        """Let go of the profiler, if it runs."""
        if self._runs:
            self._stop()

    def write(self, path: Path, apart: "Apart | None" = None) -> None:
        """Write the Chrome trace. The name appears when the file is complete.

        ``apart``: steps with operators, which go into the same file.
        """
        unfinished = path.with_name(f"{path.name}.unfinished")
        self._export(unfinished)
        if apart is not None:
            both = json.loads(unfinished.read_text())
            apart.recorder._export(unfinished)
            _join(both, json.loads(unfinished.read_text()))
            both[KEY] = {"operators": apart.steps, "added_us": 1e6 * apart.added_s}
            unfinished.write_text(json.dumps(both))
        os.replace(unfinished, path)  # noqa: PTH105 (atomic)

    def _export(self, path: Path) -> None:
        self._profile.export_chrome_trace(str(path))
        if self._cut:
            text = path.read_text()
            path.write_text(text.replace(f'"{_name(self._number)}"', '"unfinished step"'))

    def _check(self) -> None:
        if self._taken:
            raise ProfilerTaken("the script has started a profiler of its own")

    def _stop(self) -> None:
        self._runs = False
        profile._prepare_trace = self._plain_prepare  # type: ignore[method-assign]
        self.leave()
        self._profile.stop()

    def _watch(self) -> None:
        """Stop, if another profiler is about to start."""
        plain = self._plain_prepare = profile._prepare_trace

        def prepare(other: profile) -> None:
            if self._runs:
                self._taken = True
                self._stop()
            plain(other)  # type: ignore[no-untyped-call]

        profile._prepare_trace = prepare  # type: ignore[method-assign]

    def leave(self) -> None:
        """End the step that :meth:`mark` has begun, if any."""
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None


@dataclass(frozen=True)
class Apart:
    """Steps that are recorded with operators, beside those of the figures, which have none.

    ``steps``: their numbers; ``added_s``: by how much the operators' recording lengthens one.
    """

    recorder: Recorder
    steps: list[int]
    added_s: float


@contextlib.contextmanager
def _only_ranges() -> Iterator[None]:
    """What starts meanwhile records the ranges that scripts and torch name, and no operators."""
    plain: Any = profiler._enable_profiler  # type: ignore[attr-defined]

    def enable(config: Any, activities: Any) -> None:
        plain(config, activities, {torch._C._profiler.RecordScope.USER_SCOPE})

    profiler._enable_profiler = enable  # type: ignore[attr-defined]
    try:
        yield
    finally:
        profiler._enable_profiler = plain  # type: ignore[attr-defined]


def _join(trace: dict[str, Any], other: dict[str, Any]) -> None:
    """Add the events of another trace of this process, on the clock of the first."""
    base = "baseTimeNanoseconds"
    later_us = (other.get(base, 0) - trace.get(base, 0)) / 1e3
    for event in other["traceEvents"]:
        if later_us and "ts" in event:
            event["ts"] += later_us
        trace["traceEvents"].append(event)


def _warms_up() -> bool:
    """Whether a profiler of the script is between its preparation and its start.

    torch itself does not tell: it would start, and raise in the script, while ours runs.
    """
    return any(
        type(each) is profile and each.entered and each.kineto_results is None
        for each in gc.get_objects()
    )


def _name(number: int) -> str:
    return f"ProfilerStep#{number}"
