"""Ranks with local steps beside one process that plays all ranks: ``local_steps.py FOLDER``."""

import copy
import io
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import delayed_gradients
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from trainings import CLOSE, alike, flat, inner, model, step, wide

from wiresum import hooks, host_agent
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.remedies.hooks import put
from wiresum.host_agent.remedies.local_steps import local_steps
from wiresum.optim import (
    DelayedGradients,
    DiLoCo,
    Drift,
    LocalSGD,
    Pace,
    narrow_diloco,
    sparse_loco,
)

STEPS = 12


def outer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.7, momentum=0.9, nesterov=True)


def played(due: Callable[[int], bool], with_outer: bool) -> torch.Tensor:
    """The parameters after the same training, by the definition, in this process alone."""
    count = dist.get_world_size()
    nets = [model(0) for _ in range(count)]
    optimizers = [inner(net) for net in nets]
    center = model(0)
    stepper = outer(center) if with_outer else torch.optim.SGD(center.parameters(), lr=1.0)
    for number in range(1, STEPS + 1):
        for rank, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            step(net, optimizer, rank, number)
        if due(number):
            for anchor, *locals_ in zip(*(n.parameters() for n in (center, *nets)), strict=True):
                anchor.grad = torch.stack([anchor.detach() - p.detach() for p in locals_]).mean(0)
            stepper.step()
            for net in nets:
                net.load_state_dict(center.state_dict())
    return flat(center)


def played_sparsely(every: int, share: float, decay: float) -> torch.Tensor:
    """As :func:`played`, of SparseLoCo with 32 bits: each parameter's largest blocks."""
    count = dist.get_world_size()
    nets = [wide(0) for _ in range(count)]
    optimizers = [inner(net) for net in nets]
    center = wide(0)
    kept = [[torch.zeros(each.numel()) for each in center.parameters()] for _ in nets]
    for number in range(1, STEPS + 1):
        for rank, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            step(net, optimizer, rank, number)
        if number % every:
            continue
        for place, anchor in enumerate(center.parameters()):
            own = [list(net.parameters())[place].detach() for net in nets]
            mine = [
                decay * left[place] * (anchor.ndim > 1) + (anchor.detach() - each).view(-1)
                for left, each in zip(kept, own, strict=True)
            ]
            blocks = [each.split(256) for each in mine]
            sizes = [max(float(e.abs().max()) for e in same) for same in zip(*blocks, strict=True)]
            most = len(sizes) if anchor.ndim == 1 else math.ceil(share * len(sizes))
            chosen = sorted(range(len(sizes)), key=lambda at: (-sizes[at], at))[:most]
            mask = torch.cat([torch.full_like(e, i in chosen) for i, e in enumerate(blocks[0])])
            for left, each in zip(kept, mine, strict=True):
                left[place] = each * (1 - mask)
            anchor.data -= (torch.stack(mine).mean(0) * mask).view_as(anchor)
        for net in nets:
            net.load_state_dict(center.state_dict())
    return flat(center)


def train(
    make: Callable[[nn.Module, torch.optim.Optimizer], Any],
    *,
    cut_at: int | None = None,
    model: Callable[[int], nn.Module] = model,
) -> tuple[torch.Tensor, Any]:
    """This rank's parameters; ``cut_at``: everything is saved and made anew after that step."""
    net = model(dist.get_rank())
    optimizer = inner(net)
    periodic = make(net, optimizer)
    first = 1
    if cut_at is not None:
        with periodic:
            for number in range(1, cut_at + 1):
                step(net, optimizer, dist.get_rank(), number)
        kept = io.BytesIO()
        torch.save([each.state_dict() for each in (net, optimizer, periodic)], kept)
        kept.seek(0)
        net = model(dist.get_rank())
        optimizer = inner(net)
        periodic = make(net, optimizer)
        for each, state in zip(
            (net, optimizer, periodic), torch.load(kept, weights_only=True), strict=True
        ):
            each.load_state_dict(state)
        first = cut_at + 1
    with periodic:
        for number in range(first, STEPS + 1):
            step(net, optimizer, dist.get_rank(), number)
    return flat(net), periodic


def all_reduces() -> int:
    stats = host_agent.stats()
    return int(stats["switch"].get("all_reduce", 0)) + int(stats["ranks"].get("all_reduce", 0))


