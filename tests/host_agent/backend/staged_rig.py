"""Ranks that are threads, and have a simulated device each."""

from typing import Any

import torch
from carried_rig import Threads

from support.simulated_device import SimulatedDevice, SimulatedDevices


class Staged(Threads):
    """Like :class:`Threads`; all tensors count as the device's."""

    def __init__(self, size: int, field: int = 32) -> None:
        super().__init__(size, field)
        self.devices = [SimulatedDevice(seed) for seed in range(size)]
        for group, agent, device in zip(self.groups, self.agents, self.devices, strict=True):
            group.router.devices = SimulatedDevices(device)
            agent.describe = lambda: {"switch": "fake", "field": field}  # type: ignore[method-assign]

    def check(self) -> None:
        """See :meth:`SimulatedDevice.check`."""
        for device in self.devices:
            device.check()

    def close(self) -> None:
        for device in self.devices:
            device.close()
        super().close()


def options(kind: Any, op: Any = None, root: int | None = None) -> Any:
    made = kind()
    if op is not None:
        made.reduceOp = op if hasattr(op, "op") else torch._C._distributed_c10d.ReduceOp(op)
    if root is not None:
        made.rootRank = root
    return made


def numbers(count: int, seed: int) -> torch.Tensor:
    """Of many magnitudes, and a run of zeros."""
    made = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=made)
    values[count // 3 : count // 2] = 0
    return values * torch.logspace(-20, 3, count)
