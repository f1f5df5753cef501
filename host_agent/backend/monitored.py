"""``dist.monitored_barrier`` for wiresum groups: torch itself accepts gloo only."""

import functools
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from wiresum.host_agent.backend.collectives import Collectives


def install_monitored_barrier() -> None:
    """Let ``dist.monitored_barrier`` reach a wiresum group's own; other groups see no change."""
    original = distributed_c10d.monitored_barrier
    if hasattr(original, "_wiresum"):
        return

    @functools.wraps(original)
    def monitored_barrier(
        group: Any = None, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> Any:
        target = group or dist.group.WORLD
        if isinstance(target, Collectives):
            limit = timeout or target.router.timeout
            return target.monitored_barrier(limit, wait_all_ranks=wait_all_ranks)
        return original(group, timeout, wait_all_ranks)

    monitored_barrier._wiresum = True  # type: ignore[attr-defined]
    distributed_c10d.monitored_barrier = monitored_barrier
    dist.monitored_barrier = monitored_barrier
