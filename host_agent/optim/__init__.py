"""Optimizers that synchronize the ranks every H steps, or apply sums that are some steps old."""

from wiresum.host_agent.optim.delayed import DelayedGradients
from wiresum.host_agent.optim.diloco import DiLoCo
from wiresum.host_agent.optim.local_sgd import LocalSGD
from wiresum.host_agent.optim.periodic import Drift, Pace
from wiresum.host_agent.optim.presets import narrow_diloco, sparse_loco

__all__ = [
    "DelayedGradients",
    "DiLoCo",
    "Drift",
    "LocalSGD",
    "Pace",
    "narrow_diloco",
    "sparse_loco",
]