def scenarios() -> Iterator[str]:
    """Asserts; yields what has been shown."""
    values, _ = train(lambda net, opt: LocalSGD(net, opt, 4))
    assert alike(values)
    torch.testing.assert_close(values, played(lambda n: n % 4 == 0, False), atol=CLOSE, rtol=CLOSE)
    yield "local sgd is the mean every four steps"

    values, _ = train(lambda net, opt: LocalSGD(net, opt, 3, warmup_steps=3))
    assert alike(values)
    wanted = played(lambda n: n <= 3 or n % 3 == 0, False)
    torch.testing.assert_close(values, wanted, atol=CLOSE, rtol=CLOSE)
    yield "warmup synchronizes at every step"

    before = all_reduces()
    values, _ = train(lambda net, opt: DiLoCo(net, opt, outer(net), 6))
    assert all_reduces() - before == STEPS // 6
    assert alike(values)
    torch.testing.assert_close(values, played(lambda n: n % 6 == 0, True), atol=CLOSE, rtol=CLOSE)
    yield "diloco steps along the mean change, with one all-reduce every six steps"

    def streaming(net: nn.Module, opt: torch.optim.Optimizer) -> DiLoCo:
        return DiLoCo(net, opt, outer(net), 6, fragments=3, delay=1, mix=0.5)

    whole, periodic = train(streaming)
    assert alike(torch.cat([each.reshape(-1) for each in periodic.state_dict()["anchors"]]))
    for cut_at in (3, 4, 7):  # with a sum on its way, just applied, in the second round
        parts, _ = train(streaming, cut_at=cut_at)
        assert torch.equal(parts, whole), cut_at
    yield "a restored streaming diloco has the bits of the one that was not stopped"

    ddp = DistributedDataParallel(model(dist.get_rank()))
    optimizer = inner(ddp.module)
    local_steps(ddp, h=4)
    before = all_reduces()
    for number in range(1, STEPS + 1):
        step(ddp, optimizer, dist.get_rank(), number)
    assert all_reduces() - before == STEPS // 4
    assert alike(flat(ddp.module))
    wanted = played(lambda n: n % 4 == 0, False)
    torch.testing.assert_close(flat(ddp.module), wanted, atol=CLOSE, rtol=CLOSE)
    yield "a script that stays as it is, with DDP, has local steps from outside"

    def sparse(net: nn.Module, opt: torch.optim.Optimizer, bits: int = 32) -> DiLoCo:
        return sparse_loco(net, opt, 3, k=0.3, bits=bits, decay=0.9)

    values, _ = train(sparse, model=wide)
    assert alike(values)
    wanted = played_sparsely(3, 0.3, 0.9)
    torch.testing.assert_close(values, wanted, atol=CLOSE, rtol=CLOSE)
    whole, _ = train(lambda net, opt: sparse(net, opt, 8), model=wide)
    assert alike(whole)
    for cut_at in (4, 6):
        parts, _ = train(lambda net, opt: sparse(net, opt, 8), model=wide, cut_at=cut_at)
        assert torch.equal(parts, whole), cut_at
    yield "few blocks of the changes, with feedback, also after a restart"

    def narrow(net: nn.Module, opt: torch.optim.Optimizer) -> DiLoCo:
        return narrow_diloco(net, opt, 6, lr=0.7, momentum=0.9)

    values, _ = train(narrow)
    assert alike(values)
    torch.testing.assert_close(values, played(lambda n: n % 6 == 0, True), atol=0.02, rtol=0.02)
    whole, _ = train(lambda net, opt: narrow_diloco(net, opt, 3), model=wide)
    parts, _ = train(lambda net, opt: narrow_diloco(net, opt, 3), model=wide, cut_at=4)
    assert torch.equal(parts, whole)
    yield "diloco in narrow fields, also after a restart"

    ddp = DistributedDataParallel(wide(dist.get_rank()))
    optimizer = inner(ddp.module)
    used = put(ddp, "diloco:h=4,bits=8,lr=0.8,momentum=0.5")
    assert used.startswith("diloco")
    for number in range(1, STEPS + 1):
        step(ddp, optimizer, dist.get_rank(), number)
    twin = wide(dist.get_rank())
    optimizer = inner(twin)
    with narrow_diloco(twin, optimizer, 4, lr=0.8, momentum=0.5):
        for number in range(1, STEPS + 1):
            step(twin, optimizer, dist.get_rank(), number)
    assert torch.equal(flat(ddp.module), flat(twin))
    yield "a script that stays as it is has it from outside"

    for make in (
        lambda net, opt: LocalSGD(net, opt, Drift(0.05, first=2, most=8)),
        lambda net, opt: DiLoCo(net, opt, outer(net), Drift(1e-6, first=4)),
    ):
        values, periodic = train(make)
        chosen: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(chosen, periodic.sync_every)
        assert len(set(chosen)) == 1
    assert periodic.sync_every == 1  # nothing is as near as a millionth
    net = model(0)
    local = LocalSGD(net, inner(net), Drift(0.5, first=4))
    local._adapt([torch.ones(1)], [torch.zeros(1)], 100.0 if dist.get_rank() else 1.0)
    assert alike(torch.tensor(local.sync_every))  # hosts may round the norm differently
    yield "all ranks adapt alike to the drift"

    net = model(dist.get_rank())
    optimizer = inner(net)
    with LocalSGD(net, optimizer, 2) as local:
        step(net, optimizer, dist.get_rank(), 1)
        if dist.get_rank() == 1:
            local.skipped()
        else:
            step(net, optimizer, dist.get_rank(), 2)
    assert alike(flat(net))
    yield "a step that one rank has left out counts"

    exact = nn.Linear(2, 1).double()
    optimizer = torch.optim.SGD(exact.parameters(), lr=0.1)
    with LocalSGD(exact, optimizer, 1):
        exact(torch.full((4, 2), dist.get_rank() + 1.0, dtype=torch.float64)).sum().backward()
        optimizer.step()
    assert alike(flat(exact))
    yield "dtypes that the switch does not average are averaged"


