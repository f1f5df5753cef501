"""A training of n workers that one process plays."""

from dataclasses import dataclass

import torch

from wiresum.measure.accuracy.means import Mean, Tensors
from wiresum.measure.accuracy.methods import Method
from wiresum.measure.accuracy.tasks import Task


@dataclass(frozen=True)
class Played:
    """The loss in the end; the bytes of a step, those that one worker hands to all-reduces."""

    loss: float
    bytes_per_step: float


def play(method: Method, task: Task, workers: int, steps: int, seed: int) -> Played:
    """Train as ``method`` says. ``seed`` chooses the weights and what each worker sees, alike for
    all methods."""
    torch.manual_seed(seed)
    first = task.model()
    mean = method.make(
        workers, {name: each.shape for name, each in first.named_parameters()}, steps
    )
    orders = [torch.Generator().manual_seed(1000 * seed + rank) for rank in range(workers)]
    if method.every > 1:
        sent = _locally(method, task, first, mean, orders, steps)
    else:
        sent = _together(method, task, first, mean, orders, steps)
    with torch.no_grad():
        return Played(task.held_out(first), sent / steps)


def _together(
    method: Method, task: Task, model: torch.nn.Module, mean: Mean, orders: list[torch.Generator],
    steps: int,
) -> int:  # fmt: skip
    """One model is all workers', since they stay alike. Returns the bytes."""
    optimizer = _optimizer(method, task, model)
    sent = 0
    for _ in range(steps):
        gradients = []
        for order in orders:
            model.zero_grad()
            task.loss(model, order).backward()  # type: ignore[no-untyped-call]
            gradients.append([_gradient(each).clone() for each in model.parameters()])
        sent += mean(gradients)
        for each, gradient in zip(model.parameters(), gradients[0], strict=True):
            each.grad = gradient
        optimizer.step()
    return sent


def _locally(
    method: Method, task: Task, first: torch.nn.Module, mean: Mean, orders: list[torch.Generator],
    steps: int,
) -> int:  # fmt: skip
    """Each worker trains a model of its own, and all are replaced every so many steps."""
    models = [first]
    for _ in orders[1:]:
        models.append(task.model())
        models[-1].load_state_dict(first.state_dict())
    optimizers = [_optimizer(method, task, each) for each in models]
    anchors = [each.detach().clone().requires_grad_() for each in first.parameters()]
    rate, momentum = method.outer
    outer = torch.optim.SGD(anchors, lr=rate, momentum=momentum, nesterov=momentum > 0)
    sent = 0
    for step in range(1, steps + 1):
        for model, optimizer, order in zip(models, optimizers, orders, strict=True):
            model.zero_grad()
            task.loss(model, order).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if step % method.every and step < steps:
            continue
        with torch.no_grad():
            changes: list[Tensors] = [
                [anchor - own for anchor, own in zip(anchors, each.parameters(), strict=True)]
                for each in models
            ]
            sent += mean(changes)
            for anchor, change in zip(anchors, changes[0], strict=True):
                anchor.grad = change
            outer.step()
            for model in models:
                for own, anchor in zip(model.parameters(), anchors, strict=True):
                    own.copy_(anchor)
    return sent


def _optimizer(method: Method, task: Task, model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), lr=task.rate * method.rate, betas=(method.momentum, 0.999)
    )


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad
