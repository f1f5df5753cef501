"""What is trained: checks of a model and its optimizers, and lists of tensors."""

from collections.abc import Iterable

import torch

from wiresum.host_agent import lines
from wiresum.host_agent.errors import SynchronizationError


def trained(model: torch.nn.Module) -> list[torch.Tensor]:
    """The parameters that are trained.

    Raises :class:`SynchronizationError` if there are none, or no rank has them whole.
    """
    parameters: list[torch.Tensor] = [each for each in model.parameters() if each.requires_grad]
    if not parameters:
        raise SynchronizationError(lines.NOTHING_TO_SYNCHRONIZE.of())
    if any(isinstance(each, torch.distributed.tensor.DTensor) for each in parameters):
        raise SynchronizationError(lines.SHARDED_MODEL.of())
    return parameters


def check_covers(
    what: str, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor]
) -> None:
    """Raise :class:`SynchronizationError` if the optimizer lacks one of the parameters."""
    has = {id(each) for group in optimizer.param_groups for each in group["params"]}
    missing = sum(id(each) not in has for each in parameters)
    if missing:
        raise SynchronizationError(lines.OTHER_PARAMETERS.of(what=what, count=missing))


def squared_norm(tensors: Iterable[torch.Tensor]) -> float:
    """Of all elements together, in float32 sums of each tensor."""
    return sum(float(each.detach().float().square().sum()) for each in tensors)


def copies(tensors: Iterable[torch.Tensor], like: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Each on the device of its counterpart: a checkpoint may come from another one."""
    return [a.detach().to(b.device, copy=True) for a, b in zip(tensors, like, strict=True)]


def shapes(tensors: Iterable[torch.Tensor]) -> list[torch.Size]:
    """The shape of each."""
    return [each.shape for each in tensors]
