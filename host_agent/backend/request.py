"""A call of a collective, in one form for all collectives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import torch
from torch._C import _distributed_c10d as c10d

from wiresum.host_agent.backend.routing import op_name
from wiresum.host_agent.backend.tensors import plain, size_of

Tensors = list[torch.Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Form:
    """What a method of ``ProcessGroup`` takes before its options."""

    arguments: int
    """How many arguments have tensors: one, or the outputs and the inputs."""
    options: type
    written: int = 0
    """The argument that gets the result."""


FORMS = {
    "allreduce": Form(1, c10d.AllreduceOptions),
    "allreduce_coalesced": Form(1, c10d.AllreduceCoalescedOptions),
    "broadcast": Form(1, c10d.BroadcastOptions),
    "reduce": Form(1, c10d.ReduceOptions),
    "allgather": Form(2, c10d.AllgatherOptions),
    "allgather_coalesced": Form(2, c10d.AllgatherOptions),
    "all_gather_single": Form(2, c10d.AllgatherOptions),
    "all_gather_single_coalesced": Form(2, c10d.AllgatherOptions),
    "reduce_scatter": Form(2, c10d.ReduceScatterOptions),
    "reduce_scatter_single": Form(2, c10d.ReduceScatterOptions),
    "reduce_scatter_single_coalesced": Form(2, c10d.ReduceScatterOptions),
    "gather": Form(2, c10d.GatherOptions),
    "scatter": Form(2, c10d.ScatterOptions),
    "barrier": Form(0, c10d.BarrierOptions),
}
"""The collectives that the switch may carry, by the newest names of their methods."""


_LABELS = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce_coalesced",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather_coalesced",
    "all_gather_single": "all_gather_into_tensor",
    "all_gather_single_coalesced": "all_gather_into_tensor_coalesced",
    "reduce_scatter_single": "reduce_scatter_tensor",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor_coalesced",
    "alltoall": "all_to_all",
    "recv_anysource": "recv",
}


def label_of(method: str) -> str:
    """The users' name of a method of ``ProcessGroup``."""
    return _LABELS.get(method, method)


class _Once(Generic[T]):
    """A property that is computed once; ``functools.cached_property`` takes a lock up to 3.11."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, request: "Request", _owner: type) -> T:
        value = request.__dict__[self._name] = self._compute(request)
        return value


@dataclass(eq=False)
class Request:
    """One call of one of :data:`FORMS` on this rank."""

    method: str
    tensors: tuple[Any, ...]
    """Its arguments with tensors: a tensor, a list, or a list of lists each."""
    options: Any
    rank: int
    size: int

    @_Once
    def op(self) -> str:
        """``SUM``, …; empty for a collective that reduces nothing."""
        return op_name(self.options.reduceOp) if hasattr(self.options, "reduceOp") else ""

    @property
    def factor(self) -> Any:
        """A number or tensor by which PREMUL_SUM multiplies this rank's elements."""
        return self.options.reduceOp.__getstate__()[1]

    @property
    def root(self) -> int:
        """The rank that gives or gets all; -1 where there is none."""
        return int(getattr(self.options, "rootRank", -1))

    @property
    def timeout(self) -> timedelta | None:
        """The caller's limit."""
        return getattr(self.options, "timeout", None)

    @_Once
    def described(self) -> str:
        """The options that must be alike on all ranks."""
        root = f"root {self.root}" if self.root >= 0 else ""
        return ", ".join(filter(None, (self.op, root)))

    @_Once
    def all_tensors(self) -> Tensors:
        """Those of all arguments."""
        return list(_flat(self.tensors))

    @_Once
    def outputs(self) -> Tensors:
        """The tensors that get the result, on some rank at least."""
        return list(_flat(self.tensors[FORMS[self.method].written])) if self.tensors else []

    @_Once
    def inputs(self) -> Tensors:
        """The tensors that give this rank's elements."""
        return list(_flat(self.tensors[-1])) if self.tensors else []

    @_Once
    def bytes(self) -> int:
        """Of the larger of both: for the statistics."""
        return max(map(size_of, self.tensors), default=0)

    @_Once
    def agreed(self) -> tuple[str, int | None]:
        """Dtype and number of elements that must be alike on all ranks: bytes of what is copied."""
        tensors = self.outputs if self.method == "scatter" else self.inputs
        if self.op or not tensors:
            return described(tensors)
        return "bytes", size_of(tensors)

    @property
    def fits(self) -> bool:
        """Whether the tensors fit each other and the group; else gloo raises what is wrong."""
        root = getattr(self.options, "rootRank", 0)
        return 0 <= root < self.size and _FITS[self.method](self)

    def with_tensors(self, tensors: Sequence[Any]) -> "Request":
        """The same with others in their place."""
        same = all(new is old for new, old in zip(tensors, self.tensors, strict=True))
        if same:
            return self
        return Request(self.method, tuple(tensors), self.options, self.rank, self.size)

    def plain(self) -> tuple["Request", list[tuple[torch.Tensor, torch.Tensor]]]:
        """Without negative and conjugate views; and the (plain, original) ones of its outputs."""
        if not any(tensor.is_neg() or tensor.is_conj() for tensor in self.all_tensors):
            return self, []
        made = self.with_tensors([_mapped(plain, each) for each in self.tensors])
        pairs = zip(made.outputs, self.outputs, strict=True)
        return made, [(new, old) for new, old in pairs if new is not old]


