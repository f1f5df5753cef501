"""Optimizers with fewer synchronizations: every H steps, or while the next steps compute."""

from wiresum.host_agent.optim import (
    DelayedGradients,
    DiLoCo,
    Drift,
    LocalSGD,
    Pace,
    narrow_diloco,
    sparse_loco,
)

__all__ = [
    "DelayedGradients",
    "DiLoCo",
    "Drift",
    "LocalSGD",
    "Pace",
    "narrow_diloco",
    "sparse_loco",
]
