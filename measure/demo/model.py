"""A small causal character transformer: pre-norm blocks, learned positions, no tied weights."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, length, width)`` to the same shape."""
        batch, length, width = x.shape
        parts = self.attention_in(self.norm_attention(x)).chunk(3, dim=-1)
        query, key, value = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in parts
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        out: torch.Tensor = x + self.feed(self.norm_feed(x))
        return out


class CharacterTransformer(nn.Module):
    """Predicts the next character at each position."""

    def __init__(
        self, characters: int, length: int, width: int = 96, heads: int = 4, layers: int = 3
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, length)`` integers to ``(batch, length, characters)`` logits."""
        here = torch.arange(x.shape[1], device=x.device)
        logits: torch.Tensor = self.head(
            self.norm(self.blocks(self.characters(x) + self.positions(here)))
        )
        return logits
