"""Optimizers that synchronize the ranks every H steps: ``LocalSGD`` and ``DiLoCo``."""

from wiresum.host_agent.optim import DiLoCo, Drift, LocalSGD, sparse_loco

__all__ = ["DiLoCo", "Drift", "LocalSGD", "sparse_loco"]
