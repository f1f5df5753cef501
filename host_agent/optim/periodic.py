"""What local SGD and DiLoCo share: counting the steps of an optimizer, and when to synchronize."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wiresum.host_agent import lines
from wiresum.host_agent.agent.tuning import ballot
from wiresum.host_agent.errors import SynchronizationError
from wiresum.host_agent.optim import average
from wiresum.host_agent.optim.parameters import check_covers, copies, shapes, trained
from wiresum.host_agent.optim.quiet import Quiet
from wiresum.host_agent.optim.tuned import TunedInterval, wish_of_run


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


@dataclass(frozen=True)
class Pace:
    """Lets each rank do as many steps in a round as it can, so that nobody waits for the slowest.

    At each synchronization all ranks tell how long their steps have taken; the steps of the next
    round are in proportion to their speeds, and H is their mean: all ranks together do as many as
    without it, in the shortest time. ``least`` and ``most`` are bounds for each rank's. ``clock``
    gives seconds.
    """

    least: int = 1
    most: int = 1024
    clock: Callable[[], float] = time.monotonic

    def steps(self, interval: int, seconds: Sequence[float]) -> list[int]:
        """The next steps of each rank. ``seconds``: of one step of each rank, measured.

        Where one of them is no time, all ranks do ``interval`` steps.
        """
        if not all(math.isfinite(each) and each > 0 for each in seconds):
            return [interval] * len(seconds)
        round_s = interval * len(seconds) / sum(1 / each for each in seconds)
        if not 0 < round_s < math.inf:
            return [interval] * len(seconds)
        return [
            max(self.least, min(self.most, math.floor(min(round_s / each, self.most) + 0.5)))
            for each in seconds
        ]


Weight = float | Literal["steps"] | None


def shares(weights: Sequence[float], steps: Sequence[float]) -> list[float]:
    """By which factor each rank's change goes into the mean over the ranks.

    ``weights``: of the ranks' data; 0 everywhere: as many as ``steps``, the steps that they have
    done (FedAvg, McMahan et al. 2017). Else each rank counts by its data alone, however fast it is:
    its change is divided by its steps, and the mean multiplied by the weighted mean of the steps
    (FedNova, Wang et al. 2020). The factors of ranks with as many steps and data are 1.
    """
    ranks = len(steps)
    if not any(weights):
        total = sum(steps)
        return [ranks * each / total if total else 1.0 for each in steps]
    total = sum(weights)
    effective = sum(w * s for w, s in zip(weights, steps, strict=True))  # times the total
    return [
        w * effective * ranks / (total * total * s) if s else 0.0
        for w, s in zip(weights, steps, strict=True)
    ]


class Periodic:
    """Calls :meth:`_due` after each step of an optimizer; a context manager.

    ``model`` is not wrapped in DDP, which would synchronize at every step. On the first entry all
    ranks take the parameters and buffers of the group's first rank. Every rank must do the same
    number of steps, or of :attr:`rounds` with a :class:`Pace`: a rank with fewer keeps the others
    waiting, until the limit of the collective that they wait in. A GradScaler that leaves out a
    step must be told to :meth:`skipped`.

    ``release_slots``: between synchronizations other jobs may have the slots of the group's job on
    the switch, where that is long enough. See :class:`~wiresum.host_agent.optim.quiet.Quiet`.

    ``weight``: how much a rank's change counts, in proportion to the other ranks': a number, as
    the samples of its data, or ``"steps"``, as the steps that it has done. See :func:`shares`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        sync_every: int | Drift,
        group: dist.ProcessGroup | None,
        pace: Pace | None = None,
        weight: Weight = None,
        release_slots: bool = False,
        least: int | None = 1,
    ) -> None:
        """``least``: the least H to which a run that is tuned may go; None: H is not tuned."""
        if isinstance(model, DistributedDataParallel):
            raise SynchronizationError(lines.WRAPPED_MODEL.of())
        self._parameters = trained(model)
        check_covers("the optimizer", optimizer, self._parameters)
        first = sync_every.first if isinstance(sync_every, Drift) else sync_every
        if isinstance(first, bool) or not isinstance(first, int) or first < 1:
            raise SynchronizationError(lines.NO_INTERVAL.of(given=first))
        if isinstance(sync_every, Drift) and not (
            sync_every.target > 0 and 1 <= sync_every.least <= first <= sync_every.most
        ):
            raise SynchronizationError(lines.NO_DRIFT.of(given=sync_every))
        if pace is not None and not 1 <= pace.least <= first <= pace.most:
            raise SynchronizationError(lines.NO_PACE.of(given=pace))
        if not (weight is None or weight == "steps" or _is_weight(weight)):
            raise SynchronizationError(lines.NO_WEIGHT.of(given=weight))
        self._model = model
        self._optimizer = optimizer
        self._drift = sync_every if isinstance(sync_every, Drift) else None
        self._group = group
        self._handle: Any = None
        self._tuned: TunedInterval | None = None
        wish = None if least is None else wish_of_run()
        largest = (
            None
            if wish is None
            else wish.largest_h(sync_every.most if isinstance(sync_every, Drift) else first)
        )
        if wish is not None and least is not None and largest is not None:
            limit = self._drift.target if self._drift else None
            if pace is not None:
                least, largest = max(least, pace.least), min(largest, pace.most)
            first = max(least, 1)
            self._tuned = TunedInterval(wish, first, largest, drift=limit, least=first)
        self._pace = pace
        self._weight = weight
        self.sync_every: int = first
        """H at present: of all ranks, with a pace the mean of the ranks'."""
        self.own_steps: int = first
        """The steps of this rank in the present round: H, unless there is a pace."""
        self.rounds = 0
        """Synchronizations so far, those before a restored checkpoint among them."""
        self.local_step = 0
        """Steps so far, those before a restored checkpoint among them."""
        self._quiet = Quiet(group) if release_slots else None
        self._since = 0
        self._anchors: list[torch.Tensor] = []  # what all ranks had after the last time
        self._resumed = 0.0  # when this rank began to compute, by the pace's clock
        self._timed: tuple[int, float] = (0, 0.0)  # steps of this round, and their seconds
        self._seconds: list[float] = []  # of a step of each rank in the last round

    def __enter__(self) -> Self:
        if self._handle is not None:
            raise SynchronizationError(lines.ENTERED_TWICE.of(name=type(self).__name__))
        device = self._parameters[0].device
        who = type(self).__name__
        average.check_alike(who, self._alike(), device, self._group)
        if self._tuned is not None:
            average.check_alike(who, self._tuned.limits, device, self._group)
        self._begin()
        tuning = ballot.current()
        if tuning is not None:
            tuning.has_local_steps = True
        if self._pace is not None:
            self._resumed = self._pace.clock()
        self._handle = self._optimizer.register_step_post_hook(self._after_step)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self._handle = None
        if self._quiet is not None:
            self._quiet.ends()

    def _alike(self) -> dict[str, float]:
        """Numbers that must be the same on all ranks, by what they are."""
        drift = self._drift
        return {
            "sync_every": self.sync_every,
            "the number of rounds so far": self.rounds,
            "the number of steps so far": 0 if self._pace else self.local_step,
            "whether the ranks have begun (0: no, 1: yes)": bool(self._anchors),
            "the kind of weight (0: none, 1: steps, 2: a number)": _kind_of(self._weight),
            "whether there is a Pace (0: no, 1: yes)": self._pace is not None,
            "the target of a Drift (0: there is none)": drift.target if drift else 0,
            "the least of a Drift": drift.least if drift else 0,
            "the most of a Drift": drift.most if drift else 0,
            "whether H is chosen (0: no, 1: yes)": self._tuned is not None,
        }

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
        if self._quiet is not None:
            self._quiet.step(self.own_steps - self._since)
        if self._pace is None:
            self._due()
            return
        steps, seconds = self._timed
        self._timed = steps + 1, seconds + self._pace.clock() - self._resumed
        self._due()
        self._resumed = self._pace.clock()  # what synchronizing takes says nothing of the rank

    def _due(self) -> None:
        """A step is done."""
        raise NotImplementedError

    def _agree(self) -> float:
        """By which factor this rank's change goes into the mean; all ranks call it together."""
        if self._pace is None and self._weight is None:
            return 1.0
        steps, seconds = self._timed
        weight = 1.0
        if self._weight is not None:
            weight = 0.0 if self._weight == "steps" else float(self._weight)
        own = (weight, float(self._since), seconds / steps if steps else 0.0)
        weights, done, self._seconds = average.gathered(
            own, self._parameters[0].device, self._group
        )
        return shares(weights, done)[dist.get_rank(self._group)]

    def _begin_round(self) -> None:
        """A round is over: choose this rank's steps in the next one."""
        self._since = 0
        self._timed = 0, 0.0
        self.rounds += 1
        self.own_steps = self.sync_every
        if self._pace is not None:
            steps = self._pace.steps(self.sync_every, self._seconds)
            self.own_steps = steps[dist.get_rank(self._group)]
        if self._quiet is not None:
            self._quiet.begins()

    def _adapt(self, mine: Sequence[torch.Tensor], mean: Sequence[torch.Tensor], of: float) -> None:
        """Choose the next H. ``of``: the squared norm that the drift is a share of."""
        if not self._adapts:
            return
        apart = torch.stack(
            [(a - b).float().square().sum() for a, b in zip(mine, mean, strict=True)]
        ).sum()
        # Also the norm, which all have: hosts with other numbers of threads round it otherwise.
        both = torch.stack([apart, apart.new_tensor(of)])
        (agreed,) = average.start([both], self._group).wait()
        drift, norm = agreed.tolist()
        share = (drift / norm) ** 0.5 if norm > 0 else float("nan")
        if self._tuned is not None:
            self.sync_every = self._tuned.next(
                self.local_step, self.sync_every, share, mine[0].device, self._group
            )
        elif self._drift is not None:
            self.sync_every = self._drift.next(self.sync_every, share)

    @property
    def _adapts(self) -> bool:
        """Whether H may change."""
        return self._drift is not None or self._tuned is not None

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, beside the model's and the optimizer's own state.

        Holds tensors, numbers, lists and dicts alone (``weights_only`` loads it). Each rank saves
        its own, like the model and the optimizer, which differ between ranks as well.
        """
        return {
            "local_step": self.local_step, "since": self._since, "sync_every": self.sync_every,
            "own_steps": self.own_steps, "rounds": self.rounds,
            "anchors": [each.clone() for each in self._anchors],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; before the first entry.

        Raises :class:`SynchronizationError` if it is none, or of another model.
        """
        try:
            counts = [int(state[name]) for name in _COUNTS]
            anchors = [each.detach() for each in state["anchors"]]
            if min(counts) < 0 or 0 in counts[2:4]:
                raise ValueError("no number of steps")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise SynchronizationError(lines.NOT_A_STATE.of(name=type(self).__name__)) from None
        if anchors and shapes(anchors) != shapes(self._parameters):
            raise SynchronizationError(lines.NOT_A_STATE.of(name=type(self).__name__))
        self.local_step, self._since, self.sync_every, self.own_steps, self.rounds = counts
        # There are none in a state from before the first entry.
        self._anchors = copies(anchors, self._parameters[: len(anchors)])


_COUNTS = ("local_step", "since", "sync_every", "own_steps", "rounds")


def _kind_of(weight: Weight) -> int:
    return 0 if weight is None else 1 if weight == "steps" else 2


def _is_weight(weight: object) -> bool:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return False
    return math.isfinite(weight) and weight > 0
