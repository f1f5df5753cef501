"""A training of n workers that one process plays."""

import torch

from wiresum.measure.accuracy.methods import Method
from wiresum.measure.demo.model import CharacterTransformer
from wiresum.measure.demo.text import Corpus, windows

LENGTH, BATCH, WIDTH, HEADS, LAYERS = 32, 8, 64, 4, 2
RATE = 3e-3
HELD_OUT = 128
"""Windows of the validation text that are looked at in the end."""


def play(
    method: Method, corpus: Corpus, workers: int, steps: int, seed: int
) -> tuple[float, float]:
    """The final loss on the validation text, and the bytes of a step.

    Bytes are those that one worker hands to all-reduces. ``seed`` chooses the weights and what each
    worker sees, alike for all methods.
    """
    torch.manual_seed(seed)
    local = method.every > 1
    made = [_model(corpus)]
    for _ in range(workers - 1 if local else 0):  # one model is all workers' if they stay alike
        made.append(_model(corpus))
        made[-1].load_state_dict(made[0].state_dict())
    optimizers = [torch.optim.AdamW(each.parameters(), lr=RATE * method.rate) for each in made]
    shapes = {name: each.shape for name, each in made[0].named_parameters()}
    mean = method.make(workers, shapes)
    orders = [torch.Generator().manual_seed(1000 * seed + rank) for rank in range(workers)]
    anchors = [each.detach().clone() for each in made[0].parameters()]
    sent = 0
    for step in range(1, steps + 1):
        gradients = []
        for rank, order in enumerate(orders):
            model = made[rank if local else 0]
            model.zero_grad()
            _loss(model, corpus.train, order, BATCH).backward()  # type: ignore[no-untyped-call]
            if local:
                optimizers[rank].step()
            else:
                gradients.append([_gradient(each).clone() for each in model.parameters()])
        if not local:
            sent += mean(gradients)
            for each, gradient in zip(made[0].parameters(), gradients[0], strict=True):
                each.grad = gradient
            optimizers[0].step()
        elif step % method.every == 0:
            changes = [
                [a - b.detach() for a, b in zip(anchors, each.parameters(), strict=True)]
                for each in made
            ]
            sent += mean(changes)
            with torch.no_grad():
                for anchor, change in zip(anchors, changes[0], strict=True):
                    anchor.sub_(change)
                for model in made:
                    for own, anchor in zip(model.parameters(), anchors, strict=True):
                        own.copy_(anchor)
    with torch.no_grad():
        if local:
            for own, anchor in zip(made[0].parameters(), anchors, strict=True):
                own.copy_(anchor)
        look = torch.Generator().manual_seed(0)
        return float(_loss(made[0], corpus.validation, look, HELD_OUT)), sent / steps


def _model(corpus: Corpus) -> CharacterTransformer:
    return CharacterTransformer(corpus.characters, LENGTH, WIDTH, HEADS, LAYERS)


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _loss(
    model: torch.nn.Module, data: torch.Tensor, order: torch.Generator, count: int
) -> torch.Tensor:
    starts = torch.randint(len(data) - LENGTH - 1, (count,), generator=order)
    inputs, targets = windows(data, starts, LENGTH)
    return torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
