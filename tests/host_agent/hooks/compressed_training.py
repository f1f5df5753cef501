"""Ranks with compressed gradients beside one process that plays all: ``… FOLDER``."""

import hashlib
import io
import itertools
import logging
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wiresum import hooks, host_agent
from wiresum.host_agent import _engine
from wiresum.host_agent.hooks.exchange import Course, Exchange, Part
from wiresum.host_agent.hooks.rules import Rule, rule_for

STEPS = 5
BLOCK = 256
SHAPES = {"small": (7, 3), "wide": (40, 30), "bias": (300,), "tall": (64, 64)}
POLICY = {"1d": "exact", "tall": "k=0.5"}


class Given(nn.Module):
    """A model whose gradients are what its loss is given."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=dtype)))

    def forward(self, wanted: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(
            ((each * wanted[name]).sum() for name, each in self.named_parameters()),
            start=torch.zeros(()),
        )


def gradients(rank: int, step: int) -> dict[str, torch.Tensor]:
    """Blocks of very different sizes, and ties: the first blocks of `tall` are all ones."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    found = {}
    for name, shape in SHAPES.items():
        values = torch.randn(shape, generator=generator)
        sizes = torch.rand(shape[0], generator=generator).exp()
        found[name] = values * sizes.view(-1, *[1] * (len(shape) - 1))
    found["tall"].view(-1)[: 3 * BLOCK] = 1.0
    return found


