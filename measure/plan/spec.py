"""A job of a plan, as its owner describes it."""

from dataclasses import dataclass

MOST_WORKERS = 10_000
MOST_JOBS = 1_000
MEGA = 1e6


@dataclass(frozen=True)
class JobSpec:
    """A job as its owner describes it.

    ``compute_ms``: of a step without communication; ``hidden_ms``: how much of its communication
    can run behind that. ``gradient_mb``: float32 gradients of a step, in 10^6 bytes, in so many
    ``buckets``. ``slots``: of its lease; 0: as many as fill its links.
    """

    name: str
    workers: int
    compute_ms: float
    gradient_mb: float
    buckets: int = 1
    hidden_ms: float = 0.0
    remedy: str = "switch-32"
    slots: int = 0

    @property
    def gradient_bytes(self) -> float:
        """Of a step."""
        return self.gradient_mb * MEGA
