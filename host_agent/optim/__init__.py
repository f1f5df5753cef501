"""Optimizers that synchronize the ranks every H steps instead of at every step."""

from wiresum.host_agent.optim.diloco import DiLoCo
from wiresum.host_agent.optim.local_sgd import LocalSGD
from wiresum.host_agent.optim.periodic import Drift

__all__ = ["DiLoCo", "Drift", "LocalSGD"]
