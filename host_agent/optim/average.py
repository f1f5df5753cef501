"""Averages tensors over the ranks of a group, in few large collectives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import torch
import torch.distributed as dist

from wiresum.host_agent import lines
from wiresum.host_agent.errors import SynchronizationError

BUCKET_BYTES = 25 << 20
"""As in DDP: enough that the cost of a collective's start does not show."""


@dataclass(frozen=True)
class _Bucket:
    """Tensors of one dtype and device, and where their average will be."""

    places: tuple[int, ...]
    flat: torch.Tensor
    work: dist.Work


class Pending:
    """An average that is on its way."""

    def __init__(self, shapes: list[torch.Size], buckets: list[_Bucket], ranks: int) -> None:
        self._shapes = shapes
        self._buckets = buckets
        self._ranks = ranks

    def wait(self) -> list[torch.Tensor]:
        """The averages, in the order of the tensors. Raises what the collective raises."""
        found: list[torch.Tensor | None] = [None] * len(self._shapes)
        for bucket in self._buckets:
            bucket.work.wait()
            bucket.flat.div_(self._ranks)
            sizes = [self._shapes[place].numel() for place in bucket.places]
            for place, part in zip(bucket.places, torch.split(bucket.flat, sizes), strict=True):
                found[place] = part.view(self._shapes[place])
        return [each for each in found if each is not None]


def start(tensors: Sequence[torch.Tensor], group: dist.ProcessGroup | None) -> Pending:
    """Begin to average copies of these tensors; all ranks call it with the same shapes."""
    # Not AVG: gloo of older torch has none, and no backend averages every dtype.
    buckets = []
    for places in _in_buckets(tensors):
        flat = torch.cat([tensors[place].detach().reshape(-1) for place in places])
        work = dist.all_reduce(flat, group=group, async_op=True)
        assert work is not None
        buckets.append(_Bucket(places, flat, work))
    return Pending([each.shape for each in tensors], buckets, dist.get_world_size(group))


def gathered(
    own: Sequence[float], device: torch.device, group: dist.ProcessGroup | None
) -> list[list[float]]:
    """What each rank has told, exactly: for each of the numbers a list by rank."""
    ranks = dist.get_world_size(group)
    mine = torch.tensor(own, dtype=torch.float64, device=device)
    found = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(found, mine, group=group)
    return torch.stack(found).t().tolist()


def check_alike(
    who: str, own: Mapping[str, float], device: torch.device, group: dist.ProcessGroup | None
) -> None:
    """Raise :class:`SynchronizationError` on all ranks if one of the numbers, which have names,
    differs between them, or if they are another class's on some ranks.

    ``who``: the name of the class. Ranks compare it first: another class may have more numbers.
    """
    kind = crc32(repr((who, list(own))).encode())
    (kinds,) = gathered([kind], device, group)
    if len(set(kinds)) > 1:
        by_rank = ", ".join("as here" if each == kind else "another" for each in kinds)
        what = f"what is entered (here {who})"
        raise SynchronizationError(lines.RANKS_DIFFER.of(what=what, given=by_rank))
    for what, given in zip(own, gathered(list(own.values()), device, group), strict=True):
        if len(set(given)) > 1:
            by_rank = ", ".join(f"{each:g}" for each in given)
            raise SynchronizationError(lines.RANKS_DIFFER.of(what=what, given=by_rank))


def copy_from_first(tensors: Sequence[torch.Tensor], group: dist.ProcessGroup | None) -> None:
    """Give all ranks what the group's first rank has."""
    source = 0 if group is None else dist.get_global_rank(group, 0)
    with torch.no_grad():
        for places in _in_buckets(tensors):
            flat = torch.cat([tensors[place].detach().reshape(-1) for place in places])
            dist.broadcast(flat, src=source, group=group)
            sizes = [tensors[place].numel() for place in places]
            for place, part in zip(places, torch.split(flat, sizes), strict=True):
                tensors[place].copy_(part.view_as(tensors[place]))


def _in_buckets(tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """The places of the tensors of each bucket; the same on all ranks."""
    open_now: dict[tuple[torch.dtype, torch.device], tuple[list[int], int]] = {}
    done: list[tuple[int, ...]] = []
    for place, tensor in enumerate(tensors):
        kind = tensor.dtype, tensor.device
        places, size = open_now.get(kind, ([], 0))
        places.append(place)
        size += tensor.numel() * tensor.element_size()
        open_now[kind] = places, size
        if size >= BUCKET_BYTES:
            done.append(tuple(places))
            del open_now[kind]
    return done + [tuple(places) for places, _ in open_now.values()]
