"""What is learned: data that packages ship, and a small model that tells one of several classes."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import nn

from wiresum.measure.accuracy import glyphs
from wiresum.measure.demo import text
from wiresum.measure.demo.model import CharacterTransformer

Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs and the numbers of the right classes; the first dimension is that of the workers."""


class Task(Protocol):
    """One kind of training. The loss is the cross-entropy of the model's logits."""

    rate: float
    """AdamW's, the largest of a training."""

    steps: int
    """So many where nobody says how many."""

    def model(self) -> nn.Module:
        """A new one, from torch's random numbers."""

    def batches(self, orders: Sequence[torch.Generator]) -> Batch:
        """Of each worker one, which its generator draws."""

    def held_out(self) -> Batch:
        """Data that no worker has seen, always the same; in the place of one worker's."""


class Text:
    """The demo's character transformer on Python's language reference; 19,000 parameters."""

    rate, steps = 2e-2, 3500
    length, width, heads, layers = 16, 32, 2, 1
    batch, held_out_windows = 64, 1024  # windows; the batch is that of all workers

    def __init__(self) -> None:
        self._corpus = text.load()

    def model(self) -> nn.Module:
        """As :class:`Task` says."""
        return CharacterTransformer(
            self._corpus.characters, self.length, self.width, self.heads, self.layers
        )

    def batches(self, orders: Sequence[torch.Generator]) -> Batch:
        """As :class:`Task` says."""
        return self._windows(self._corpus.train, orders, max(1, self.batch // len(orders)))

    def held_out(self) -> Batch:
        """As :class:`Task` says."""
        look = torch.Generator().manual_seed(0)
        return self._windows(self._corpus.validation, [look], self.held_out_windows)

    def _windows(self, data: torch.Tensor, orders: Sequence[torch.Generator], count: int) -> Batch:
        last = len(data) - self.length - 1
        starts = torch.cat([torch.randint(last, (count,), generator=order) for order in orders])
        inputs, targets = text.windows(data, starts, self.length)
        shape = (len(orders), count, self.length)
        return inputs.view(shape), targets.view(shape)


class Glyphs:
    """A convolutional network on letters and digits of fonts, with new noise at each look; 40,000
    parameters."""

    rate, steps = 1e-2, 2500
    batch, noise = 64, 0.3  # images of all workers; standard deviation, where ink is 1

    def __init__(self) -> None:
        self._train, self._validation = glyphs.load()

    def model(self) -> nn.Module:
        """As :class:`Task` says."""
        quarter = glyphs.SIZE // 4
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Flatten(), nn.Linear(32 * quarter**2, 64), nn.GELU(),
            nn.Linear(64, len(glyphs.CHARACTERS)),
        )  # fmt: skip

    def batches(self, orders: Sequence[torch.Generator]) -> Batch:
        """As :class:`Task` says."""
        count, size = len(self._train.labels), (max(1, self.batch // len(orders)),)
        drawn = [torch.randint(count, size, generator=each) for each in orders]
        return self._noisy(self._train, torch.stack(drawn), orders)

    def held_out(self) -> Batch:
        """As :class:`Task` says."""
        all_ = torch.arange(len(self._validation.labels))
        return self._noisy(self._validation, all_[None], [torch.Generator().manual_seed(0)])

    def _noisy(
        self, data: glyphs.Images, chosen: torch.Tensor, orders: Sequence[torch.Generator]
    ) -> Batch:
        clean = data.images[chosen]
        noise = [torch.randn(clean.shape[1:], generator=order) for order in orders]
        return clean.add_(torch.stack(noise), alpha=self.noise), data.labels[chosen]


TASKS: Mapping[str, Callable[[], Task]] = MappingProxyType({"text": Text, "glyphs": Glyphs})
"""By name; making one loads its data."""
