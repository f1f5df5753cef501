"""Jobs of a plan out of a report of ``wiresum measure``, or out of a Chakra trace."""

from pathlib import Path
from typing import Any

from wiresum.measure.advise.documents import read_report
from wiresum.measure.plan.chakra.step import steps_of
from wiresum.measure.plan.spec import MEGA


def of_report(path: Path) -> dict[str, Any]:
    """What a report says of its job. Raises ``AdviceError`` in one line."""
    job = read_report(path).job
    return {
        "workers": job.workers,
        "compute_ms": (job.step_s - job.exposed_s) * 1e3,
        "gradient_mb": job.gradient_bytes / MEGA,
        "buckets": max(1, round(job.buckets)),
        "hidden_ms": job.overlapped_s * 1e3,
    }


def of_chakra(path: Path) -> dict[str, Any]:
    """What the traces of all ranks say; ``path``: a folder, or one rank's file.

    Raises :class:`PlanError` in one line.
    """
    return steps_of(path)
