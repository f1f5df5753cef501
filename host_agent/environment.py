"""The environment variables between ``wiresum run`` and the workers."""

from collections.abc import Mapping
from dataclasses import dataclass

from wiresum.common.address import parse_endpoint
from wiresum.common.errors import WiresumError

FIELDS = (32, 16, 8)


class AgentError(WiresumError):
    """This worker cannot take part in the job: bad environment, no route, rank 0 gave up."""


@dataclass(frozen=True)
class Environment:
    """What ``wiresum run`` hands to the workers."""

    controller: str
    job: str | None
    token: str
    field: int
    timeout_s: float | None

    def variables(self) -> dict[str, str]:
        """As environment variables; :func:`environment` reads them back."""
        values = {
            "WIRESUM_CONTROLLER": self.controller,
            "WIRESUM_JOB": self.job or "",
            "WIRESUM_JOB_TOKEN": self.token,
            "WIRESUM_FIELD": str(self.field),
            "WIRESUM_TIMEOUT": "" if self.timeout_s is None else f"{self.timeout_s:g}",
        }
        return {name: value for name, value in values.items() if value}


def environment(env: Mapping[str, str]) -> Environment | None:
    """Read the WIRESUM_* variables; None if there is no WIRESUM_CONTROLLER.

    Raises :class:`AgentError` or ``AddressError`` for values that make no sense.
    """
    controller = env.get("WIRESUM_CONTROLLER", "")
    if not controller:
        return None
    parse_endpoint(controller, what="WIRESUM_CONTROLLER")
    field = env.get("WIRESUM_FIELD") or "32"
    if field not in map(str, FIELDS):
        raise AgentError(f"WIRESUM_FIELD is {field!r}; it must be 32, 16 or 8")
    timeout = env.get("WIRESUM_TIMEOUT") or ""
    try:
        timeout_s = float(timeout) if timeout else None
    except ValueError:
        timeout_s = -1.0
    if timeout_s is not None and not 0 < timeout_s < 1e7:
        raise AgentError(f"WIRESUM_TIMEOUT is {timeout!r}; it must be a number of seconds above 0")
    return Environment(
        controller=controller,
        job=env.get("WIRESUM_JOB") or None,
        token=env.get("WIRESUM_JOB_TOKEN", ""),
        field=int(field),
        timeout_s=timeout_s,
    )