class Clock:
    """Tells the time that the steps of a rank have taken: as many seconds each as it is told."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(
    make: Callable[[nn.Module, torch.optim.Optimizer, Pace], Any],
    rounds: int,
    cut_at: int | None = None,
) -> tuple[torch.Tensor, Any]:
    """This rank's parameters when its steps take (rank + 1) seconds, and the periodic."""
    rank, clock = dist.get_rank(), Clock(dist.get_rank() + 1)
    net = model(rank)
    optimizer = inner(net)
    periodic = make(net, optimizer, Pace(clock=clock))
    while periodic.rounds < rounds:
        with periodic:
            while periodic.rounds < rounds and periodic.local_step != cut_at:
                clock.now += clock.seconds
                step(net, optimizer, rank, periodic.local_step + 1)
        if periodic.rounds < rounds:
            kept = [copy.deepcopy(each.state_dict()) for each in (net, optimizer, periodic)]
            net, cut_at = model(rank), None
            optimizer = inner(net)
            periodic = make(net, optimizer, Pace(clock=clock))
            for each, state in zip((net, optimizer, periodic), kept, strict=True):
                each.load_state_dict(state)
    return flat(net), periodic


def played_by_pace(
    steps: list[list[int]], factors: Callable[[list[int]], list[float]], with_outer: bool
) -> torch.Tensor:
    """As :func:`played`, with so many steps of each rank in each round."""
    nets = [model(0) for _ in steps[0]]
    optimizers = [inner(net) for net in nets]
    center = model(0)
    stepper = outer(center) if with_outer else torch.optim.SGD(center.parameters(), lr=1.0)
    done = [0] * len(nets)
    for counts in steps:
        for rank, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            for _ in range(counts[rank]):
                done[rank] += 1
                step(net, optimizer, rank, done[rank])
        for anchor, *locals_ in zip(*(n.parameters() for n in (center, *nets)), strict=True):
            changes = [f * (anchor - p) for f, p in zip(factors(counts), locals_, strict=True)]
            anchor.grad = torch.stack(changes).detach().sum(0)
        stepper.step()
        for net in nets:
            net.load_state_dict(center.state_dict())
    return flat(center)


