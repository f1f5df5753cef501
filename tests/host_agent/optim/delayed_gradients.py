"""Scenarios of delayed gradients, beside one process that plays all ranks; for local_steps.py."""

import io
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from trainings import CLOSE, alike, backward, digest, flat, inner, model, step, wide

from wiresum.hooks import TopK
from wiresum.optim import DelayedGradients

STEPS = 9


def played(staleness: int, lost: tuple[int, ...] = (), micro: int = 1) -> torch.Tensor:
    """The parameters after all gradients are applied, by the definition, in this process alone."""
    net = model(0)
    optimizer = inner(net)
    late: list[list[torch.Tensor] | None] = []

    def apply() -> None:
        means = late.pop(0)
        if means is not None:
            for each, mean in zip(net.parameters(), means, strict=True):
                each.grad = mean
            optimizer.step()

    ranks = range(dist.get_world_size())
    for number in range(1, STEPS + 1):
        optimizer.zero_grad()
        for rank in ranks:
            for part in range(micro):
                backward(net, rank, number + 100 * part)
        means = [each.grad / len(ranks) for each in net.parameters() if each.grad is not None]
        late.append(None if number in lost else means)
        while len(late) > staleness:
            apply()
    while late:
        apply()
    return flat(net)


Make = Callable[[nn.Module, torch.optim.Optimizer], DelayedGradients]


def train(
    make: Make,
    *,
    of: Callable[[int], nn.Module] = model,
    ddp: bool = False,
    micro: int = 1,
    cut_at: int | None = None,
    again: int = 0,
) -> torch.Tensor:
    """This rank's parameters; ``cut_at``: all is saved and made anew after that step."""
    rank = dist.get_rank()

    def made() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, DelayedGradients]:
        net = of(rank)
        whole: nn.Module = DistributedDataParallel(net) if ddp else net
        optimizer = inner(net)
        return net, whole, optimizer, make(whole, optimizer)

    net, whole, optimizer, delayed = made()
    number = 0
    while number < STEPS:
        with delayed:
            while number < STEPS:
                number += 1
                optimizer.zero_grad(set_to_none=number % 2 == 0)
                for part in range(micro - 1):
                    with whole.no_sync() if ddp else nullcontext():  # type: ignore[operator]
                        backward(whole, rank, number + 100 * (part + 1))
                backward(whole, rank, number)
                optimizer.step()
                if number == again:
                    delayed.flush()
                if number == cut_at:
                    kept = io.BytesIO()
                    torch.save([each.state_dict() for each in (net, optimizer, delayed)], kept)
                    break
        if number == cut_at:
            cut_at = None
            net, whole, optimizer, delayed = made()
            kept.seek(0)
            for each, state in zip(
                (net, optimizer, delayed), torch.load(kept, weights_only=True), strict=True
            ):
                each.load_state_dict(state)
    return flat(net)


def synchronous() -> torch.Tensor:
    """One all-reduce of all gradients at every step."""
    net, rank = model(0), dist.get_rank()
    optimizer = inner(net)
    for number in range(1, STEPS + 1):
        optimizer.zero_grad()
        backward(net, rank, number)
        gradients = [each.grad for each in net.parameters() if each.grad is not None]
        mean = torch.cat([each.reshape(-1) for each in gradients])
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
        for each, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            each.copy_(part.view_as(each))
        optimizer.step()
    return flat(net)


def ddp_alone(micro: int) -> torch.Tensor:
    net = model(0)
    whole, optimizer, rank = DistributedDataParallel(net), inner(net), dist.get_rank()
    for number in range(1, STEPS + 1):
        optimizer.zero_grad()
        for part in range(micro - 1):
            with whole.no_sync():
                backward(whole, rank, number + 100 * (part + 1))
        step_from(whole, optimizer, rank, number)
    return flat(net)


def step_from(net: nn.Module, optimizer: torch.optim.Optimizer, rank: int, number: int) -> None:
    backward(net, rank, number)
    optimizer.step()


