"""What local SGD and DiLoCo share: counting the steps of an optimizer, and when to synchronize."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent import lines
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.optim import average


@dataclass(frozen=True)
class Drift:
    """Adapts H, the steps between synchronizations, to how far the ranks drift apart.

    The drift is the distance of a rank's parameters from their mean, as a share of the mean's norm
    (root mean square over the ranks). Above ``target`` H is halved, below half of it H is doubled,
    between ``least`` and ``most`` steps. All ranks compute it from the same sums.
    """

    target: float
    first: int = 8
    least: int = 1
    most: int = 256

    def next(self, interval: int, drift: float) -> int:
        """H after a synchronization that has found this drift; a NaN counts as too far."""
        if not drift <= self.target:
            return max(self.least, interval // 2)
        return min(self.most, interval * 2) if drift < self.target / 2 else interval


class Periodic:
    """Calls :meth:`_due` after each step of an optimizer; a context manager.

    ``model`` is not wrapped in DDP, which would synchronize at every step. On the first entry all
    ranks take the parameters and buffers of the group's first rank. Every rank must do the same
    number of steps: a rank with fewer keeps the others waiting, until the limit of the collective
    that they wait in. A GradScaler that leaves out a step must be told to :meth:`skipped`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        sync_every: int | Drift,
        group: dist.ProcessGroup | None,
    ) -> None:
        if isinstance(model, DistributedDataParallel):
            raise SynchronizationError(lines.WRAPPED_MODEL.of())
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        if not self._parameters:
            raise SynchronizationError(lines.NOTHING_TO_SYNCHRONIZE.of())
        if any(isinstance(each, torch.distributed.tensor.DTensor) for each in self._parameters):
            raise SynchronizationError(lines.SHARDED_MODEL.of())
        check_covers("the optimizer", optimizer, self._parameters)
        first = sync_every.first if isinstance(sync_every, Drift) else sync_every
        if isinstance(first, bool) or not isinstance(first, int) or first < 1:
            raise SynchronizationError(lines.NO_INTERVAL.of(given=first))
        if isinstance(sync_every, Drift) and not (
            sync_every.target > 0 and 1 <= sync_every.least <= first <= sync_every.most
        ):
            raise SynchronizationError(lines.NO_DRIFT.of(given=sync_every))
        self._model = model
        self._optimizer = optimizer
        self._drift = sync_every if isinstance(sync_every, Drift) else None
        self._group = group
        self._handle: Any = None
        self.sync_every: int = first
        """H at present."""
        self.local_step = 0
        """Steps so far, those before a restored checkpoint among them."""
        self._since = 0
        self._anchors: list[torch.Tensor] = []  # what all ranks had after the last time

    def __enter__(self) -> Self:
        if self._handle is not None:
            raise SynchronizationError(lines.ENTERED_TWICE.of(name=type(self).__name__))
        self._begin()
        self._handle = self._optimizer.register_step_post_hook(self._after_step)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self._handle = None

    def _begin(self) -> None:
        """Make all ranks alike, unless they have been, or a checkpoint says what was alike."""
        if not self._anchors:
            average.copy_from_first([*self._parameters, *self._model.buffers()], self._group)
            self._anchors = [each.detach().clone() for each in self._parameters]

    def skipped(self) -> None:
        """Count a step that this rank's optimizer has left out, as after an overflow under AMP."""
        self._count()

    def _after_step(self, *_: object) -> None:
        self._count()

    def _count(self) -> None:
        self.local_step += 1
        self._since += 1
        self._due()

    def _due(self) -> None:
        """A step is done."""
        raise NotImplementedError

    def _adapt(self, mine: Sequence[torch.Tensor], mean: Sequence[torch.Tensor], of: float) -> None:
        """Choose the next H. ``of``: the squared norm that the drift is a share of."""
        if self._drift is None:
            return
        apart = torch.stack(
            [(a - b).float().square().sum() for a, b in zip(mine, mean, strict=True)]
        )
        (agreed,) = average.start([apart.sum().reshape(1)], self._group).wait()
        share = (float(agreed) / of) ** 0.5 if of > 0 else float("nan")
        self.sync_every = self._drift.next(self.sync_every, share)

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, beside the model's and the optimizer's own state.

        Holds tensors, numbers, lists and dicts alone (``weights_only`` loads it). Each rank saves
        its own, like the model and the optimizer, which differ between ranks as well.
        """
        return {
            "local_step": self.local_step, "since": self._since, "sync_every": self.sync_every,
            "anchors": [each.clone() for each in self._anchors],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; before the first entry.

        Raises :class:`SynchronizationError` if it is none, or of another model.
        """
        try:
            counts = [int(state[name]) for name in ("local_step", "since", "sync_every")]
            anchors = [each.detach() for each in state["anchors"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise SynchronizationError(lines.NOT_A_STATE.of(name=type(self).__name__)) from None
        if anchors and shapes(anchors) != shapes(self._parameters):
            raise SynchronizationError(lines.NOT_A_STATE.of(name=type(self).__name__))
        self.local_step, self._since, self.sync_every = counts
        # There are none in a state from before the first entry.
        self._anchors = copies(anchors, self._parameters[: len(anchors)])


def check_covers(
    what: str, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor]
) -> None:
    """Raise :class:`SynchronizationError` if the optimizer lacks one of the parameters."""
    has = {id(each) for group in optimizer.param_groups for each in group["params"]}
    missing = sum(id(each) not in has for each in parameters)
    if missing:
        raise SynchronizationError(lines.OTHER_PARAMETERS.of(what=what, count=missing))


def squared_norm(tensors: Iterable[torch.Tensor]) -> float:
    """Of all elements together, in float32 sums of each tensor."""
    return sum(float(each.detach().float().square().sum()) for each in tensors)


def copies(tensors: Iterable[torch.Tensor], like: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Each on the device of its counterpart: a checkpoint may come from another one."""
    return [a.detach().to(b.device, copy=True) for a, b in zip(tensors, like, strict=True)]


def shapes(tensors: Iterable[torch.Tensor]) -> list[torch.Size]:
    """The shape of each."""
    return [each.shape for each in tensors]
