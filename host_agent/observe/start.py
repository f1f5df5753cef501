"""Begins to observe, in every process of a job that ``wiresum measure -- COMMAND`` runs.

Such a process has the folder for its files in ``WIRESUM_MEASURE``. It is also every other Python
process of the command that imports torch, such as torchrun itself: one that takes no step of an
optimizer writes nothing.
"""

import atexit
import os
from pathlib import Path
from typing import Any

from wiresum.host_agent.environment import MEASURE, MEASURE_STEPS

STEPS = 10
"""What is recorded where nobody says how much."""


def install() -> None:
    """Follow the steps of this process's optimizer from now on."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from wiresum.host_agent.observe.observer import Observer

    steps = int(os.environ.get(MEASURE_STEPS) or STEPS)
    observer = Observer(Path(os.environ[MEASURE]), steps)

    def stepped(optimizer: Any, _args: Any, _kwargs: Any) -> None:
        observer.optimizer_stepped(optimizer)

    register_optimizer_step_post_hook(stepped)
    atexit.register(observer.finish)
