"""A small task that needs no download: noisy pictures of ten shapes, 16 by 16 pixels."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

CLASSES, SIDE, BATCH = 10, 16, 32


def network() -> nn.Module:
    """A convolutional classifier of about 40,000 parameters, the same in every run."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE)), nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 120), nn.ReLU(),
        nn.Linear(120, CLASSES),
    )  # fmt: skip


def batches(rank: int, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures and labels, others on each rank, the same in every run."""
    generator = torch.Generator().manual_seed(rank + 1)
    for _ in range(count):
        yield _batch(generator)


def evaluate(model: nn.Module) -> None:
    """Print the loss on pictures that no rank has trained on."""
    with torch.no_grad():
        inputs, labels = _batch(torch.Generator().manual_seed(0), 512)
        loss = float(nn.functional.cross_entropy(model(inputs), labels))
    if dist.get_rank() == 0:
        print(f"loss {loss:.4f}", flush=True)


def _batch(generator: torch.Generator, size: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    shapes = torch.rand(CLASSES, SIDE, SIDE, generator=torch.Generator().manual_seed(99)).round()
    labels = torch.randint(CLASSES, (size,), generator=generator)
    noise = torch.randn(size, SIDE, SIDE, generator=generator)
    return shapes[labels] + 1.5 * noise, labels
