"""What one rank does in a sample, with fresh data for each collective; whether it came right."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from wiresum.host_agent._engine import budget
from wiresum.measure.bench.collectives.kinds import BARRIER, BOTH, ROOT
from wiresum.measure.bench.data import Data, Floats, Wrong

_FEW = 1024
"""Sums of up to so many elements have fields of 32 bits, whatever was asked for."""

Key = tuple[int, int]


class Part(NamedTuple):
    """A part of a result: the sum of all ranks' elements, or those of one rank."""

    key: Key
    result: Floats
    base: int
    """The first of these elements."""
    source: int | None = None
    """Whose they are; None: the sum."""


class Place(NamedTuple):
    """Where an operation is done."""

    data: Data
    rank: int
    world: int
    key: Key
    elements: int
    """Of the largest buffer."""

    @property
    def each(self) -> int:
        """Elements of a rank's part."""
        return self.elements // self.world

    def mine(self, elements: int) -> Floats:
        """New memory with this rank's contribution."""
        made = np.empty(elements, np.float32)
        self.data.contribution(self.key, self.rank, 0, made, True)
        return made

    def parts(self, whole: Floats) -> list[Part]:
        """The parts of what all ranks have given."""
        each = self.each
        return [
            Part(self.key, whole[rank * each : (rank + 1) * each], 0, rank)
            for rank in range(self.world)
        ]


class Operation(ABC):
    """One collective."""

    parts: Sequence[Part] = ()
    """What this rank gets."""

    @abstractmethod
    def run(self) -> None:
        """Do it, and wait for its end."""


class _AllReduce(Operation):
    def __init__(self, at: Place) -> None:
        memory = at.mine(at.elements)
        self._tensor = torch.from_numpy(memory)
        self.parts = [Part(at.key, memory, 0)]

    def run(self) -> None:
        dist.all_reduce(self._tensor)


class _ReduceScatter(Operation):
    def __init__(self, at: Place) -> None:
        result = np.zeros(at.each, np.float32)
        self._given = torch.from_numpy(at.mine(at.elements))
        self._result = torch.from_numpy(result)
        self.parts = [Part(at.key, result, at.rank * at.each)]

    def run(self) -> None:
        self.start().wait()

    def start(self) -> Any:
        """Begin it; what to wait for."""
        return dist.reduce_scatter_tensor(self._result, self._given, async_op=True)


class _AllGather(Operation):
    def __init__(self, at: Place) -> None:
        whole = np.zeros(at.elements, np.float32)
        self._given = torch.from_numpy(at.mine(at.each))
        self._result = torch.from_numpy(whole)
        self.parts = at.parts(whole)

    def run(self) -> None:
        self.start().wait()

    def start(self) -> Any:
        """Begin it; what to wait for."""
        return dist.all_gather_into_tensor(self._result, self._given, async_op=True)


class _Both(Operation):
    def __init__(self, at: Place) -> None:
        number, round_ = at.key[1], at.key[0]
        self._sum = _ReduceScatter(at)
        self._copy = _AllGather(at._replace(key=(round_, number + (1 << 20))))
        self.parts = [*self._sum.parts, *self._copy.parts]

    def run(self) -> None:
        for work in [self._sum.start(), self._copy.start()]:
            work.wait()


class _Broadcast(Operation):
    def __init__(self, at: Place) -> None:
        memory = at.mine(at.elements)
        self._tensor = torch.from_numpy(memory)
        self.parts = [Part(at.key, memory, 0, ROOT)]

    def run(self) -> None:
        dist.broadcast(self._tensor, ROOT)


class _Reduce(Operation):
    def __init__(self, at: Place) -> None:
        memory = at.mine(at.elements)
        self._tensor = torch.from_numpy(memory)
        self.parts = [Part(at.key, memory, 0)] if at.rank == ROOT else []

    def run(self) -> None:
        dist.reduce(self._tensor, ROOT)


class _Gather(Operation):
    def __init__(self, at: Place) -> None:
        self._given = torch.from_numpy(at.mine(at.each))
        self._results: list[torch.Tensor] | None = None
        if at.rank == ROOT:
            whole = np.zeros(at.elements, np.float32)
            self._results = list(torch.from_numpy(whole).tensor_split(at.world))
            self.parts = at.parts(whole)

    def run(self) -> None:
        dist.gather(self._given, self._results, ROOT)


class _Scatter(Operation):
    def __init__(self, at: Place) -> None:
        result = np.zeros(at.each, np.float32)
        self._result = torch.from_numpy(result)
        self._given: list[torch.Tensor] | None = None
        if at.rank == ROOT:
            self._given = list(torch.from_numpy(at.mine(at.elements)).tensor_split(at.world))
        self.parts = [Part(at.key, result, at.rank * at.each, ROOT)]

    def run(self) -> None:
        dist.scatter(self._result, self._given, ROOT)


class _Barrier(Operation):
    def __init__(self, _at: Place) -> None:
        return

    def run(self) -> None:
        dist.barrier()


OPERATIONS: dict[str, type[Any]] = {
    "all_reduce": _AllReduce,
    "reduce_scatter_tensor": _ReduceScatter,
    "all_gather_into_tensor": _AllGather,
    "broadcast": _Broadcast,
    "reduce": _Reduce,
    "gather": _Gather,
    "scatter": _Scatter,
    BARRIER: _Barrier,
    BOTH: _Both,
}
"""By the name of their :class:`~wiresum.measure.bench.collectives.kinds.Kind`."""


class Task:
    """The operations of one sample."""

    def __init__(self, order: dict[str, Any], rank: int, world: int, data: Data) -> None:
        """``order``: its kind, elements, ops and round."""
        self.ops = int(order["ops"])
        self._data, self._world = data, world
        make = OPERATIONS[order["kind"]]
        self._operations: list[Operation] = [
            make(Place(data, rank, world, (order["round"], number), order["elements"]))
            for number in range(self.ops)
        ]

    def run(self, number: int) -> None:
        """Do one of them."""
        self._operations[number].run()

    def _parts(self, first: int | None = None) -> Iterator[Part]:
        for operation in self._operations[:first]:
            yield from operation.parts

    def spoil(self) -> None:
        """Make one element of what this rank got wrong."""
        for part in self._parts():
            part.result[-1] += 1 << 20
            return

    def check(self, field: int | None) -> tuple[int, str]:
        """How many elements are not what they must be; the line about the first."""
        count, line = 0, ""
        for part in self._parts():
            for wrong in self._wrong(part, field):
                count += wrong.elements
                line = line or str(wrong.line)
        return count, line

    def _wrong(self, part: Part, field: int | None) -> Iterator[Wrong]:
        if part.source is not None:
            return self._data.wrong_copies(part.key, part.source, part.result, True, part.base)
        bits = 32 if field is not None and part.result.size <= _FEW else field
        level = budget(self._world, bits) if bits is not None else 0
        return self._data.wrong_sums(
            part.key, self._world, part.result, True, bits, level, part.base
        )

    def digest(self, first: int | None = None) -> str:
        """A hash of all that this rank got, or of what the ``first`` operations gave it."""
        made = hashlib.sha256()
        for part in self._parts(first):
            made.update(part.result.data)
        return made.hexdigest()
