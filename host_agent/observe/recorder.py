"""Records steps with torch.profiler."""

import os
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import record_function


class Recorder:
    """One recording of torch.profiler: operators of the CPU, and kernels where there is a GPU.

    With the shapes of tensors, which are the only place where gloo's events have their sizes, and
    without stacks, memory and module names, which cost time at every operator.
    """

    def __init__(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities, record_shapes=True)
        self._step: Any = None
        self._number = 0
        self._cut = False

    def start(self) -> None:
        """Record from now on."""
        self._profile.start()

    def mark(self, number: int) -> None:
        """Begin the step of that number, as ``profile.step()`` marks it, after the one before."""
        self._leave()
        self._number = number
        self._step = record_function(_name(number))
        self._step.__enter__()

    def stop(self, *, cut: bool = False) -> None:
        """Record no more; ``cut``: in the middle of a step, which is then none of the trace's."""
        self._cut = cut
        self._leave()
        self._profile.stop()

    def write(self, path: Path) -> None:
        """Write the Chrome trace. The name appears when the file is complete."""
        unfinished = path.with_name(f"{path.name}.unfinished")
        self._profile.export_chrome_trace(str(unfinished))
        if self._cut:
            text = unfinished.read_text()
            unfinished.write_text(text.replace(f'"{_name(self._number)}"', '"unfinished step"'))
        os.replace(unfinished, path)  # noqa: PTH105 (atomic)

    def _leave(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None


def _name(number: int) -> str:
    return f"ProfilerStep#{number}"
