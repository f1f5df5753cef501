"""Statistics of this process, for training scripts and for debugging."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wiresum.host_agent.agent.counters import COUNTERS

if TYPE_CHECKING:
    from wiresum.host_agent.backend.collective_router import CollectiveRouter


_rank: int | None = None


def set_rank(rank: int) -> None:
    """Set the rank of this process, for the name of its dump."""
    global _rank
    _rank = rank


def stats() -> dict[str, Any]:
    """The counts of collectives by path, and the engine's counters."""
    counts = COUNTERS.snapshot()
    engine = counts["engine"]
    for router in _routers():
        for name, value in router.engine_stats().items():
            engine[name] = engine.get(name, 0) + value
    return counts


def dump() -> dict[str, Any]:
    """``stats()`` and the state of every group of this process."""
    return {**stats(), "pid": os.getpid(), "groups": [router.describe() for router in _routers()]}


def write_at_exit() -> None:
    """Write the dump to the file of WIRESUM_DUMP, if that is set; ``{rank}`` is replaced."""
    path = os.environ.get("WIRESUM_DUMP")
    if path:
        rank = os.environ.get("RANK", "0") if _rank is None else str(_rank)
        path = path.replace("{rank}", rank)
        try:
            Path(path).write_text(json.dumps(dump(), indent=1, default=str) + "\n")
        except OSError as error:
            print(f"wiresum: WIRESUM_DUMP: {error}", file=sys.stderr)


def _routers() -> "list[CollectiveRouter]":
    # Without a group there is nothing to ask, and no reason to import torch.
    module = sys.modules.get("wiresum.host_agent.backend.collective_router")
    return sorted(module.routers, key=lambda router: router.number) if module is not None else []
