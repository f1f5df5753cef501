"""The environment variables between users, ``wiresum run`` and the workers."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from wiresum.common.errors import WiresumError
from wiresum.controller.client import OnFull
from wiresum.controller.client.address import parse_addresses
from wiresum.controller.client.requests import DEFAULT_SLOTS, SlotRequest
from wiresum.host_agent import lines
from wiresum.p4 import FIELDS

LONGEST_S = 100 * 365.25 * 86400.0
"""A hundred years: longer limits are cut to it. Clocks that count nanoseconds in 64 bits overflow
not far above."""

FALLBACK = "WIRESUM_FALLBACK"
"""The reason why a run that asked for a switch trains without one; for its workers."""

SHM = "WIRESUM_SHM"
"""The socket of a shm port of the switch, where that is on the workers' host."""


SWITCH_TIMEOUT = "WIRESUM_SWITCH_TIMEOUT"
"""Seconds that the switch may say nothing at all while a collective waits."""


JOB_FILE = "WIRESUM_JOB_FILE"
"""Where the launcher writes the job of a run that has begun without one; for its workers."""

TALLY = "WIRESUM_TALLY"
"""The folder in which the launcher reads what the workers' collectives did; for its workers."""

MEASURE = "WIRESUM_MEASURE"
"""The folder into which ``wiresum measure -- COMMAND`` has the ranks write; for the command."""

MEASURE_STEPS = "WIRESUM_MEASURE_STEPS"
"""How many steps each rank shall record; set together with it."""

TUNE = "WIRESUM_TUNE"
"""Limits within which the ranks choose the field while they train: see ``agent.tuning.wish``."""

CARRIER = "WIRESUM_CARRIER"
"""What sums: see :class:`Carrier`."""


class Carrier(StrEnum):
    """What sums the lanes of a run."""

    AUTO = "auto"
    """The switch while it can be reached, the ranks otherwise."""
    SWITCH = "switch"
    """The switch alone; the run ends without it."""
    RANKS = "ranks"
    """The ranks themselves; neither a switch nor a controller is used."""


class Transport(StrEnum):
    """How the workers of a run reach the switch."""

    AUTO = "auto"
    UDP = "udp"
    SHM = "shm"


class AgentError(WiresumError):
    """This worker cannot take part in the job: bad environment, no route, rank 0 gave up."""


