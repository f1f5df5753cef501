"""What every training of these tests shares: its data, its model, and what it leaves behind.

A training is called as ``SCRIPT BACKEND OUT`` on each rank. Rank 0 writes OUT: the loss of the last
step, and how many collectives went where.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

STEPS, BATCH, WIDTH = 4, 4, 16
BACKEND, OUT = (*sys.argv[1:3], "", "")[:2]


def model() -> torch.nn.Module:
    """The same weights on every rank."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 1)
    )


def batches(rank: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A rank's own data: inputs and what they should give."""
    made = torch.Generator().manual_seed(1 + rank)
    inputs = [torch.randn(BATCH, WIDTH, generator=made) for _ in range(STEPS)]
    return [(each, each.sum(1, keepdim=True)) for each in inputs]


def counts() -> dict[str, Any]:
    """This process's all-reduces over the switch, and what fell back."""
    from wiresum.host_agent import stats

    now = stats()
    sums = sum(n for name, n in now["switch"].items() if name.startswith("all_reduce"))
    return {"switch": sums, "fallback": now["fallback"]}


def leave(rank: int, loss: float, version: str, out: str = OUT) -> None:
    """Write the outcome, on rank 0."""
    if rank == 0:
        Path(out).write_text(json.dumps({"loss": loss, "version": version, **counts()}))
