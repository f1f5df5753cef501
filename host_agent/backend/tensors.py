"""Finds or makes memory that the engine can work on, for every layout of a tensor."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch

Result = torch.Tensor | Callable[[], torch.Tensor]
"""Where the result will be, or what makes it of that."""

Copies = list[tuple[Result, torch.Tensor]]
"""(The result, where it belongs)."""


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same values without a negative or conjugate view; ``tensor`` itself if it has none."""
    if tensor.is_neg() or tensor.is_conj():
        return tensor.resolve_conj().resolve_neg()
    return tensor


def size_of(given: Any) -> int:
    """The bytes of a tensor, or of all tensors in lists of lists; 0 for all else."""
    if isinstance(given, torch.Tensor):
        return given.numel() * given.element_size()
    return sum(map(size_of, given)) if isinstance(given, list | tuple) else 0


def copy_back(copies: Copies) -> None:
    """Write results to where they belong."""
    for result, target in copies:
        source = result() if callable(result) else result
        # A tensor made under inference mode may be written under it alone.
        with torch.inference_mode() if target.is_inference() else contextlib.nullcontext():
            once = _without_repeats(target.detach())
            values = source[tuple(slice(size) for size in once.shape)]
            if _overlaps(once):
                _write_each(once, values)
            else:
                once.copy_(values)


def _without_repeats(tensor: torch.Tensor) -> torch.Tensor:
    """A view of an expanded tensor that has each of its elements once."""
    if 0 not in tensor.stride():
        return tensor
    return tensor[tuple(slice(None if stride else 1) for stride in tensor.stride())]


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may share memory: torch refuses to copy to such a tensor."""
    if tensor.numel() < 2 or tensor.is_contiguous():
        return False
    reach = 0  # distance from the first element to the last one of the dimensions so far
    for size, stride in sorted(zip(tensor.shape, tensor.stride(), strict=True), key=lambda d: d[1]):
        if size > 1:
            if stride <= reach:
                return True
            reach += (size - 1) * stride
    return False


def _write_each(target: torch.Tensor, values: torch.Tensor) -> None:
    places = torch.zeros(target.shape, dtype=torch.int64, device=target.device)
    for dimension, (size, stride) in enumerate(zip(target.shape, target.stride(), strict=True)):
        shape = [1] * target.dim()
        shape[dimension] = size
        places += stride * torch.arange(size, device=target.device).view(shape)
    memory = target.as_strided((int(places.max()) + 1,), (1,))
    memory[places.flatten()] = values.flatten()
