"""Runs the command of a job, with the variables that make its ranks record steps."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from wiresum.common.children.process import ProcessOptions
from wiresum.host_agent.environment import MEASURE, MEASURE_STEPS
from wiresum.host_agent.launcher.run import execute, inherited, resolve
from wiresum.host_agent.launcher.signals import Signals

_AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_KINETO = "KINETO_LOG_LEVEL"
_SILENT = "99"


def run(command: Sequence[str], folder: Path, steps: int, tick: Callable[[], None]) -> int:
    """Run it to its end, in this terminal; its exit status.

    Its ranks write into ``folder``, which exists. ``tick`` is called again and again meanwhile.
    Raises ``LaunchError`` if there is no such command.
    """
    resolved = resolve(command)
    env = os.environ | {MEASURE: str(folder.absolute()), MEASURE_STEPS: str(steps), _AUTOLOAD: "1"}
    env.setdefault(_KINETO, _SILENT)  # the profiler writes lines of its own to stderr
    options = ProcessOptions(group=os.getpgrp(), keep=inherited(), env=env)
    with Signals() as signals:
        status = execute(None, signals, resolved, options, tick=tick)
        signals.over = True
    return status
