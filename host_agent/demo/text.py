"""The text to learn: Python's own language reference, which the standard library ships."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Corpus:
    """Characters as integers: ``train`` and ``validation`` are 1-D int64 tensors."""

    train: torch.Tensor
    validation: torch.Tensor
    characters: int


def load() -> Corpus:
    """The topics of ``pydoc`` in order of their names; every tenth is kept for validation."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    texts = [topics[name] for i, name in enumerate(names) if i % 10 != 9]
    held_out = [topics[name] for name in names[9::10]]
    train, validation = _codes("\n".join(texts)), _codes("\n".join(held_out))
    alphabet = torch.unique(torch.cat([train, validation]))
    return Corpus(
        torch.searchsorted(alphabet, train),
        torch.searchsorted(alphabet, validation),
        len(alphabet),
    )


def _codes(text: str) -> torch.Tensor:
    # Rare characters (typographic ones) would only make the embedding larger.
    return torch.tensor([code if code < 127 else 127 for code in map(ord, text)])


def windows(
    data: torch.Tensor, starts: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, each ``(len(starts), length)``: the target is the next character."""
    index = starts[:, None] + torch.arange(length)
    return data[index], data[index + 1]
