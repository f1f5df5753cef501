"""The text to learn: Python's own language reference, which the standard library ships."""

from dataclasses import dataclass

import torch

PASSAGE = 2000  # characters that are kept together


@dataclass(frozen=True)
class Corpus:
    """Characters as integers: ``train`` and ``validation`` are 1-D int64 tensors."""

    train: torch.Tensor
    validation: torch.Tensor
    characters: int


def load() -> Corpus:
    """The topics of ``pydoc`` in order of their names; every tenth passage is for validation."""
    from pydoc_data.topics import topics

    codes = _codes("\n".join(topics[name] for name in sorted(topics)))
    alphabet, indices = torch.unique(codes, return_inverse=True)
    passages = indices.split(PASSAGE)
    train = [part for i, part in enumerate(passages) if i % 10 != 9]
    return Corpus(torch.cat(train), torch.cat(passages[9::10]), len(alphabet))


def _codes(text: str) -> torch.Tensor:
    # Rare characters (typographic ones) would only make the embedding larger.
    return torch.tensor([code if code < 127 else 127 for code in map(ord, text)])


def windows(
    data: torch.Tensor, starts: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, each ``(len(starts), length)``: the target is the next character."""
    index = starts[:, None] + torch.arange(length)
    return data[index], data[index + 1]