def read(method: str, args: Sequence[Any], rank: int, size: int) -> Request | None:
    """The call ``method(*args)``; None if it has another form than lists and options."""
    form = FORMS[method]
    tensors, rest = args[: form.arguments], args[form.arguments :]
    if len(tensors) != form.arguments or len(rest) > 1:
        return None
    options = rest[0] if rest else form.options()
    alike = isinstance(options, (form.options, c10d.AllreduceOptions))
    single = method in ("all_gather_single", "reduce_scatter_single")
    if not alike or any(isinstance(each, torch.Tensor) is not single for each in tensors):
        return None
    if not single:
        tensors = [list(each) for each in tensors]
    return Request(method, tuple(tensors), options, rank, size)


def described(tensors: Sequence[torch.Tensor]) -> tuple[str, int | None]:
    """Dtype and number of elements of all together."""
    if not tensors:
        return "", None
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    return "+".join(dtypes)[:64], sum(tensor.numel() for tensor in tensors)


def _one_tensor(request: Request) -> bool:
    return len(request.outputs) == 1 and not getattr(request.options, "rootTensor", 0)


def _lists_of_all(request: Request) -> bool:
    """(one list of a tensor for each rank, one tensor), in one order or the other."""
    some, others = request.tensors
    lists, singles = (some, others) if request.method != "reduce_scatter" else (others, some)
    return len(lists) == len(singles) == 1 and _alike(lists[0], singles[0], request.size)


def _lists_of_root(request: Request) -> bool:
    """The same, for a list that the root alone has."""
    some, others = request.tensors
    lists, singles = (some, others) if request.method == "gather" else (others, some)
    if len(singles) != 1 or len(lists) != int(request.rank == request.root):
        return False
    return not lists or _alike(lists[0], singles[0], request.size)


def _coalesced_lists(request: Request) -> bool:
    lists, inputs = request.tensors
    return len(lists) == request.size and all(
        len(outputs) == len(inputs)
        and all(_same(out, given) for out, given in zip(outputs, inputs, strict=True))
        for outputs in lists
    )


def _whole_and_part(request: Request) -> bool:
    """Tensors, and others of an n-th of their elements."""
    outputs, inputs = request.outputs, request.inputs
    parts, wholes = (inputs, outputs) if "gather" in request.method else (outputs, inputs)
    return len(parts) == len(wholes) > 0 and all(
        whole.dtype == part.dtype and whole.numel() == request.size * part.numel()
        for whole, part in zip(wholes, parts, strict=True)
    )


def _alike(tensors: Tensors, one: torch.Tensor, count: int) -> bool:
    return len(tensors) == count and all(_same(each, one) for each in tensors)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape


_FITS: dict[str, Callable[[Request], bool]] = {
    "allreduce": _one_tensor,
    "allreduce_coalesced": lambda _request: True,
    "broadcast": _one_tensor,
    "reduce": _one_tensor,
    "allgather": _lists_of_all,
    "allgather_coalesced": _coalesced_lists,
    "all_gather_single": _whole_and_part,
    "all_gather_single_coalesced": _whole_and_part,
    "reduce_scatter": _lists_of_all,
    "reduce_scatter_single": _whole_and_part,
    "reduce_scatter_single_coalesced": _whole_and_part,
    "gather": _lists_of_root,
    "scatter": _lists_of_root,
    "barrier": lambda _request: True,
}


def _flat(given: Any) -> Sequence[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        return [given]
    return [tensor for each in given for tensor in _flat(each)]


def _mapped(function: Callable[[torch.Tensor], torch.Tensor], given: Any) -> Any:
    if isinstance(given, torch.Tensor):
        return function(given)
    return [_mapped(function, each) for each in given]
