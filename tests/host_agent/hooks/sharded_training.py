"""Ranks that train a model sharded by FSDP2, or by FSDP1, with codecs: ``… FOLDER``."""

import hashlib
import io
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard

from wiresum import hooks
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks.exchange import Exchange, Part
from wiresum.host_agent.hooks.rules import rule_for

STEPS = 4
SHAPES = {"0.weight": (50, 40), "0.bias": (50,), "2.weight": (4, 50), "2.bias": (4,)}


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(40, 50), nn.Tanh(), nn.Linear(50, 4))


def sharded(mesh: Any = None) -> nn.Sequential:
    """Two sharded modules: the first layer, and the rest."""
    model = network()
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)  # type: ignore[return-value]


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    inputs = torch.randn(32, 40, generator=generator)
    return inputs, (inputs[:, :4] ** 2).argmax(1)


def loss_of(model: nn.Module, rank: int, step: int) -> torch.Tensor:
    inputs, labels = batch(rank, step)
    return nn.functional.cross_entropy(model(inputs), labels)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> float:
    optimizer.zero_grad()
    loss = loss_of(model, dist.get_rank(), number)
    loss.backward()
    optimizer.step()
    return loss.item()


def whole(model: nn.Module) -> list[torch.Tensor]:
    return [each.full_tensor().clone() for each in model.parameters()]  # type: ignore[attr-defined]


def trained(model: nn.Module, first: int = 0) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for number in range(first, STEPS):
        stepped(model, optimizer, number)
    return whole(model)


def gradients(model: nn.Module, number: int) -> list[dict[str, torch.Tensor]]:
    """Those of each rank, of a plain model."""
    given = []
    for rank in range(dist.get_world_size()):
        model.zero_grad()
        loss_of(model, rank, number).backward()
        given.append({name: each.grad.clone() for name, each in model.named_parameters()})  # type: ignore[union-attr]
    return given


