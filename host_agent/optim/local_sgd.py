"""Local SGD: ranks train by themselves; every H steps all take the mean of their parameters."""

import torch
import torch.distributed as dist

from wiresum.host_agent.optim import average
from wiresum.host_agent.optim.parameters import squared_norm
from wiresum.host_agent.optim.periodic import Drift, Pace, Periodic, Weight


class LocalSGD(Periodic):
    """Averages the parameters over the ranks after every ``sync_every`` steps of ``optimizer``.

    For ``warmup_steps`` it does so after every step (post-local SGD, Lin et al. 2020; local SGD:
    Stich 2019). The optimizer's own state (momentum) stays each rank's own. What is summed are the
    changes since the last time, which narrow fields carry better than the parameters themselves.
    ``pace``: each rank does as many steps as it can in the time of a round. ``weight``: of this
    rank's data, ``release_slots``: between synchronizations; see :class:`Periodic`.

    ::

        with LocalSGD(model, optimizer, sync_every=8) as local:
            for batch in batches:
                loss(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
        local.sync()  # before an evaluation or a checkpoint
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        sync_every: int | Drift,
        *,
        warmup_steps: int = 0,
        pace: Pace | None = None,
        weight: Weight = None,
        release_slots: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Raises :class:`SynchronizationError` for what cannot be synchronized like this."""
        super().__init__(model, optimizer, sync_every, group, pace, weight, release_slots)
        self._warmup_steps = warmup_steps

    def _alike(self) -> dict[str, float]:
        return super()._alike() | {"warmup_steps": self._warmup_steps}

    def sync(self) -> None:
        """Take the mean of all ranks' parameters now; all ranks call it."""
        self._begin()
        changes = [a - b.detach() for a, b in zip(self._anchors, self._parameters, strict=True)]
        factor = self._agree()
        weighted = changes if factor == 1.0 else [each * factor for each in changes]
        means = average.start(weighted, self._group).wait()
        if self._adapts and self.local_step >= self._warmup_steps:
            self._adapt(changes, means, squared_norm(self._anchors))
        with torch.no_grad():
            for anchor, parameter, mean in zip(self._anchors, self._parameters, means, strict=True):
                anchor.sub_(mean)
                parameter.copy_(anchor)
        self._begin_round()

    def _due(self) -> None:
        if self.local_step <= self._warmup_steps or self._since >= self.own_steps:
            self.sync()
