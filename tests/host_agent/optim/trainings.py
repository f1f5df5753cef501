"""What the scenarios of local steps and of delayed gradients train, and how they compare."""

import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

CLOSE = 1e-5


def model(rank: int) -> nn.Module:
    torch.manual_seed(7 + rank)  # the first rank's is what all begin with
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))


def wide(rank: int) -> nn.Module:
    torch.manual_seed(7 + rank)
    return nn.Sequential(nn.Linear(6, 200), nn.Tanh(), nn.Linear(200, 8), nn.Linear(8, 1))


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    inputs = torch.randn(8, 6, generator=generator)
    return inputs, inputs.sum(1, keepdim=True).sin() + rank


def backward(net: nn.Module, rank: int, number: int, scale: float = 1.0) -> None:
    inputs, wanted = batch(rank, number)
    (scale * nn.functional.mse_loss(net(inputs), wanted)).backward()


def step(net: nn.Module, optimizer: torch.optim.Optimizer, rank: int, number: int) -> None:
    optimizer.zero_grad()
    backward(net, rank, number)
    optimizer.step()


def inner(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=0.02)


def flat(net: nn.Module) -> torch.Tensor:
    return torch.cat([each.detach().reshape(-1) for each in net.parameters()])


def digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def alike(values: torch.Tensor) -> bool:
    """Whether all ranks have the same bits."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, digest(values))
    return len(set(found)) == 1
