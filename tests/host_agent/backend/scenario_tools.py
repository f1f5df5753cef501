"""What the scenarios share: counts of collectives by path, and a model to train."""

import datetime
import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wiresum import host_agent

LIMIT = datetime.timedelta(seconds=60)


def rank() -> int:
    return dist.get_rank()


def size() -> int:
    return dist.get_world_size()


def over_switch() -> int:
    """All-reduces that went over the switch so far, or over the ranks in its place."""
    stats = host_agent.stats()
    return int(
        sum(
            count
            for path in ("switch", "ranks")
            for name, count in stats[path].items()
            if name.startswith("all_reduce")
        )
    )


def fell_back(collective: str) -> int:
    """How many of these collectives fell back so far."""
    return int(sum(host_agent.stats()["fallback"].get(collective, {}).values()))


def same_everywhere(tensors: Any) -> bool:
    flat = torch.cat([t.detach().flatten().view(torch.uint8) for t in tensors])
    digests: list[Any] = [None] * size()
    dist.all_gather_object(digests, hashlib.sha256(flat.numpy().tobytes()).hexdigest())
    return len(set(digests)) == 1


def expect(condition: bool, what: object) -> None:
    if not condition:
        raise AssertionError(what)


class Net(nn.Module):
    """Some layers; the last one is not used for odd steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))
        self.head = nn.Linear(64, 4)
        self.spare = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor, spare: bool) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        out: torch.Tensor = self.spare(x) if spare else self.head(x)
        return out


def trained(group: Any, steps: int, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(7)
    model = DistributedDataParallel(
        Net(), process_group=group, find_unused_parameters=True, bucket_cap_mb=0.05, **options
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = torch.Generator().manual_seed(rank())
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn(8, 64, generator=data)
        model(x, step % 2 == 1).square().mean().backward()
        optimizer.step()
    return list(model.module.parameters())
