"""Codecs for FSDP: the reduce-scatter that sums gradients of which each rank keeps its shard.

FSDP hands over one flat buffer for each module that is sharded by itself: for each rank its shard,
which FSDP2 cuts by the rows of each parameter and FSDP1 anywhere. Each rank's part is an exchange
of its own; all send their words in one all-reduce, and their lanes in one reduce-scatter, in which
the shorter ones are padded with zeros. A rank keeps residuals of whole gradients, since it sends to
all shards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, ShardingStrategy
from torch.distributed.tensor import DTensor, Shard

from wiresum.host_agent import lines
from wiresum.host_agent.errors import CodecError
from wiresum.host_agent.hooks import flat
from wiresum.host_agent.hooks.exchange import Exchange, Part
from wiresum.host_agent.hooks.rules import Coding, rule_for
from wiresum.host_agent.hooks.state import State


def compress_shards(model: torch.nn.Module, state: State) -> None:
    """Let all sharded modules of ``model`` sum their gradients as ``state`` says.

    ::

        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
        wiresum.hooks.compress_shards(model, wiresum.hooks.BlockFloat(model, bits=8))

    ``model`` may also be a ``FullyShardedDataParallel``, the whole one. Call it once all are
    sharded, before the first backward pass; again for another state. Raises :class:`CodecError` for
    a model that is not sharded, or sharded along another dimension than the first; for strategies
    of FSDP1 other than FULL_SHARD and SHARD_GRAD_OP; and for votes with feedback: what the majority
    leaves of the signs is known to one rank only.
    """
    sharded = [each for each in model.modules() if isinstance(each, FSDPModule)]
    pieces = flat.wrapped(model)
    if not sharded and not pieces:
        raise CodecError(lines.NOT_SHARDED.of())
    if state.feedback and state.uses(Coding.VOTE):
        raise CodecError(lines.VOTE_OF_SHARDS.of())
    for name, each in model.named_parameters():
        if isinstance(each, DTensor) and any(
            isinstance(how, Shard) and how.dim != 0 for how in each.placements
        ):
            raise CodecError(lines.OTHER_SHARDS.of(name=name))
    _hook_flat(model, pieces, state)
    for module in sharded:
        comm = ShardedMeans(state, _of_rows(module, state))
        module.set_custom_reduce_scatter(comm)  # type: ignore[arg-type]  # it is none by name only
        state.keep_from(comm)


def _hook_flat(
    model: torch.nn.Module, modules: Sequence[FullyShardedDataParallel], state: State
) -> None:
    """FSDP1's hooks do not say which module a gradient belongs to: each has a state of its own."""
    # With one rank FSDP1 shards nothing, and sums nothing.
    groups = [(each, each.process_group) for each in modules]
    hooked = [(each, group) for each, group in groups if group is not None and group.size() > 1]
    for module, _ in hooked:
        strategy = module.sharding_strategy
        if strategy not in (ShardingStrategy.FULL_SHARD, ShardingStrategy.SHARD_GRAD_OP):
            raise CodecError(lines.NOT_A_STRATEGY.of(name=strategy.name))
        with flat.as_known():
            hook, _ = module._comm_hook, module._comm_hook_state
        if hook not in (None, reduce_flat):
            raise CodecError(lines.HAS_ANOTHER_HOOK.of())
    for module, group in hooked:
        # As `register_comm_hook` does for all modules at once, with one state.
        module._comm_hook = reduce_flat
        module._comm_hook_state = FlatMeans(
            ShardedMeans(state, _of_pieces(model, module, state)), group
        )
        state.keep_from(module._comm_hook_state.means)


@dataclass(frozen=True)
class FlatMeans:
    """The state of FSDP1's hook: of one module."""

    means: "ShardedMeans"
    group: dist.ProcessGroup


def reduce_flat(own: FlatMeans, gradient: torch.Tensor, shard: torch.Tensor) -> None:
    """FSDP1's hook: write this rank's shard of the mean. Raises :class:`CodecError`."""
    own.means(shard, gradient, own.group, dist.ReduceOp.AVG)


@dataclass(frozen=True)
class Layout:
    """The parameters of a buffer, in their order there.

    ``row``: elements of a rank's shard, padding included; ``spans``: for each parameter and shard
    where it begins there, and its elements.
    """

    names: list[str]
    shapes: list[torch.Size]
    row: int
    spans: list[list[tuple[int, int]]]


Lay = Callable[[int, int], Layout]
"""For so many ranks, and so many elements of a buffer."""