def scaled(ddp: bool, staleness: int) -> tuple[torch.Tensor, float]:
    """With a GradScaler, and an overflow of the second rank alone in step 4."""
    net, rank = model(dist.get_rank()), dist.get_rank()
    whole: nn.Module = DistributedDataParallel(net) if ddp else net
    optimizer = inner(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    with DelayedGradients(whole, optimizer, staleness, scaler=scaler) as delayed:
        for number in range(1, STEPS + 1):
            optimizer.zero_grad()
            lost = float("inf") if (number, rank) == (4, 1) else 1.0
            backward(whole, rank, number, lost * float(scaler.scale(torch.ones(()))))
            delayed.reduce()
            scaler.step(optimizer)
            scaler.update()
    return flat(net), scaler.get_scale()


class Twins(nn.Module):
    """Uses one of its two parts, as it is told: the other one has no gradient on any rank."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.parts = nn.ModuleList([nn.Linear(6, 1), nn.Linear(6, 1)])
        self.which = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts[self.which](x)  # type: ignore[no-any-return]


def twins() -> torch.Tensor:
    net, rank = Twins(), dist.get_rank()
    whole = DistributedDataParallel(net, find_unused_parameters=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    before = flat(net)
    with DelayedGradients(whole, optimizer, 1):
        for number in (0, 1):
            net.which = number
            step(whole, optimizer, rank, number)
        # The first step's gradient is that of the part which the second step has not used.
        moved = flat(net) != before
        assert moved[:7].all()
        assert not moved[7:].any()
    assert (flat(net) != before).all()
    return flat(net)


def twins_with_a_nan() -> torch.Tensor:
    """In the gradient of the part that is unused when it is due, where the scaler does not look."""
    net, rank = Twins(), dist.get_rank()
    whole = DistributedDataParallel(net, find_unused_parameters=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with DelayedGradients(whole, optimizer, 1, scaler=scaler):
        for number in (0, 1):
            net.which = number
            optimizer.zero_grad()
            lost = float("nan") if (number, rank) == (0, 1) else 1.0
            backward(whole, rank, number, lost * float(scaler.scale(torch.ones(()))))
            scaler.step(optimizer)
            scaler.update()
    assert flat(net).isfinite().all()
    return flat(net)


def scenarios() -> Iterator[str]:
    """Asserts; yields what has been shown, and digests that all carriers must share."""
    plain = train(lambda net, opt: DelayedGradients(net, opt, 0))
    assert torch.equal(plain, synchronous())
    for micro in (1, 2):
        whole = train(lambda net, opt: DelayedGradients(net, opt, 0), ddp=True, micro=micro)
        assert torch.equal(whole, ddp_alone(micro))
    yield "without staleness it is the synchronous training, bit for bit"

    for staleness in (1, 2):
        for ddp in (False, True):
            values = train(lambda net, opt: DelayedGradients(net, opt, staleness), ddp=ddp)  # noqa: B023
            assert alike(values)
            torch.testing.assert_close(values, played(staleness), atol=CLOSE, rtol=CLOSE)
            yield f"staleness {staleness}, DDP {ddp}: {digest(values)}"
    for ddp in (False, True):
        values = train(lambda net, opt: DelayedGradients(net, opt, 1), ddp=ddp, micro=2)
        torch.testing.assert_close(values, played(1, micro=2), atol=CLOSE, rtol=CLOSE)
    yield "each step applies the mean of s steps before, and the end is drained"

    def late(net: nn.Module, opt: torch.optim.Optimizer) -> DelayedGradients:
        return DelayedGradients(net, opt, 2)

    def top(net: nn.Module, opt: torch.optim.Optimizer, group: Any = None) -> DelayedGradients:
        codec = TopK(net, 0.4, bits=8, group=group)
        return DelayedGradients(net, opt, 2, codec=codec, group=group)

    for make, of in ((late, model), (top, wide)):
        values = train(make, of=of)
        assert alike(values)
        for cut_at in (1, 2, 5):
            assert torch.equal(train(make, of=of, cut_at=cut_at), values), cut_at
    yield f"a restored run has the bits of the one that was not stopped: {digest(values)}"

    group = dist.new_group(backend="gloo")
    over_gloo = train(lambda net, opt: top(net, opt, group), of=wide)
    assert torch.equal(over_gloo, values)
    by_ddp = train(top, of=wide, ddp=True)
    assert torch.equal(by_ddp, values)  # the codec's choice does not depend on buckets
    yield "a codec gives the same bits over gloo, and under DDP"

    values = train(lambda net, opt: DelayedGradients(net, opt, 2), again=4)
    assert alike(values)
    assert not torch.equal(values, train(late))
    yield "a training goes on after a flush"

    for ddp in (False, True):
        values, scale = scaled(ddp, 1)
        assert alike(values)
        assert alike(torch.tensor(scale))
        torch.testing.assert_close(values, played(1, lost=(4,)), atol=1e-3, rtol=1e-3)
        sure, _ = scaled(ddp, 0)
        torch.testing.assert_close(sure, played(0, lost=(4,)), atol=1e-3, rtol=1e-3)
    yield "an overflow on one rank leaves the step out on all, s steps later"

    assert alike(twins())
    assert alike(twins_with_a_nan())
    yield "what nobody uses in this step gets the gradient of the step before"

    spoiled = model(0)
    optimizer = inner(spoiled)
    with DelayedGradients(spoiled, optimizer, 1):
        step(spoiled, optimizer, dist.get_rank(), 1)
        if dist.get_rank() == 1:
            optimizer.zero_grad()
            backward(spoiled, 1, 2, float("nan"))
            optimizer.step()
        else:
            step(spoiled, optimizer, dist.get_rank(), 2)
        assert flat(spoiled).isfinite().all()
    assert flat(spoiled).isnan().all()
    yield "without a scaler a NaN of one rank is all ranks', s steps later"
