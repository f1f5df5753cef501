"""What is learned: data that packages ship, a small model, and its loss."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from wiresum.measure.accuracy import glyphs
from wiresum.measure.demo import text
from wiresum.measure.demo.model import CharacterTransformer


class Task(Protocol):
    """One kind of training."""

    rate: float
    """AdamW's."""

    def model(self) -> nn.Module:
        """A new one, from torch's random numbers."""

    def loss(self, model: nn.Module, order: torch.Generator) -> torch.Tensor:
        """Of one worker's batch, which ``order`` draws."""

    def held_out(self, model: nn.Module) -> float:
        """The loss on data that no worker has seen."""


class Text:
    """The demo's character transformer on Python's language reference; 114,000 parameters."""

    rate = 3e-3
    length, batch, held_out_windows = 32, 8, 128

    def __init__(self) -> None:
        self._corpus = text.load()

    def model(self) -> nn.Module:
        """As :class:`Task` says."""
        return CharacterTransformer(self._corpus.characters, self.length, 64, 4, 2)

    def loss(self, model: nn.Module, order: torch.Generator) -> torch.Tensor:
        """As :class:`Task` says."""
        return self._loss(model, self._corpus.train, order, self.batch)

    def held_out(self, model: nn.Module) -> float:
        """As :class:`Task` says."""
        look = torch.Generator().manual_seed(0)
        return float(self._loss(model, self._corpus.validation, look, self.held_out_windows))

    def _loss(
        self, model: nn.Module, data: torch.Tensor, order: torch.Generator, count: int
    ) -> torch.Tensor:
        starts = torch.randint(len(data) - self.length - 1, (count,), generator=order)
        inputs, targets = text.windows(data, starts, self.length)
        return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


class Glyphs:
    """A convolutional network on letters and digits of fonts; 75,000 parameters."""

    rate = 5e-3
    batch = 16

    def __init__(self) -> None:
        self._train, self._validation = glyphs.load()

    def model(self) -> nn.Module:
        """As :class:`Task` says."""
        quarter = glyphs.SIZE // 4
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * quarter**2, 128), nn.ReLU(),
            nn.Linear(128, len(glyphs.CHARACTERS)),
        )  # fmt: skip

    def loss(self, model: nn.Module, order: torch.Generator) -> torch.Tensor:
        """As :class:`Task` says."""
        chosen = torch.randint(len(self._train.labels), (self.batch,), generator=order)
        images, labels = self._train.images[chosen], self._train.labels[chosen]
        return functional.cross_entropy(model(images), labels)

    def held_out(self, model: nn.Module) -> float:
        """As :class:`Task` says."""
        found = functional.cross_entropy(model(self._validation.images), self._validation.labels)
        return float(found)


TASKS: Mapping[str, Callable[[], Task]] = MappingProxyType({"text": Text, "glyphs": Glyphs})
"""By name; making one loads its data."""