def by_pace() -> Iterator[str]:
    rank = dist.get_rank()
    steps = [[6, 6, 6], [10, 5, 3], [10, 5, 3]]  # 18 each, in 9.8 s each
    values, periodic = paced(lambda *of: LocalSGD(of[0], of[1], 6, pace=of[2], weight="steps"), 3)
    assert periodic.local_step == sum(each[rank] for each in steps)
    assert alike(values)
    wanted = played_by_pace(steps, lambda done: [each / 18 for each in done], False)
    torch.testing.assert_close(values, wanted, atol=CLOSE, rtol=CLOSE)
    yield "each rank does as many steps as it can, and counts by its steps"

    def nova(done: list[int]) -> list[float]:
        shares = [2 / 7, 4 / 7, 1 / 7]
        effective = sum(share * count for share, count in zip(shares, done, strict=True))
        return [share / count * effective for share, count in zip(shares, done, strict=True)]

    def make(net: nn.Module, opt: torch.optim.Optimizer, pace: Pace) -> DiLoCo:
        return DiLoCo(net, opt, outer(net), 6, pace=pace, weight=[20, 40, 10][rank])

    values, periodic = paced(make, 3)
    assert alike(values)
    torch.testing.assert_close(values, played_by_pace(steps, nova, True), atol=CLOSE, rtol=CLOSE)
    for cut_at in (4, 7):
        assert torch.equal(paced(make, 3, cut_at)[0], values)
    yield "with data of their own, ranks count by its size, however fast they are"

    values, periodic = train(lambda net, opt: LocalSGD(net, opt, 4, weight=[1, 1, 2][rank]))
    assert alike(values)
    wanted = played_by_pace([[4] * 3] * 3, lambda _: [0.25, 0.25, 0.5], False)
    torch.testing.assert_close(values, wanted, atol=CLOSE, rtol=CLOSE)
    yield "without a pace the weights alone count"

    def late(net: nn.Module, opt: torch.optim.Optimizer) -> DiLoCo:
        return DiLoCo(net, opt, outer(net), Drift(1e-6, first=4, least=2), delay=1)

    whole, periodic = train(late)
    assert (periodic.sync_every, periodic.rounds) == (2, 4)  # after 4, 8, 10 and 12 steps
    for cut_at in (4, 6):  # with a sum on its way
        assert torch.equal(train(late, cut_at=cut_at)[0], whole)
    yield "with a delay the drift is measured when the sum is there"

    net = model(rank)
    opt = inner(net)
    codec = hooks.BlockFloat(net, bits=8) if rank else None
    ddp = DistributedDataParallel(net)

    def restored(local_step: int, begun: bool) -> LocalSGD:
        periodic = LocalSGD(net, opt, 4)
        anchors = [each.detach().clone() for each in net.parameters()] if begun else []
        kept = {"local_step": local_step, "since": local_step, "anchors": anchors}
        periodic.load_state_dict(periodic.state_dict() | kept)
        return periodic

    for other, words in (
        (lambda: LocalSGD(net, opt, 2 + rank % 2), "sync_every differs between the ranks: 2, 3, 2"),
        (lambda: LocalSGD(net, opt, 2, weight="steps" if rank else 9), "the kind of weight"),
        (lambda: LocalSGD(net, opt, 2, pace=Pace() if rank else None), "a Pace .*: 0, 1, 1"),
        (lambda: LocalSGD(net, opt, Drift(0.1, first=2) if rank else 2), "a Drift .*: 0, 0.1, 0.1"),
        (
            lambda: LocalSGD(net, opt, Drift(0.1, 2, 1, 8 + rank)),
            "most of a Drift .*: 8, 9, 10",
        ),
        (lambda: LocalSGD(net, opt, 2, warmup_steps=rank), "warmup_steps differs"),
        (lambda: DiLoCo(net, opt, outer(net), 4, delay=rank), "the delay differs"),
        (lambda: DiLoCo(net, opt, outer(net), 4, codec=codec), "a codec .*: 0, 1, 1"),
        (lambda: DelayedGradients(net, opt, 1, codec=codec), "a codec .*: 0, 1, 1"),
        (lambda: restored(rank, True), "steps so far differs between the ranks: 0, 1, 2"),
        (lambda: restored(0, rank > 0), "the ranks have begun .*: 0, 1, 1"),
        (
            lambda: LocalSGD(net, opt, 4) if rank else DiLoCo(net, opt, outer(net), 4),
            f"here {'LocalSGD' if rank else 'DiLoCo'}. differs between the ranks: "
            + ("another, as here, as here" if rank else "as here, another, another"),
        ),
        (
            lambda: DelayedGradients(net, opt, 1) if rank else LocalSGD(net, opt, 4),
            "what is entered",
        ),
        (
            lambda: DelayedGradients(ddp if rank else net, opt, 1),
            "DDP wraps the model .*: 0, 1, 1",
        ),
        (lambda: DelayedGradients(net, opt, 1 + rank), "the staleness differs between the ranks"),
    ):
        with pytest.raises(SynchronizationError, match=words), other():
            pass
    yield "options that differ between the ranks are refused on all"


def main() -> None:
    dist.init_process_group("wiresum")
    shown = [*scenarios(), *by_pace(), *delayed_gradients.scenarios()]
    Path(sys.argv[1], f"{dist.get_rank()}").write_text("\n".join(shown))
    dist.destroy_process_group()


main()
