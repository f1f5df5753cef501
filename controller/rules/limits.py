"""How long the controller waits, and for what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How long the controller waits. All in seconds."""

    heartbeat_s: float = 5.0
    """How often launchers and workers shall show a sign of life."""
    expiry_s: float = 30.0
    """Silence after which a job's lease expires."""
    join_timeout_s: float = 60.0
    """How long a rank waits for the others, unless it says otherwise."""
    change_s: float = 15.0
    """How long the ranks of a running job may take to agree on a change of its lease, and how long
    a job that does not want to wait in the queue waits for such changes."""
    drained_s: float = 300.0
    """How long a job in the queue waits while every switch that it may have is being drained."""