class Played:
    """All ranks, by the definition: numpy, and the codec's functions on whole arrays."""

    def __init__(self, rules: dict[str, tuple[float, int]], feedback: bool = True) -> None:
        self.rules, self.feedback = rules, feedback
        self.ranks = dist.get_world_size()
        self.kept = {
            name: [np.zeros(math.prod(shape), np.float32) for _ in range(self.ranks)]
            for name, shape in SHAPES.items()
        }

    def step(self, given: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        means = {}
        for name, (share, bits) in self.rules.items():
            mine = [each[name].float().numpy().reshape(-1) for each in given]
            if self.feedback and (share, bits) != (1.0, 32):
                mine = [kept + new for kept, new in zip(self.kept[name], mine, strict=True)]
            mean, self.kept[name] = self.mean(mine, share, bits)
            means[name] = torch.from_numpy(mean).view(SHAPES[name])
        return means

    def mean(self, mine: list[Any], share: float, bits: int) -> tuple[Any, list[Any]]:
        codes = np.max([_engine.exponents(each, "float32") for each in mine], axis=0)
        count = math.ceil(share * len(codes))
        best = sorted(range(len(codes)), key=lambda at: (-int(codes[at]), at))[:count]
        agreed = np.zeros_like(codes)
        agreed[best] = codes[best]
        zeros = _engine.encode(np.zeros_like(mine[0]), "float32", agreed, self.ranks, bits)
        lanes = [_engine.encode(each, "float32", agreed, self.ranks, bits) for each in mine]
        mean = np.empty_like(mine[0])
        with np.errstate(over="ignore"):
            total = np.sum(lanes, axis=0, dtype=np.uint32)
        _engine.decode(total, mean, "float32", agreed, self.ranks, bits, True)
        left = []
        for each, own in zip(mine, lanes, strict=True):
            sent = np.empty_like(each)
            alone = own + np.uint32(self.ranks - 1) * zeros
            _engine.decode(alone, sent, "float32", agreed, self.ranks, bits, False)
            if bits == 32:
                sent = np.where(np.repeat(agreed, BLOCK)[: len(each)] > 0, each, 0)
            left.append((each - sent).astype(np.float32))
        return mean, left


def played(state: Any) -> list[dict[str, Any]]:
    """What all ranks get with such a state: their exchanges in one process, without a carrier."""
    ranks = range(dist.get_world_size())
    parts = []
    for name, shape in SHAPES.items():
        rule = rule_for(name, shape, state.policy, state.rule)
        fed = state.feedback and not rule.exact
        parts.append(Part(math.prod(shape), rule, fed, crc32(name.encode())))
    exchanges = [Exchange(parts, len(ranks), state.course, rank=rank) for rank in ranks]
    found = []
    for number in range(STEPS):
        given = [list(gradients(rank, number).values()) for rank in ranks]
        words = [one.take(own) for one, own in zip(exchanges, given, strict=True)]
        lanes = [one.chosen(torch.stack(words).amax(0)) for one in exchanges]
        for rank, one in zip(ranks, exchanges, strict=True):
            one.keep()
            one.give(torch.stack(lanes).sum(0, dtype=torch.int32), given[rank])
        assert all(torch.equal(a, b) for own in given for a, b in zip(own, given[0], strict=True))
        found.append(dict(zip(SHAPES, given[0], strict=True)))
    return found


def codecs() -> dict[str, Callable[[Any], Any]]:
    """The codecs beside nearest rounding in 32, 16 and 8 bits."""
    narrow = {"policy": {"1d": "exact", "tall": "k=0.5"}}
    made: dict[str, Callable[[Any], Any]] = {
        "4 bits": lambda m: hooks.BlockFloat(m, bits=4, policy={}),
        "8 bits, stochastic": lambda m: hooks.BlockFloat(m, bits=8, rounding="stochastic", seed=5),
        "16 bits, stochastic": lambda m: hooks.BlockFloat(
            m, bits=16, rounding="stochastic", feedback=False
        ),
        "top-k in 4 bits": lambda m: hooks.TopK(m, 0.2, bits=4, **narrow),
        "top-k by a threshold": lambda m: hooks.TopK(m, 1.0, threshold=0.6, bits=8),
        "top-k, momentum and warm-up": lambda m: hooks.TopK(
            m, 0.2, bits=8, momentum=0.9, warmup=3, decay=0.9
        ),
        "ternary": hooks.Ternary,
        "ternary without feedback": lambda m: hooks.Ternary(m, feedback=False),
        "ternary, stochastic": lambda m: hooks.Ternary(m, rounding="stochastic"),
        "vote": hooks.Vote,
        "vote without feedback": lambda m: hooks.Vote(m, feedback=False),
        "vote, stochastic": lambda m: hooks.Vote(m, rounding="stochastic"),
        "thc": hooks.THC,
        "thc without feedback": lambda m: hooks.THC(m, bits=4, feedback=False, seed=3),
    }
    return made


def restored(state: Any, make: Callable[[Any], Any], model: Any, kept_as: str) -> Any:
    """A state that continues from another: itself, or through a file or a pickle."""
    if kept_as == "attach":
        state.attach(model)
        return state
    if kept_as == "pickle":
        found = pickle.loads(pickle.dumps(state))
        found.attach(model)
        return found
    kept = io.BytesIO()
    torch.save(state.state_dict(), kept)
    kept.seek(0)
    found = make(model)
    found.load_state_dict(torch.load(kept, weights_only=True))
    return found


def every_codec() -> Iterator[str]:
    """Asserts of :func:`codecs`; yields what has been shown."""
    others = dist.new_group(backend="gloo")
    for at, (name, make) in enumerate(codecs().items()):
        wanted = played(make(Given()))
        model = wrapped()
        assert same(trained(model, make(model)), wanted), name
        gloo = wrapped(others, cap_mb=25)
        assert same(trained(gloo, make(gloo)), wanted), name
        model = wrapped()
        state = make(model.module)
        model.register_comm_hook(state, hooks.compress)
        for number in range(2):
            step(model, number)
        kept_as, cap_mb = (("pickle", 25), ("state_dict", 25), ("attach", 0.001))[at % 3]
        model = wrapped(cap_mb=cap_mb)
        after = trained(model, restored(state, make, model, kept_as), first=2)
        assert same(after, wanted[2:]), name
        yield f"{name} {digest(wanted)}"
    for name, make in codecs().items():
        skips_the_step_of_a_nan(name, make)
    yield "a NaN of one rank makes all skip the step, under each codec"


def skips_the_step_of_a_nan(name: str, make: Callable[[Any], Any]) -> None:
    model = wrapped()
    state = make(model)
    model.register_comm_hook(state, hooks.compress)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before, scales = [], []
    for number in range(3):
        before.append([each.detach().clone() for each in model.parameters()])
        given = gradients(dist.get_rank(), number)
        if number == 1 and dist.get_rank() == 2:
            given["wide"][3, 4] = float("nan")
        optimizer.zero_grad()
        scaler.scale(model(given)).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    before.append([each.detach().clone() for each in model.parameters()])
    moved = [
        any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))
        for one, two in itertools.pairwise(before)
    ]
    assert moved == [True, False, True], name
    assert scales == [8.0, 4.0, 4.0], name
    digest([dict(zip(SHAPES, before[-1], strict=True))])
    assert all(each.isfinite().all() for each in state.state_dict()["residuals"].values()), name


