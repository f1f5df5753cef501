"""A step of a transformer under FSDP2, as a rank of the benchmark does it."""

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

WIDTH, LAYERS, HEADS, WORDS, LENGTH = 512, 8, 8, 256, 32
"""About 25 million parameters: 12 WIDTH² in each layer."""
_SEED = 11


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
            for _ in range(LAYERS)
        )
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Logits of the word after each."""
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        hidden = self.embedding(words)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return self.head(hidden)  # type: ignore[no-any-return]


class _Nothing:
    """Takes the place of a collective: what is left of a step is its computation."""

    def allocate(
        self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Memory for the collective."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: torch.Tensor, *_: Any, **__: Any) -> None:
        """Leave zeros."""
        output_tensor.zero_()


class Training:
    """A sharded model, its optimizer and its data."""

    def __init__(self, rank: int, *, communicates: bool) -> None:
        """``communicates``: else no collective is done, and the losses mean nothing."""
        torch.manual_seed(_SEED)
        self._model: Any = _Model()
        self.parameters = sum(each.numel() for each in self._model.parameters())
        for layer in self._model.layers:
            fully_shard(layer)
        fully_shard(self._model)
        if not communicates:
            for module in self._model.modules():
                if isinstance(module, FSDPModule):
                    module.set_custom_all_gather(_Nothing())  # type: ignore[arg-type]
                    module.set_custom_reduce_scatter(_Nothing())  # type: ignore[arg-type]
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=3e-4)
        self._random = torch.Generator().manual_seed(_SEED + 1 + rank)

    def step(self) -> tuple[float, float, float]:
        """When it began and ended, and its loss on this rank's data."""
        # Each word follows from the one before, but for some noise: there is something to learn.
        first = torch.randint(WORDS, (1, 1), generator=self._random)
        noise = torch.randint(3, (1, LENGTH + 1), generator=self._random)
        words = (first + 7 * torch.arange(LENGTH + 1) + noise) % WORDS
        dist.barrier()
        begun = time.monotonic()
        logits = self._model(words[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return begun, time.monotonic(), float(loss.detach())
