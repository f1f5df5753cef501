"""Statistics of this process, for training scripts and for debugging."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.tally import Tally
from wiresum.host_agent.environment import TALLY

if TYPE_CHECKING:
    from wiresum.host_agent.backend.collective_router import CollectiveRouter

log = logging.getLogger("wiresum")

_rank: int | None = None
_size = 0  # of the largest group
_tally: Tally | None = None


def set_group(rank: int, size: int) -> None:
    """A group of ``size`` ranks begins in this process, which is ``rank`` in the default group.

    The rank is for the name of the dump; from now on the launcher, if there is one, can read what
    the collectives do in sum.
    """
    global _rank, _size, _tally
    _rank, _size = rank, max(size, _size)
    folder = os.environ.get(TALLY)
    if not folder:
        return
    if _tally is None or not _tally.mine:
        try:
            _tally = Tally(folder)
        except OSError as error:
            log.debug("wiresum: the launcher is told nothing: %s", error)
            return
    COUNTERS.tell(_tally.write, rank=rank, size=_size)


def stats() -> dict[str, Any]:
    """The counts of collectives by path, and the engine's counters."""
    for router in _routers():
        router.settle()
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