def _of_rows(module: FSDPModule, state: State) -> Lay:
    """As FSDP2 shards: for each rank rows of each parameter."""

    def lay(ranks: int, _: int) -> Layout:
        names = state.names
        # Not public, but the only place where the order of the parameters in the buffer is.
        with flat.as_known():
            fsdp: Any = module._get_fsdp_state()
            own = [each for one in fsdp._fsdp_param_groups for each in one.fsdp_params]
            trained = [each.sharded_param for each in own if each.sharded_param.requires_grad]
        if not all(each in names for each in trained):
            raise CodecError(lines.OTHER_MODELS_CODEC.of())
        shapes, spans, row = [each.shape for each in trained], [], 0
        for shape in shapes:
            padded = -(-shape[0] // ranks) * (shape.numel() // shape[0])
            counts = (min(padded, max(shape.numel() - at * padded, 0)) for at in range(ranks))
            spans.append([(row, count) for count in counts])
            row += padded
        return Layout([names[each] for each in trained], shapes, row, spans)

    return lay


def _of_pieces(model: torch.nn.Module, module: FullyShardedDataParallel, state: State) -> Lay:
    """As FSDP1 shards: for each rank a piece of all parameters, one after the other."""

    def lay(ranks: int, count: int) -> Layout:
        found = flat.contents(model, module)
        if any(state.shapes.get(name) != shape for name, shape, _ in found):
            raise CodecError(lines.OTHER_MODELS_CODEC.of())
        row = count // ranks
        spans = [flat.cut(start, shape.numel(), row, ranks) for _, shape, start in found]
        return Layout([name for name, _, _ in found], [each for _, each, _ in found], row, spans)

    return lay


class ShardedMeans:
    """FSDP2's ``ReduceScatter`` for one module. The sum is there when the call returns."""

    def __init__(self, state: State, lay: Lay) -> None:
        self._state = state
        self._lay = lay
        self._exchanges: list[Exchange] = []
        self._layout = Layout([], [], 0, [])

    def allocate(
        self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """A buffer of its own."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Write this rank's shard of the mean, or of the sum. Raises :class:`CodecError`."""
        if op not in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
            raise CodecError(lines.NO_MEAN_OF_SHARDS.of(op=op))
        ranks, rank = group.size(), group.rank()
        if not self._exchanges:
            layout = self._lay(ranks, input_tensor.numel())
            self._exchanges, self._layout = self._made(layout, group), layout
        if input_tensor.numel() != ranks * self._layout.row:
            raise CodecError(lines.NOT_ALL_GRADIENTS.of(names=", ".join(self._layout.names)))
        given = [self._parts(at, each) for at, each in enumerate(input_tensor.view(ranks, -1))]
        self._agree(given, group)
        lanes = [each.lanes for each in self._exchanges]
        longest = max(each.numel() for each in lanes)
        sent = torch.zeros(ranks, longest, dtype=torch.int32)
        for row, each in zip(sent, lanes, strict=True):
            row[: each.numel()] = each
        summed = torch.empty(longest, dtype=torch.int32)
        dist.reduce_scatter_tensor(summed, sent.view(-1), group=group)
        for one in self._exchanges:
            one.keep()
        output_tensor.zero_()  # also what is padding
        own = self._parts(rank, output_tensor)
        self._exchanges[rank].give(summed[: lanes[rank].numel()], own)
        for one in self._exchanges:
            one.lay_aside()
        if op == dist.ReduceOp.SUM:
            output_tensor.mul_(ranks)

    def _parts(self, shard: int, buffer: torch.Tensor) -> list[torch.Tensor]:
        """The parameters' parts of a shard, without the rows that only pad it."""
        spans = (each[shard] for each in self._layout.spans)
        return [buffer[start : start + count] for start, count in spans]

    def _agree(self, given: Sequence[Sequence[torch.Tensor]], group: dist.ProcessGroup) -> None:
        words = [one.take(own) for one, own in zip(self._exchanges, given, strict=True)]
        mark = crc32(repr([one.mark for one in self._exchanges]).encode()) >> 1
        step = self._exchanges[0].step
        spoiled = sorted({at for one, own in zip(self._exchanges, words, strict=True)
                          for at in one.spoiled(own)})  # fmt: skip
        self._state.tell_of([self._layout.names[at] for at in spoiled])
        agreed = torch.cat([*words, torch.tensor([mark, -mark, step], dtype=torch.int32)])
        dist.all_reduce(agreed, dist.ReduceOp.MAX, group=group)
        most, minus_least, step = agreed[-3:].tolist()
        if most != -minus_least:
            raise CodecError(lines.OTHER_CODECS.of())
        at = 0
        for one, own in zip(self._exchanges, words, strict=True):
            one.step = step
            one.lanes = one.chosen(agreed[at : at + own.numel()])
            at += own.numel()

    def _made(self, own: Layout, group: dist.ProcessGroup) -> list[Exchange]:
        state, ranks = self._state, group.size()
        state.look_at_ranks(group)
        made = []
        for shard in range(ranks):
            parts = []
            for name, shape, spans in zip(own.names, own.shapes, own.spans, strict=True):
                rule = rule_for(name, shape, state.policy, state.rule)
                fed = state.feedback and not rule.exact
                # Another shard, other random words.
                parts.append(Part(spans[shard][1], rule, fed, crc32(name.encode()) ^ shard))
            made.append(Exchange(parts, ranks, state.course, rank=group.rank()))
            made[-1].step = max((state.step_of(name) for name in own.names), default=0)
        for place, name in enumerate(own.names):
            for kept, views in (
                (state.residual_of(name), [each.residual(place) for each in made]),
                (state.velocity_of(name), [each.velocity(place) for each in made]),
            ):
                if kept is not None and made[0].parts[place].feedback:
                    _scatter(kept.reshape(-1), views)
        return made

    def kept(self) -> dict[str, tuple[int, torch.Tensor | None, torch.Tensor | None]]:
        """Of each parameter the steps made, the residual and the velocity, in its own shape."""
        found = {}
        own = self._layout
        for place, (name, shape) in enumerate(zip(own.names, own.shapes, strict=True)):
            residual = velocity = None
            if self._exchanges[0].parts[place].feedback:
                residual = _whole([each.residual(place) for each in self._exchanges], shape)
                velocity = _whole([each.velocity(place) for each in self._exchanges], shape)
            found[name] = self._exchanges[0].step, residual, velocity
        return found

    def forget(self) -> None:
        """Take up anew what the state has, at the next step."""
        self._exchanges, self._layout = [], Layout([], [], 0, [])


def _scatter(whole: torch.Tensor, views: Sequence[torch.Tensor | None]) -> None:
    at = 0
    for each in views:
        if each is not None:
            each.copy_(whole[at : at + each.numel()])
            at += each.numel()


def _whole(views: Sequence[torch.Tensor | None], shape: torch.Size) -> torch.Tensor | None:
    parts = [each for each in views if each is not None]
    return torch.cat(parts).view(shape) if parts else None
