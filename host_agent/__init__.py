"""The worker's side of wiresum: the engine, the torch backend, the launcher.

For scripts: :func:`stats`, :func:`dump`, :func:`variables`; :class:`Session` and
:class:`JobOptions` start a job from Python, as ``wiresum run`` does from a shell.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wiresum.host_agent.launcher.options import JobOptions
    from wiresum.host_agent.launcher.session import Session

__all__ = ["JobOptions", "Session", "dump", "stats", "variables"]


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


def variables() -> dict[str, str]:
    """This process's variables of wiresum, for workers that a framework starts elsewhere.

    For example ``ray.init(runtime_env={"env_vars": wiresum.host_agent.variables()})``. With them
    the workers join the job of this process's ``wiresum run``. Of the tokens they get one: the
    job's, or the tenant's where there is no job.
    """
    token = "WIRESUM_JOB_TOKEN" if "WIRESUM_JOB" in os.environ else "WIRESUM_TOKEN"
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("WIRESUM_") and ("TOKEN" not in name or name == token)
    }


def __getattr__(name: str) -> Any:
    # Imported late: workers need neither, and they bring gRPC.
    if name == "JobOptions":
        from wiresum.host_agent.launcher.options import JobOptions

        return JobOptions
    if name == "Session":
        from wiresum.host_agent.launcher.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