@dataclass(frozen=True)
class Environment:
    """How to reach the controller, which job this is, and what it asks for.

    ``controller`` is empty where the ranks sum without any. ``token`` is the job's,
    ``tenant_token`` the user's own, with which jobs are made. ``ca``, ``cert`` and ``key`` are
    files for TLS, empty for none. ``shm`` is the socket of a shm port of the switch, where that is
    on this host; empty: UDP.
    """

    controller: str
    job: str | None
    token: str = dataclasses.field(repr=False)
    field: int
    timeout_s: float | None
    tenant_token: str = dataclasses.field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    request: SlotRequest = DEFAULT_SLOTS
    shm: str = ""
    switch_timeout_s: float | None = None
    """How long the switch may say nothing at all while a collective waits; None: see Worker."""
    carrier: Carrier = Carrier.AUTO
    fallback: str = ""
    """Why the launcher has no switch for this run; empty if it has, or was not asked for one."""
    job_file: str = ""
    """Where the launcher writes the job once it has one; empty: there is no such launcher."""
    tune: str = ""
    """The limits of a run whose field the ranks choose; empty: the field stays as it is."""

    def variables(self) -> dict[str, str]:
        """As environment variables for workers; :func:`environment` reads them back.

        The tenant's token is not among them, nor what only concerns the making of a job.
        """
        values = {
            "WIRESUM_CONTROLLER": self.controller,
            "WIRESUM_JOB": self.job or "",
            "WIRESUM_JOB_TOKEN": self.token,
            "WIRESUM_FIELD": str(self.field),
            "WIRESUM_TIMEOUT": "" if self.timeout_s is None else f"{self.timeout_s:g}",
            SWITCH_TIMEOUT: "" if self.switch_timeout_s is None else f"{self.switch_timeout_s:g}",
            "WIRESUM_CA": self.ca,
            "WIRESUM_CERT": self.cert,
            "WIRESUM_KEY": self.key,
            SHM: self.shm,
            CARRIER: str(self.carrier),
            FALLBACK: self.fallback,
            JOB_FILE: self.job_file,
            TUNE: self.tune,
        }
        return {name: value for name, value in values.items() if value}


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` without tokens of any kind, and without another run's job."""
    return {
        name: value
        for name, value in env.items()
        if not name.startswith("WIRESUM_")
        or not ("TOKEN" in name or name.startswith("WIRESUM_JOB") or name == FALLBACK)
    }


def environment(env: Mapping[str, str]) -> Environment | None:
    """Read the WIRESUM_* variables; None if they ask for nothing but plain gloo.

    That is: no WIRESUM_CONTROLLER, and no WIRESUM_CARRIER, WIRESUM_TUNE or narrow WIRESUM_FIELD for
    which the ranks sum. Raises :class:`AgentError` or ``AddressError`` for values that make no
    sense.
    """
    controller = env.get("WIRESUM_CONTROLLER", "")
    field = env.get("WIRESUM_FIELD") or "32"
    if field not in map(str, FIELDS):
        raise AgentError(lines.NOT_A_FIELD.of(field=field))
    carrier, tune = _carrier(env), env.get(TUNE, "")
    if tune:
        if field != "32":
            raise AgentError(lines.TUNE_STARTS_EXACT.of())
        if not controller and carrier is None:
            carrier = Carrier.RANKS
    if carrier is Carrier.RANKS:
        controller = ""
    elif not controller:
        if carrier is Carrier.SWITCH:
            raise AgentError(lines.NO_CONTROLLER.of())
        if carrier is None and field == "32":
            return None
    if controller:
        parse_addresses(controller, what="WIRESUM_CONTROLLER")
    return Environment(
        controller=controller,
        job=env.get("WIRESUM_JOB") or None,
        token=env.get("WIRESUM_JOB_TOKEN", ""),
        field=int(field),
        timeout_s=_seconds(env, "WIRESUM_TIMEOUT"),
        tenant_token=env.get("WIRESUM_TOKEN", ""),
        ca=env.get("WIRESUM_CA", ""),
        cert=env.get("WIRESUM_CERT", ""),
        key=env.get("WIRESUM_KEY", ""),
        request=SlotRequest(
            slots=_count(env, "WIRESUM_SLOTS"),
            min_slots=_count(env, "WIRESUM_MIN_SLOTS"),
            on_full=_on_full(env),
            queue_timeout_s=_seconds(env, "WIRESUM_QUEUE_TIMEOUT"),
        ),
        shm=env.get(SHM, ""),
        switch_timeout_s=_seconds(env, SWITCH_TIMEOUT),
        carrier=carrier or Carrier.AUTO,
        fallback=env.get(FALLBACK, ""),
        job_file=env.get(JOB_FILE, ""),
        tune=tune,
    )


def own_environment(controller: str) -> Environment:
    """What this process's environment says to somebody who makes a job with ``controller``."""
    names = ("WIRESUM_TOKEN", "WIRESUM_CA", "WIRESUM_CERT", "WIRESUM_KEY", SWITCH_TIMEOUT)
    mine = {name: os.environ[name] for name in names if name in os.environ}
    made = environment({"WIRESUM_CONTROLLER": controller, **mine})
    assert made is not None
    return made


def _seconds(env: Mapping[str, str], name: str) -> float | None:
    text = env.get(name) or ""
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is None:
        return None
    if not value > 0:
        raise AgentError(lines.VARIABLE_NOT_SECONDS.of(name=name, text=text))
    return min(value, LONGEST_S)


def _count(env: Mapping[str, str], name: str) -> int:
    text = env.get(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise AgentError(lines.VARIABLE_NOT_SLOTS.of(name=name, text=text))
    return int(text)


def _carrier(env: Mapping[str, str]) -> Carrier | None:
    text = env.get(CARRIER)
    if not text:
        return None
    try:
        return Carrier(text)
    except ValueError:
        names = ", ".join(Carrier)
        raise AgentError(lines.VARIABLE_NOT_CARRIER.of(text=text, names=names)) from None


def _on_full(env: Mapping[str, str]) -> OnFull:
    text = env.get("WIRESUM_IF_FULL") or OnFull.FAIL
    try:
        return OnFull(text)
    except ValueError:
        names = ", ".join(OnFull)
        raise AgentError(lines.VARIABLE_NOT_IF_FULL.of(text=text, names=names)) from None
