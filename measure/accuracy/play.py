"""A training of n workers that one process plays."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.func import functional_call, vmap
from torch.nn import functional

from wiresum.measure.accuracy.means import Mean, Tensors
from wiresum.measure.accuracy.methods import Method
from wiresum.measure.accuracy.tasks import Batch, Task

WARM = 0.05
"""The part of the steps in which the learning rate rises; then it falls to zero, as a cosine."""

Parameters = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Played:
    """The loss in the end; the bytes of a step, those that one worker hands to all-reduces."""

    loss: float
    bytes_per_step: float


def play(method: Method, task: Task, workers: int, steps: int, seed: int) -> Played:
    """Train as ``method`` says. ``seed`` chooses the weights and what each worker sees, alike for
    all methods."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # Attention has no rule for vmap, which does it worker by worker then, and says so.
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        training = _Training(method, task, workers, steps, seed)
        sent = training.locally() if method.every > 1 else training.together()
        return Played(training.held_out(), sent / steps)


def rate_at(step: int, steps: int) -> float:
    """The learning rate of a step, from 0, as a part of the largest."""
    rising = WARM * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


class _Training:
    """The workers' models are played together: a small one costs calls rather than arithmetic.

    Their parameters lie in tensors of one more dimension, the first.
    """

    def __init__(self, method: Method, task: Task, workers: int, steps: int, seed: int) -> None:
        self._method, self._task = method, task
        self._workers, self._steps = workers, steps
        self._model = task.model()
        self._first = {name: each.detach() for name, each in self._model.named_parameters()}
        shapes = {name: each.shape for name, each in self._first.items()}
        self._mean: Mean = method.make(workers, shapes, steps)
        self._orders = [
            torch.Generator().manual_seed(1000 * seed + rank) for rank in range(workers)
        ]

    def held_out(self) -> float:
        """The loss of the model that all workers have."""
        with torch.no_grad():
            own = {name: each[None] for name, each in self._first.items()}
            return float(self._losses(own, self._task.held_out()))

    def together(self) -> int:
        """One model is all workers', since they stay alike. Returns the bytes."""
        optimizer = self._optimizer(self._first.values())
        sent = 0
        for step in range(self._steps):
            own = {
                name: each.expand(self._workers, *each.shape).requires_grad_()
                for name, each in self._first.items()
            }
            gradients = [each.unbind() for each in self._gradients(own)]
            all_ = [list(of_one) for of_one in zip(*gradients, strict=True)]
            sent += self._mean(all_)
            self._step(optimizer, self._first.values(), all_[0], step)
        return sent

    def locally(self) -> int:
        """Each worker has a model of its own, and all are replaced every so many steps."""
        own = {
            name: each.repeat(self._workers, *[1] * each.dim()).requires_grad_()
            for name, each in self._first.items()
        }
        optimizer = self._optimizer(own.values())  # element by element, so of all models
        anchors = list(self._first.values())
        rate, momentum = self._method.outer
        outer = torch.optim.SGD(anchors, lr=rate, momentum=momentum, nesterov=momentum > 0)
        sent = 0
        for step in range(self._steps):
            self._step(optimizer, own.values(), self._gradients(own), step)
            if (step + 1) % self._method.every and step + 1 < self._steps:
                continue
            with torch.no_grad():
                changes: list[Tensors] = [
                    [
                        anchor - each[rank]
                        for anchor, each in zip(anchors, own.values(), strict=True)
                    ]
                    for rank in range(self._workers)
                ]
                sent += self._mean(changes)
                for anchor, change in zip(anchors, changes[0], strict=True):
                    anchor.grad = change
                outer.step()
                for each, anchor in zip(own.values(), anchors, strict=True):
                    each.copy_(anchor)
        return sent

    def _losses(self, own: Parameters, batches: Batch) -> torch.Tensor:
        """The sum over the workers."""

        def loss(of_one: Parameters, inputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            logits = functional_call(self._model, dict(of_one), (inputs,))
            return functional.cross_entropy(logits.flatten(0, -2), classes.flatten())

        found: torch.Tensor = vmap(loss)(own, *batches)
        return found.sum()

    def _gradients(self, own: Parameters) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(
            self._losses(own, self._task.batches(self._orders)), list(own.values())
        )

    def _optimizer(self, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            list(parameters), betas=(self._method.momentum, 0.999), foreach=True
        )

    def _step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor],
        gradients: Iterable[torch.Tensor], step: int,
    ) -> None:  # fmt: skip
        for each, gradient in zip(parameters, gradients, strict=True):
            each.grad = gradient
        for group in optimizer.param_groups:
            group["lr"] = self._task.rate * self._method.rate * rate_at(step, self._steps)
        optimizer.step()