def wrapped(
    group: Any = None, cap_mb: float = 0.001, dtype: torch.dtype = torch.float32
) -> DistributedDataParallel:
    return DistributedDataParallel(Given(dtype), bucket_cap_mb=cap_mb, process_group=group)


def step(model: DistributedDataParallel, number: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(gradients(dist.get_rank(), number)).backward()
    return {name: each.grad.clone() for name, each in model.module.named_parameters()}


def trained(model: DistributedDataParallel, state: Any, first: int = 0) -> list[dict[str, Any]]:
    model.register_comm_hook(state, hooks.compress)
    return [step(model, number) for number in range(first, STEPS)]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    return all(
        torch.equal(each[name], other[name])
        for each, other in zip(found, wanted, strict=True)
        for name in SHAPES
    )


def digest(found: list[dict[str, Any]]) -> str:
    """The same on all ranks."""
    joined = torch.cat([each[name].reshape(-1) for each in found for name in SHAPES])
    mine = hashlib.sha256(joined.numpy().tobytes()).hexdigest()
    all_: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_, mine)
    assert len(set(all_)) == 1
    return mine


def by_definition(
    rules: dict[str, tuple[float, int]], feedback: bool = True
) -> list[dict[str, Any]]:
    played = Played(rules, feedback)
    ranks = range(dist.get_world_size())
    return [played.step([gradients(r, number) for r in ranks]) for number in range(STEPS)]


def broken(*_: object) -> None:
    raise ValueError("no such lanes")


