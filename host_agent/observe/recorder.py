"""Records steps with torch.profiler."""

import gc
import os
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function


class ProfilerTaken(RuntimeError):
    """The script uses the profiler itself, of which there is one in a process."""


class Recorder:
    """One recording of torch.profiler: operators of the CPU, and kernels where there is a GPU.

    With the shapes of tensors, which are the only place where gloo's events have their sizes, and
    without stacks, memory and module names, which cost time at every operator. It gives way to a
    profiler of the script: a second one would raise there.
    """

    def __init__(self) -> None:
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
        self._profile.start()
        self._runs = True
        self._watch()

    def mark(self, number: int) -> None:
        """Begin the step of that number, as ``profile.step()`` marks it, after the one before.

        Raises :class:`ProfilerTaken`.
        """
        self._check()
        self._leave()
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

    def write(self, path: Path) -> None:
        """Write the Chrome trace. The name appears when the file is complete."""
        unfinished = path.with_name(f"{path.name}.unfinished")
        self._profile.export_chrome_trace(str(unfinished))
        if self._cut:
            text = unfinished.read_text()
            unfinished.write_text(text.replace(f'"{_name(self._number)}"', '"unfinished step"'))
        os.replace(unfinished, path)  # noqa: PTH105 (atomic)

    def _check(self) -> None:
        if self._taken:
            raise ProfilerTaken("the script has started a profiler of its own")

    def _stop(self) -> None:
        self._runs = False
        profile._prepare_trace = self._plain_prepare  # type: ignore[method-assign]
        self._leave()
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

    def _leave(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None


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
