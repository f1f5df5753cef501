"""FSDP1 (``FullyShardedDataParallel``): where each parameter lies in a flat gradient.

FSDP1 lays the parameters of a wrapped module one after the other, and each rank has an equal piece
of that, whatever parameters it cuts.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError

if TYPE_CHECKING:
    from torch.distributed.fsdp import FullyShardedDataParallel


@contextmanager
def as_known() -> Iterator[None]:
    """Around what is not public in FSDP: :class:`CodecError` where this torch has it no more."""
    try:
        yield
    except (AttributeError, ImportError, ValueError) as error:
        why = " ".join(str(error).split())
        raise CodecError(lines.OTHER_FSDP.of(version=torch.__version__, why=why)) from error


def wrapped(model: torch.nn.Module) -> "list[FullyShardedDataParallel]":
    """The modules of ``model`` that FSDP1 shards, and that have parameters."""
    if "torch.distributed.fsdp" not in sys.modules:
        return []
    from torch.distributed.fsdp import FullyShardedDataParallel

    found = (each for each in model.modules() if isinstance(each, FullyShardedDataParallel))
    return [each for each in found if _flat(each) is not None]


def clean(name: str) -> str:
    """A parameter's name without what FSDP1 has put into it."""
    with as_known():
        from torch.distributed.fsdp._common_utils import clean_tensor_name

    return str(clean_tensor_name(name))


def contents(
    model: torch.nn.Module, module: "FullyShardedDataParallel"
) -> list[tuple[str, torch.Size, int]]:
    """Of a wrapped module's parameters the name in ``model``, the shape, and the place of the first
    element in the flat gradient, in their order there."""
    flat = _flat(module)
    prefix = next(name for name, each in model.named_modules() if each is module)
    with as_known():
        starts = [0, *accumulate(flat._numels_with_padding[:-1])]
        # Padding that aligns parameters is listed with them.
        places = [at for at, pad in zip(starts, flat._is_padding_mask, strict=True) if not pad]
        return [
            (clean(f"{prefix}.{name}" if prefix else name), shape, start)
            for name, shape, start in zip(flat._fqns, flat._shapes, places, strict=True)
        ]


def cut(start: int, count: int, row: int, ranks: int) -> list[tuple[int, int]]:
    """For each piece of ``row`` elements where a parameter begins in it, and how many it has.

    ``start``, ``count``: of the parameter in the whole.
    """
    found = []
    for rank in range(ranks):
        low, high = rank * row, (rank + 1) * row
        first = min(max(start, low), high)
        last = min(max(start + count, low), high)
        found.append((first - low, last - first))
    return found


def shapes(
    model: torch.nn.Module, modules: "Sequence[FullyShardedDataParallel]"
) -> dict[str, torch.Size]:
    """By name the shape, as a whole, of all parameters: also of those that FSDP1 leaves alone."""
    found = {clean(name): each.shape for name, each in model.named_parameters()}
    for module in modules:
        found |= {name: shape for name, shape, _ in contents(model, module)}
    return found


def _flat(module: "FullyShardedDataParallel") -> Any:
    # Not public, but the only place where the order of the parameters is.
    with as_known():
        handle = module._handle
        return None if handle is None else handle.flat_param