def scenarios() -> Iterator[str]:
    """Asserts; yields what has been shown."""
    rules = {"small": (0.2, 8), "wide": (0.2, 8), "bias": (1.0, 32), "tall": (0.5, 8)}
    wanted = by_definition(rules)
    before = sum(host_agent.stats()[kind].get("all_reduce", 0) for kind in ("switch", "ranks"))
    model = wrapped()
    found = trained(model, hooks.TopK(model, 0.2, bits=8, policy=POLICY))
    assert same(found, wanted)
    after = sum(host_agent.stats()[kind].get("all_reduce", 0) for kind in ("switch", "ranks"))
    assert after - before >= 2 * 2 * STEPS  # of at least two buckets codes and lanes
    yield f"the means are those of the definition, on all ranks alike {digest(found)}"

    one = wrapped(cap_mb=25)
    assert same(trained(one, hooks.TopK(one, 0.2, bits=8, policy=POLICY)), wanted)
    yield "they do not depend on the buckets"

    gloo = wrapped(dist.new_group(backend="gloo"))
    assert same(trained(gloo, hooks.TopK(gloo, 0.2, bits=8, policy=POLICY)), wanted)
    yield "gloo gives the same bits"

    for bits, feedback in ((16, True), (8, True), (8, False)):
        model = wrapped()
        found = trained(model, hooks.BlockFloat(model, bits=bits, feedback=feedback, policy={}))
        assert same(found, by_definition(dict.fromkeys(SHAPES, (1.0, bits)), feedback))
    yield "all blocks in few bits, with and without feedback"

    for kept_as in ("state_dict", "pickle"):
        model = wrapped()
        state = hooks.TopK(model.module, 0.2, bits=8, policy=POLICY)
        model.register_comm_hook(state, hooks.compress)
        for number in range(2):
            step(model, number)
        model = wrapped(cap_mb=25)
        if kept_as == "pickle":
            restored = pickle.loads(pickle.dumps(state))
            restored.attach(model)
        else:
            kept = io.BytesIO()
            torch.save(state.state_dict(), kept)
            kept.seek(0)
            restored = hooks.TopK(model, 0.2, bits=8, policy=POLICY)
            restored.load_state_dict(torch.load(kept, weights_only=True))
        assert same(trained(model, restored, first=2), wanted[2:])
    yield "a restored run has the bits of the one that was not stopped"

    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("wiresum").addHandler(handler)
    model = wrapped()
    other = hooks.TopK(model, 0.2, bits=8, policy=POLICY)
    other.load_state_dict(state.state_dict() | {"workers": 7})
    assert all(each["tall"].isfinite().all() for each in trained(model, other, first=2))
    assert len(said) == 1, said
    assert f"of 7, and this is rank {dist.get_rank()} of {dist.get_world_size()}" in said[0]
    yield "another number of ranks is one warning"

    model = wrapped()
    model.register_comm_hook(hooks.TopK(model, 0.2, bits=8, policy=POLICY), hooks.compress)
    given = gradients(dist.get_rank(), 0)
    if dist.get_rank() == 1:
        given["wide"].view(-1)[700] = float("nan")
        given["tall"].view(-1)[5 * BLOCK] = float("inf")
    model(given).backward()
    wide, tall = (dict(model.module.named_parameters())[n].grad for n in ("wide", "tall"))
    assert wide.view(-1)[512:768].isnan().all()
    assert wide.view(-1)[:512].isfinite().all()
    assert tall.view(-1)[5 * BLOCK : 6 * BLOCK].isnan().all()
    assert all(each["tall"].isfinite().all() for each in [step(model, 1), step(model, 2)])
    logging.getLogger("wiresum").removeHandler(handler)
    assert [f"rank {dist.get_rank()} has Inf or NaN for " in each for each in said[1:]] == (
        [True] if dist.get_rank() == 1 else []
    ), said
    yield "a NaN of one rank reaches all, where it was, and no later step"

    half = wrapped(dtype=torch.bfloat16)
    found = trained(half, hooks.TopK(half, 0.2, bits=8, policy=POLICY))
    assert found[0]["tall"].dtype == torch.bfloat16
    digest([{name: each.float() for name, each in one.items()} for one in found])
    yield "gradients of 16 bits"

    model = wrapped()
    model.register_comm_hook(hooks.TopK(model, 0.2, bits=8), hooks.compress)
    finish = Exchange.finish
    Exchange.finish = broken  # type: ignore[method-assign]
    raised = ""
    try:
        step(model, 0)
    except RuntimeError as error:
        raised = str(error)
    assert "no such lanes" in raised
    Exchange.finish = finish  # type: ignore[method-assign]
    yield "an error in the end of a sum is raised by backward()"

    yield from failed_steps()

    late = Exchange([Part(600, Rule(0.1, 8), True)], dist.get_world_size(), Course(decay=0.5))
    values = torch.ones(600) * torch.arange(600).div(BLOCK, rounding_mode="floor").add(1)
    late.begin([values], None)
    late.send(None).wait()
    late.finish([values])
    assert values[:512].eq(0).all()
    assert values[512:].eq(3).all()
    late.begin([torch.zeros(600)], None)
    late.send(None).wait()
    late.finish([values])
    assert values[256:512].eq(1).all()  # half of the 2 that were kept
    yield "a residual that decays"
    yield from every_codec()


def failed_steps() -> Iterator[str]:
    """DDP goes on after a failed backward pass only if it is made anew; the state is kept."""
    options: dict[str, Any] = {"k": 0.4, "bits": 8, "momentum": 0.5, "policy": {}}
    model = wrapped()
    wanted = trained(model, hooks.TopK(model, **options))
    model = wrapped()
    state = hooks.TopK(model, **options)
    model.register_comm_hook(state, hooks.compress)
    found = [step(model, number) for number in range(2)]
    # The gradient of `tall` is ready first: its codes are on their way when that of `bias` fails.
    dict(model.module.named_parameters())["bias"].register_hook(broken)
    try:
        step(model, 7)
        raise AssertionError("nothing was raised")
    except ValueError:
        pass
    assert state.held is not None
    model = wrapped()
    state.attach(model)
    model.register_comm_hook(state, hooks.compress)
    found += [step(model, number) for number in range(2, STEPS)]
    assert same(found, wanted)
    yield "a backward pass that fails before the sum leaves nothing in what is kept"


def main() -> None:
    dist.init_process_group("wiresum")
    shown = list(scenarios())
    Path(sys.argv[1], f"{dist.get_rank()}").write_text("\n".join(shown))
    dist.destroy_process_group()


main()
