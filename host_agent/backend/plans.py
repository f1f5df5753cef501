"""Which pieces make a collective, and where they lie in this rank's memory.

Every collective is a sum: one rank's bytes and zeros of the others are a *copy*. A rank that keeps
a part of its own (of an all-gather, of a scatter) copies that to its place before the others come.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from wiresum.host_agent.agent.face import ALL, ALL_BUT, BYTES, ONLY, Call
from wiresum.host_agent.backend.request import Request, Tensors
from wiresum.host_agent.backend.routing import PREMUL_SUM, engine_dtype
from wiresum.host_agent.backend.tensors import Copies, copy_back
from wiresum.host_agent.backend.words import from_words, needs_words, to_words


@dataclass(slots=True)
class Piece:
    """A piece of a collective on this rank: see ``agent.face.Call``."""

    memory: torch.Tensor | None
    """Contiguous, for as long as the piece is under way; None on a rank without a part in it."""
    count: int
    dtype: str
    average: bool
    source: int
    readers: int
    reader: int
    reads: bool
    """Whether this rank gets the result."""

    def call(self, ticket: int, data: int | None = None) -> Call:
        """For the engine. ``data``: the address if it is that of other memory."""
        if data is None:
            data = 0 if self.memory is None else self.memory.data_ptr()
        return Call(
            *(data, self.count, self.dtype, self.average, ticket),
            *(self.source, self.readers, self.reader),
        )


class Plan:
    """The pieces of one collective, and what to copy when they have ended."""

    def __init__(self, request: Request) -> None:
        self.pieces: list[Piece] = []
        self.copies: Copies = []
        self._rank, self._size = request.rank, request.size
        self._request = request
        self._written: set[int] = set()

    def copy(
        self, source: int, readers: int, reader: int, size: int,
        gives: torch.Tensor | None, gets: torch.Tensor | None,
    ) -> None:  # fmt: skip
        """Copy ``size`` bytes of ``source``.

        It ``gives`` them; each reader ``gets`` them. What else this rank knows is not looked at.
        """
        if self._size == 1:
            return
        named = self._rank == reader
        reads = named if readers == ONLY else not named
        memory = None
        if self._rank == source:
            assert gives is not None
            memory = _contiguous(gives)
        elif reads:
            assert gets is not None
            memory = self._landing(gets)
        self.pieces.append(Piece(memory, size, BYTES, False, source, readers, reader, reads))

    def sum(
        self, values: torch.Tensor, gets: torch.Tensor | None, readers: int = ALL, reader: int = -1
    ) -> None:
        """Sum up ``values``; a reader ``gets`` the result. Others than readers keep ``values``."""
        op, factor = self._request.op, None
        reads = readers == ALL or self._rank == reader
        if op == PREMUL_SUM:
            op, factor = "SUM", self._request.factor
        if needs_words(values.dtype, op):
            memory = to_words(values, op)
            if reads:
                assert gets is not None
                self.copies.append((partial(from_words, memory, op, values.dtype), gets))
        else:
            memory = values.detach()
            if factor is not None:
                memory = memory * factor
            if reads:
                assert gets is not None
                memory = self._summed(memory, gets)
            memory = memory.contiguous()
        dtype = engine_dtype(memory, op)
        average = op == "AVG"
        piece = Piece(memory, memory.numel(), dtype, average, -1, readers, reader, reads)
        self.pieces.append(piece)

    def _summed(self, values: torch.Tensor, gets: torch.Tensor) -> torch.Tensor:
        """Memory with ``values`` that the sum may be written over."""
        in_place = values.is_contiguous() and values.data_ptr() == gets.data_ptr()
        free = in_place or not any(_overlap(gets, each) for each in self._request.inputs)
        target = self._landing(gets) if free else self._beside(gets)
        if not (in_place and target.data_ptr() == values.data_ptr()):
            copy_back([(values.reshape(target.shape), target)])
        return target

    def _landing(self, tensor: torch.Tensor) -> torch.Tensor:
        """Contiguous memory whose bytes will be those of ``tensor``: its own where it can be."""
        tensor = tensor.detach()
        address = tensor.data_ptr()
        if tensor.is_contiguous() and (address not in self._written or not tensor.numel()):
            self._written.add(address)
            return tensor
        return self._beside(tensor)  # also for the same tensor twice: the last result stays

    def _beside(self, tensor: torch.Tensor) -> torch.Tensor:
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
        self.copies.append((made, tensor))
        return made


def plan(request: Request) -> Plan:
    """The plan of a call that ``routing.why_not`` has nothing against."""
    made = Plan(request)
    _PLANS[request.method](made, request)
    return made


def _all_reduce(made: Plan, request: Request) -> None:
    for tensor in request.outputs:
        made.sum(tensor, tensor)


def _broadcast(made: Plan, request: Request) -> None:
    (tensor,) = request.outputs
    made.copy(request.root, ALL_BUT, request.root, tensor.nbytes, tensor, tensor)


def _reduce(made: Plan, request: Request) -> None:
    (tensor,) = request.outputs
    made.sum(tensor, tensor, ONLY, request.root)


def _all_gather_one(made: Plan, outputs: Tensors, given: torch.Tensor, mine: int) -> None:
    copy_back([(given, outputs[mine])])
    others = [each for rank, each in enumerate(outputs) if rank != mine]
    if any(_overlap(given, each) for each in others):
        given = given.clone()
    for rank, output in enumerate(outputs):
        made.copy(rank, ALL_BUT, rank, given.nbytes, given, output)


def _all_gather(made: Plan, request: Request) -> None:
    (outputs,), (given,) = request.tensors
    _all_gather_one(made, outputs, given, request.rank)


def _all_gather_coalesced(made: Plan, request: Request) -> None:
    lists, inputs = request.tensors  # a list of outputs for each rank
    for number, given in enumerate(inputs):
        _all_gather_one(made, [outputs[number] for outputs in lists], given, request.rank)


def _all_gather_single(made: Plan, request: Request) -> None:
    for output, given in zip(request.outputs, request.inputs, strict=True):
        parts = _parts(made, output, request.size)
        _all_gather_one(made, parts, given.reshape(-1), request.rank)


def _reduce_scatter(made: Plan, request: Request) -> None:
    (output,), (inputs,) = request.tensors
    for rank, values in enumerate(inputs):
        made.sum(values, output if rank == request.rank else None, ONLY, rank)


def _reduce_scatter_single(made: Plan, request: Request) -> None:
    for output, given in zip(request.outputs, request.inputs, strict=True):
        flat = given.reshape(-1)
        for rank, values in enumerate(flat.tensor_split(request.size)):
            made.sum(values, output if rank == request.rank else None, ONLY, rank)


def _gather(made: Plan, request: Request) -> None:
    (given,) = request.inputs
    outputs = request.outputs
    if request.rank == request.root:
        copy_back([(given, outputs[request.root])])
    for rank in range(request.size):
        if rank != request.root:
            gets = outputs[rank] if request.rank == request.root else None
            made.copy(rank, ONLY, request.root, given.nbytes, given, gets)


def _scatter(made: Plan, request: Request) -> None:
    (output,) = request.outputs
    inputs = request.inputs
    if request.rank == request.root:
        if any(_overlap(output, each) for each in inputs):
            inputs = [each.clone() for each in inputs]
        copy_back([(inputs[request.root], output)])
    for rank in range(request.size):
        if rank != request.root:
            gives = inputs[rank] if request.rank == request.root else None
            made.copy(request.root, ONLY, rank, output.nbytes, gives, output)


def _barrier(made: Plan, _request: Request) -> None:
    # A maximum takes one message each way; a sum has exponents before.
    word = torch.zeros(1, dtype=torch.int32, device="cpu")
    made.pieces.append(Piece(word, 1, "max_uint32", False, -1, ALL, -1, True))


_PLANS: dict[str, Callable[[Plan, Request], None]] = {
    "allreduce": _all_reduce,
    "allreduce_coalesced": _all_reduce,
    "broadcast": _broadcast,
    "reduce": _reduce,
    "allgather": _all_gather,
    "allgather_coalesced": _all_gather_coalesced,
    "all_gather_single": _all_gather_single,
    "all_gather_single_coalesced": _all_gather_single,
    "reduce_scatter": _reduce_scatter,
    "reduce_scatter_single": _reduce_scatter_single,
    "reduce_scatter_single_coalesced": _reduce_scatter_single,
    "gather": _gather,
    "scatter": _scatter,
    "barrier": _barrier,
}


def _parts(made: Plan, whole: torch.Tensor, count: int) -> Tensors:
    """Equal parts of a tensor's memory, or of memory beside it that is copied there in the end."""
    flat = (whole.detach() if whole.is_contiguous() else made._beside(whole)).view(-1)
    return list(flat.tensor_split(count))


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous()


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the memory of two tensors may overlap."""
    if not one.numel() or not other.numel():
        return False
    first, second = _span(one), _span(other)
    return first[0] < second[1] and second[0] < first[1]


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    reach = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    first = tensor.data_ptr()
    return first, first + (reach + 1) * tensor.element_size()
