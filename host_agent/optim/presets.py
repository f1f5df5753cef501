"""DiLoCo with a codec: presets that send a hundredth of the bytes of DDP, or less."""

from collections.abc import Mapping

import torch
import torch.distributed as dist

from wiresum.host_agent.hooks.rules import DEFAULT_POLICY
from wiresum.host_agent.hooks.state import BlockFloat, TopK
from wiresum.host_agent.optim.diloco import DiLoCo
from wiresum.host_agent.optim.periodic import Drift, Pace, Weight


def sparse_loco(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    sync_every: int | Drift = 15,
    *,
    k: float = 0.1,
    bits: int = 8,
    decay: float = 0.95,
    lr: float = 1.0,
    policy: Mapping[str, str] = DEFAULT_POLICY,
    pace: Pace | None = None,
    weight: Weight = None,
    release_slots: bool = False,
    group: dist.ProcessGroup | None = None,
) -> DiLoCo:
    """A :class:`DiLoCo` that sends the ``k`` part of the blocks of each change, in ``bits``.

    As in SparseLoCo (Sarfi et al. 2025), error feedback takes the place of the outer momentum: what
    is not sent is kept, times ``decay`` at each synchronization, and the outer optimizer is
    SGD with the rate ``lr``. Unlike there, blocks are chosen in place of single elements, alike on
    all ranks, and fields have 8 bits in place of 2, so that a switch can sum them. Raises
    ``SynchronizationError`` and ``CodecError``.
    """
    codec = TopK(model, k, bits=bits, decay=decay, policy=policy, group=group)
    return DiLoCo(
        *(model, optimizer, _outer(model, lr), sync_every),
        codec=codec,
        pace=pace,
        weight=weight,
        release_slots=release_slots,
        group=group,
    )


def narrow_diloco(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    sync_every: int | Drift = 32,
    *,
    bits: int = 8,
    lr: float = 0.9,
    momentum: float = 0.6,
    policy: Mapping[str, str] = DEFAULT_POLICY,
    pace: Pace | None = None,
    weight: Weight = None,
    release_slots: bool = False,
    group: dist.ProcessGroup | None = None,
) -> DiLoCo:
    """A :class:`DiLoCo` that sends each change in fields of ``bits``, with error feedback.

    The outer optimizer is SGD with the rate ``lr`` and this Nesterov ``momentum``. DiLoCo's own are
    0.7 and 0.9 (Douillard et al. 2023), for many hundred synchronizations; with less momentum fewer
    are enough (docs/accuracy.md). Raises ``SynchronizationError`` and ``CodecError``.
    """
    codec = BlockFloat(model, bits=bits, policy=policy, group=group)
    return DiLoCo(
        *(model, optimizer, _outer(model, lr, momentum), sync_every),
        codec=codec,
        pace=pace,
        weight=weight,
        release_slots=release_slots,
        group=group,
    )


def _outer(model: torch.nn.Module, lr: float, momentum: float = 0.0) -> torch.optim.Optimizer:
    trained = [each for each in model.parameters() if each.requires_grad]
    return torch.optim.SGD(trained, lr=lr, momentum=momentum, nesterov=momentum > 0)
