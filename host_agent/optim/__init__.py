"""Optimizers that synchronize the ranks every H steps instead of at every step."""

from wiresum.host_agent.optim.diloco import DiLoCo
from wiresum.host_agent.optim.local_sgd import LocalSGD
from wiresum.host_agent.optim.periodic import Drift
from wiresum.host_agent.optim.sparse_loco import sparse_loco

__all__ = ["DiLoCo", "Drift", "LocalSGD", "sparse_loco"]
