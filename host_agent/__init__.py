"""The worker's side of wiresum: the engine, the torch backend, the launcher."""

from typing import Any

__all__ = ["dump", "stats"]


def stats() -> dict[str, Any]:
    """What this process's collectives did so far: by path, with the engine's counters.

    Keys: ``switch``, ``switch_tensors``, ``switch_bytes``, ``fallback``, ``failed``, ``ended``,
    ``in_flight_s``, ``exposed_s`` (see ``agent.counters``) and ``engine`` (the engine's own,
    summed over the groups of this process; empty without a lease).
    """
    from wiresum.host_agent.backend.report import stats

    return stats()


def dump() -> dict[str, Any]:
    """Everything :func:`stats` says, and each group's lease and collectives in flight."""
    from wiresum.host_agent.backend.report import dump

    return dump()
