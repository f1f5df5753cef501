"""H that is chosen while the ranks train: measures, and lets all ranks agree at a synchronization.

The choice is :class:`~wiresum.host_agent.agent.tuning.interval.IntervalPolicy`'s.
"""

import logging
import math
import os
import threading
import time
import weakref
from statistics import fmean, stdev

import torch
import torch.distributed as dist

from wiresum.host_agent import reported
from wiresum.host_agent.agent.counters import COUNTERS
from wiresum.host_agent.agent.tuning import ballot
from wiresum.host_agent.agent.tuning.ballot import IntervalChoice
from wiresum.host_agent.agent.tuning.interval import Figures, IntervalPolicy
from wiresum.host_agent.agent.tuning.wish import Wish, parse
from wiresum.host_agent.environment import TUNE
from wiresum.host_agent.optim import average

log = logging.getLogger("wiresum")

LEAST_ROUNDS = 2
"""Of a window: one round says little about the drift."""

_listening = threading.Event()
_live: "weakref.WeakSet[TunedInterval]" = weakref.WeakSet()


def wish_of_run() -> Wish | None:
    """What this run is asked for; None if it is not tuned. Raises ``AgentError``."""
    text = os.environ.get(TUNE, "")
    return parse(text) if text else None


class TunedInterval:
    """H of one :class:`~wiresum.host_agent.optim.periodic.Periodic`."""

    def __init__(
        self, wish: Wish, h: int, most: int, *, drift: float | None = None, least: int = 1
    ) -> None:
        """From ``h`` on; ``drift``: the script's own limit, if it has one."""
        limit = wish.drift if drift is None else drift
        self.policy = IntervalPolicy(h, max(most, least), least, limit, wish.within)
        self._steps = wish.steps
        self._since = self._rounds = 0
        self._drift = 0.0
        self._losses: list[float] = []
        self._began: tuple[float, float, int] | None = None  # time, exposed, choices of the field
        if not _listening.is_set():
            _listening.set()
            reported.listen(_heard)
        _live.add(self)

    @property
    def limits(self) -> dict[str, float]:
        """What must be the same on all ranks, by its name."""
        policy = self.policy
        return {
            "the largest H": policy.most,
            "steps of --tune": self._steps,
            "within of --tune": policy.within,
            "the largest drift": policy.drift,
        }

    def next(
        self, step: int, h: int, drift: float, device: torch.device,
        group: dist.ProcessGroup | None,
    ) -> int:  # fmt: skip
        """H after a round of ``h`` steps that has ended with ``step``; all ranks call it together.

        ``drift`` is the same on all of them.
        """
        self.policy.h = h
        now = time.monotonic(), COUNTERS.exposed_s, _choices()
        if self._began is None:  # the first round has what comes before it in it
            self._began = now
            return h
        self._since += h
        self._rounds += 1
        self._drift = drift if math.isnan(drift) else max(self._drift, drift)
        if self._since < self._steps or self._rounds < LEAST_ROUNDS:
            return h
        took_s, exposed_s = now[0] - self._began[0], now[1] - self._began[1]
        losses = self._losses
        own = Figures(
            min(1.0, exposed_s / took_s) if took_s > 0 else 0.0,
            float(now[2] == self._began[2]),
            float(len(losses)),
            fmean(losses) if losses else 0.0,
            stdev(losses) / math.sqrt(len(losses)) if _has_doubt(losses) else 0.0,
        )
        ranks = [Figures(*each) for each in zip(*average.gathered(own, device, group), strict=True)]
        why = self.policy.window(ranks, self._drift)
        if why is not None:
            choice = IntervalChoice(step + 1, self.policy.h, why.words)
            if dist.get_rank(group) == 0:
                log.warning(
                    "wiresum: H is %d, %d before, from step %d on: %s (rank 0: %.0f %% of the time "
                    "exposed, drift %.2g %%%s)",
                    *(choice.h, h, choice.step, choice.reason),
                    *(100 * own.exposed_share, 100 * self._drift),
                    f", loss {own.loss:.4g}" if own.reported else "",
                )
            tuning = ballot.current()
            if tuning is not None:
                tuning.interval(choice)
        self._since = self._rounds = 0
        self._drift = 0.0
        losses.clear()
        self._began = now
        return self.policy.h

    def heard(self, loss: float) -> None:
        """The script reports a loss."""
        self._losses.append(loss)


def _heard(loss: float) -> None:
    for each in list(_live):
        each.heard(loss)


def _has_doubt(losses: list[float]) -> bool:
    return len(losses) > 1 and all(map(math.isfinite, losses))


def _choices() -> int:
    """How often the field has been chosen."""
    tuning = ballot.current()
    return 0 if tuning is None else len(tuning.choices)
