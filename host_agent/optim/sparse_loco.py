"""A preset in the manner of SparseLoCo: local steps, few blocks of their change, in few bits."""

from collections.abc import Mapping

import torch
import torch.distributed as dist

from wiresum.host_agent.hooks.rules import DEFAULT_POLICY
from wiresum.host_agent.hooks.state import TopK
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
    outer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=lr)
    codec = TopK(model, k, bits=bits, decay=decay, policy=policy, group=group)
    return DiLoCo(
        *(model, optimizer, outer, sync_every),
        codec=codec,
        pace=pace,
        weight=weight,
        release_slots=release_slots,
        group=group,
    )