def means_of(ranks: list[Exchange], own: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """What all ranks get for their shares of a shard."""
    words = torch.stack([one.take(mine) for one, mine in zip(ranks, own, strict=True)])
    lanes = torch.stack([one.chosen(words.amax(0)) for one in ranks])
    for one, mine in zip(ranks, own, strict=True):
        one.keep()
        one.give(lanes.sum(0, dtype=torch.int32), mine)
    return own[0]


def played(state: Any) -> list[torch.Tensor]:
    """All ranks in one process: plain models, an exchange for each rank, module and shard."""
    ranks = dist.get_world_size()
    model = network()
    parameters = dict(model.named_parameters())
    modules = [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def made(module: list[str], shard: int, rank: int) -> Exchange:
        parts = []
        for name in module:
            shape = SHAPES[name]
            rule = rule_for(name, shape, state.policy, state.rule)
            rows = -(-shape[0] // ranks)
            count = max(min(rows, shape[0] - shard * rows), 0) * math.prod(shape[1:])
            fed = state.feedback and not rule.exact
            parts.append(Part(count, rule, fed, crc32(name.encode()) ^ shard))
        return Exchange(parts, ranks, state.course, rank=rank)

    def rows_of(name: str, grad: torch.Tensor, shard: int) -> torch.Tensor:
        rows = -(-SHAPES[name][0] // ranks)
        return grad[shard * rows : (shard + 1) * rows].reshape(-1).clone()

    exchanges = {
        (at, shard): [made(module, shard, rank) for rank in range(ranks)]
        for at, module in enumerate(modules)
        for shard in range(ranks)
    }
    for number in range(STEPS):
        given = gradients(model, number)
        means: dict[str, list[torch.Tensor]] = {name: [] for name in SHAPES}
        for (at, shard), all_ in exchanges.items():
            own = [[rows_of(name, each[name], shard) for name in modules[at]] for each in given]
            for name, mean in zip(modules[at], means_of(all_, own), strict=True):
                means[name].append(mean)
        for name, each in parameters.items():
            each.grad = torch.cat(means[name])[: each.numel()].view(each.shape)
        optimizer.step()
    return [each.detach() for each in model.parameters()]


def whole_of(values: list[torch.Tensor], aligned: bool) -> torch.Tensor:
    """FSDP1's flat buffer; with its ``use_orig_params`` each begins at a multiple of 16 bytes."""
    parts = []
    for at, each in enumerate(values):
        parts.append(each.reshape(-1))
        if aligned and at + 1 < len(values):
            parts.append(torch.zeros(-each.numel() % 4))
    found = torch.cat(parts)
    return torch.cat([found, torch.zeros(-found.numel() % dist.get_world_size())])


def played_flat(state: Any, modules: list[list[str]], aligned: bool) -> list[torch.Tensor]:
    """As :func:`played`, of FSDP1: a module's parameters in one line, cut into equal pieces."""
    ranks = dist.get_world_size()
    model = network()
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    numbers = {name: float(at + 1) for at, name in enumerate(SHAPES)}
    lines = [
        whole_of([torch.full(SHAPES[name], numbers[name]) for name in module], aligned)
        for module in modules
    ]
    all_: dict[tuple[int, int], list[Exchange]] = {}
    for at, (module, line) in enumerate(zip(modules, lines, strict=True)):
        for shard, piece in enumerate(line.chunk(ranks)):
            parts = []
            for name in module:
                rule = rule_for(name, SHAPES[name], state.policy, state.rule)
                fed = state.feedback and not rule.exact
                count = int((piece == numbers[name]).sum())
                parts.append(Part(count, rule, fed, crc32(name.encode()) ^ shard))
            all_[at, shard] = [Exchange(parts, ranks, state.course, rank=r) for r in range(ranks)]
    for number in range(STEPS):
        given = gradients(model, number)
        means: dict[str, list[torch.Tensor]] = {name: [] for name in SHAPES}
        for (at, shard), exchanges in all_.items():
            where = lines[at].chunk(ranks)[shard]
            own = []
            for each in given:
                piece = whole_of([each[n] for n in modules[at]], aligned).chunk(ranks)[shard]
                own.append([piece[where == numbers[name]] for name in modules[at]])
            for name, mean in zip(modules[at], means_of(exchanges, own), strict=True):
                means[name].append(mean)
        for name, each in parameters.items():
            each.grad = torch.cat(means[name]).view(each.shape)
        optimizer.step()
    return [each.detach() for each in model.parameters()]


def wrapped(nested: bool, group: Any = None) -> FullyShardedDataParallel:
    """By FSDP1: the first layer and the rest, or all at once with the parameters as they are."""
    model = network()
    options: dict[str, Any] = {"process_group": group, "device_id": torch.device("cpu")}
    if nested:
        model[0] = FullyShardedDataParallel(model[0], **options)
    return FullyShardedDataParallel(model, use_orig_params=not nested, **options)


def trained_flat(model: FullyShardedDataParallel, numbers: range) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for number in numbers:
        stepped(model, optimizer, number)
    with FullyShardedDataParallel.summon_full_params(model):
        return [each.detach().clone() for each in model.parameters()]


def of_fsdp1() -> Iterator[str]:
    """Asserts; yields what has been shown."""
    gloo = dist.new_group(backend="gloo")
    plain = trained_flat(wrapped(True), range(STEPS))
    model = wrapped(True)
    hooks.compress_shards(model, hooks.BlockFloat(model, bits=32))
    for found, wanted in zip(trained_flat(model, range(STEPS)), plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for nested, names in ((True, ("8 bits", "thc")), (False, ("top-k", "vote"))):
        all_ = list(SHAPES)
        modules = [all_[:2], all_[2:]] if nested else [all_]
        for name in names:
            wanted = played_flat(CODECS[name](network()), modules, aligned=not nested)
            model = wrapped(nested)
            hooks.compress_shards(model, CODECS[name](model))
            assert same(trained_flat(model, range(STEPS)), wanted), name
            yield f"fsdp1, {name} {digest(wanted)}"

            model = wrapped(nested, gloo)
            state = CODECS[name](model)
            hooks.compress_shards(model, state)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            for number in range(2):
                stepped(model, optimizer, number)
            kept = io.BytesIO()
            torch.save(state.state_dict(), kept)
            kept.seek(0)
            state = CODECS[name](model)
            state.load_state_dict(torch.load(kept, weights_only=True))
            hooks.compress_shards(model, state)
            assert same(trained_flat(model, range(2, STEPS)), wanted), name
    yield "fsdp1 over gloo gives the same bits, also where a run is restored in the middle"

    model = FullyShardedDataParallel(
        network(), device_id=torch.device("cpu"), sharding_strategy=ShardingStrategy.NO_SHARD
    )
    assert "NO_SHARD has no codecs" in refused(
        lambda: hooks.compress_shards(model, hooks.BlockFloat(model, bits=8))
    )
    model = wrapped(True)
    model.register_comm_hook(None, refused)
    assert "hook of its own" in refused(
        lambda: hooks.compress_shards(model, hooks.BlockFloat(model, bits=8))
    )
    yield "strategies of fsdp1 without hooks are refused"

    for lost in ("_fqns", "_is_padding_mask"):
        model = wrapped(True)
        delattr(model._handle.flat_param, lost)  # type: ignore[union-attr]
        told = refused(partial(hooks.BlockFloat, model, bits=8))
        assert "is built in another way than codecs know" in told
        assert lost in told
    model = wrapped(True)
    state = hooks.BlockFloat(model, bits=8)
    del model._comm_hook_state
    assert "_comm_hook_state" in refused(lambda: hooks.compress_shards(model, state))
    assert model._comm_hook is None
    yield "an fsdp1 that is built in another way is refused"


def digest(values: list[torch.Tensor]) -> str:
    """The same on all ranks."""
    mine = hashlib.sha256(torch.cat([each.reshape(-1) for each in values]).numpy().tobytes())
    all_: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(all_, mine.hexdigest())
    assert len(set(all_)) == 1
    return mine.hexdigest()


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


CODECS: dict[str, Callable[[nn.Module], Any]] = {
    "8 bits": lambda m: hooks.BlockFloat(m, bits=8),
    "8 bits, stochastic": lambda m: hooks.BlockFloat(m, bits=8, rounding="stochastic"),
    "top-k": lambda m: hooks.TopK(m, 0.4, bits=4, momentum=0.5, warmup=2, policy={}),
    "ternary": hooks.Ternary,
    "vote": lambda m: hooks.Vote(m, feedback=False),
    "thc": hooks.THC,
}


def refused(call: Callable[[], Any]) -> str:
    try:
        call()
    except CodecError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def scenarios() -> Iterator[str]:
    """Asserts; yields what has been shown."""
    plain = trained(sharded())
    model = sharded()
    hooks.compress_shards(model, hooks.BlockFloat(model, bits=32))
    for found, wanted in zip(trained(model), plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    yield "32 bits train as plain FSDP2 does"

    gloo = init_device_mesh("cpu", (dist.get_world_size(),), backend_override={0: "gloo"})
    for at, (name, make) in enumerate(CODECS.items()):
        wanted = played(make(network()))
        model = sharded()
        hooks.compress_shards(model, make(model))
        assert same(trained(model), wanted), name
        yield f"{name} {digest(wanted)}"

        model = sharded(gloo)
        state = make(model)
        hooks.compress_shards(model, state)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for number in range(2):
            stepped(model, optimizer, number)
        if at % 2:
            kept = io.BytesIO()
            torch.save(state.state_dict(), kept)
            kept.seek(0)
            state = make(model)
            state.load_state_dict(torch.load(kept, weights_only=True))
        else:
            state.attach(model)
        hooks.compress_shards(model, state)
        assert same(trained(model, first=2), wanted), name
    yield "gloo gives the same bits, also where a run is restored in the middle"

    model = sharded()
    hooks.compress_shards(model, hooks.BlockFloat(model, bits=8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = [stepped(model, optimizer, number % 3) for number in range(15)]
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3]), losses
    yield "a training learns"

    model = sharded()
    hooks.compress_shards(model, hooks.Ternary(model))
    loss = loss_of(model, dist.get_rank(), 0)
    (loss * float("nan") if dist.get_rank() == 1 else loss).backward()
    assert all(
        bool(each.grad.to_local().isnan().all())  # type: ignore[union-attr]
        for each in model.parameters()
        if each.grad is not None and each.grad.to_local().numel()  # type: ignore[attr-defined]
    )
    yield "a NaN of one rank reaches the shards of all"

    for words, call in (
        ("no module of the model is sharded", lambda: hooks.compress_shards(
            network(), hooks.BlockFloat(network()))),
        ("votes over shards", lambda: hooks.compress_shards(model, hooks.Vote(model))),
    ):  # fmt: skip
        assert words in refused(call)
    model = sharded()
    hooks.compress_shards(model, hooks.BlockFloat(model, bits=8))
    model.set_gradient_divide_factor(2.0)  # type: ignore[operator]
    inputs, _ = batch(0, 0)
    assert "leave its divide factors" in refused(lambda: model(inputs).sum().backward())
    yield "what codecs cannot do is refused"
    yield from of_fsdp1()


def main() -> None:
    dist.init_process_group("wiresum")
    shown = list(scenarios())
    Path(sys.argv[1], f"{dist.get_rank()}").write_text("\n".join(shown))
    dist.destroy_process_group()


main()
