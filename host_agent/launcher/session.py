"""A job registered with a controller, kept alive until the block ends."""

import contextlib
import dataclasses
import logging
import math
import os
import time

from wiresum.common.children.child import START_S, ChildError
from wiresum.common.errors import WiresumError
from wiresum.common.logs import say
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.control import Heartbeats, connect, create_job
from wiresum.host_agent.environment import (
    SHM,
    AgentError,
    Carrier,
    Environment,
    Transport,
    own_environment,
    without_secrets,
)
from wiresum.host_agent.launcher.embedded import Embedded
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.remedies.spec import VARIABLE as REMEDY

log = logging.getLogger("wiresum")


FIRST_MEND_S, LONGEST_MEND_S = 0.5, 60.0
"""Between an embedded switch's end and the next look at it; seconds."""


class LeaseLost(WiresumError):
    """The job is over, or its controller has been silent for longer than the lease lasts."""


def asked(
    options: JobOptions, controller: str, token: str | None, shm: str | None = None
) -> Environment:
    """What to ask ``controller`` for, and as whom; ``token`` None: as this environment says.

    ``shm`` is the socket of the switch's port in shared memory, None: as ``options`` say. Raises
    ``AgentError`` or ``AddressError``.
    """
    where = own_environment(controller)
    return dataclasses.replace(
        where,
        field=options.field,
        timeout_s=options.timeout_s,
        switch_timeout_s=options.switch_timeout_s or where.switch_timeout_s,
        tenant_token=where.tenant_token if token is None else token,
        ca=where.ca if options.ca is None else options.ca,
        shm=_shm(options.transport) if shm is None else shm,
        request=options.slots,
        carrier=options.carrier,
        tune=options.tune,
    )


def for_workers(where: Environment, *, as_default: bool, codec: str = "") -> dict[str, str]:
    """The environment for the workers: this process's own, with the job's instead of secrets.

    Processes in it can join this job, and can make no other.
    """
    env = without_secrets(os.environ)
    env.pop(SHM, None)
    env |= where.variables()
    return env | asked_of_workers(as_default=as_default, codec=codec)


def asked_of_workers(*, as_default: bool, codec: str) -> dict[str, str]:
    """Variables for the workers that say what to do with the script, whatever sums."""
    asked = {"WIRESUM_AS_DEFAULT": "1"} if as_default else {}
    return asked | ({REMEDY: codec} if codec else {})


def _shm(transport: Transport) -> str:
    path = os.environ.get(SHM, "")
    if transport is Transport.SHM and not path:
        raise AgentError(lines.NO_SHM_PORT.of(variable=SHM))
    return "" if transport is Transport.UDP else path


class Session:
    """A job of ours on a controller, given or embedded. Use as a context manager, or ``close()``.

    Public as ``wiresum.host_agent.Session``: a notebook or a script starts a switch with it.
    ``environment`` says how to reach the job; its ``tenant_token`` may make more of them.
    """

    def __init__(self, options: JobOptions | None = None, job: pb.Job | None = None) -> None:
        """Register a job with the controller of ``options``, or start one and a switch.

        Without ``options``, a switch and a controller are started for this job alone.
        ``job``: it has been registered there already. Raises ``ControllerError``, ``NoRoom``,
        ``ChildError`` or ``AddressError``.
        """
        options = options or JobOptions()
        self._codec = options.codec
        self._lost: str | None = None
        self._place = 0
        self._ended = False
        self._mends = 0
        self._next_mend = 0.0
        self.embedded: Embedded | None = None
        controller, token = options.controller, options.token
        if controller is None:
            shm = options.transport is not Transport.UDP
            self.embedded = Embedded(options.timeout_s or START_S, shm=shm)
            controller, token = self.embedded.controller, self.embedded.token
        try:
            own_shm = None if self.embedded is None else self.embedded.shm
            where = asked(options, controller, token, own_shm)
            self.job = job or create_job(where, options.name, self._queued)
            self.environment = dataclasses.replace(where, job=self.job.id, token=self.job.token)
            self._client = connect(where, self.job.token)
        except BaseException:
            if self.embedded:
                self.embedded.close()
            raise
        self._heartbeats = Heartbeats(
            self.job.name,
            self._beat,
            lambda: self.job,
            lambda _answer: None,
            self._end,
            loud=True,
        )

    def variables(self, *, as_default: bool = False) -> dict[str, str]:
        """The environment for the workers: see :func:`for_workers`."""
        return for_workers(self.environment, as_default=as_default, codec=self._codec)

    def describe(self) -> pb.Job:
        """The job as the controller sees it now, with the switch's counters."""
        return self._client.get_job(self.job.id, counters=True)

    def check(self) -> None:
        """Raise :class:`LeaseLost` or ``ChildError`` if the run cannot go on.

        A run that may leave the switch goes on without one, unless somebody has ended its job.
        """
        leaves = self.environment.carrier is not Carrier.SWITCH
        if self.embedded is not None:
            if leaves:
                self._mend(self.embedded)
            else:
                self.embedded.check()
        if self._lost is not None and (self._ended or not leaves):
            raise LeaseLost(self._lost)

    def _mend(self, embedded: Embedded) -> None:
        """Restart an embedded switch that has ended, at intervals that grow."""
        now = time.monotonic()
        if now < self._next_mend:
            return
        try:
            embedded.check()
        except ChildError as error:
            self._mends += 1
            self._next_mend = now + min(FIRST_MEND_S * 2.0**self._mends, LONGEST_MEND_S)
            if embedded.switch.process.poll() is not None:
                say(log, f"{error}; it is started again")
                embedded.renew_switch()
            else:  # the controller, and only it knew the job: another one would be of no use
                say(log, f"{error}; training goes on without it")
                self._next_mend = math.inf

    def _beat(self, wait_s: float, change: int) -> pb.HeartbeatResponse:
        answer = self._client.heartbeat(self.job.id, self.job.token, wait_s=wait_s, change=change)
        self._ended = answer.state in (pb.JOB_STATE_RELEASED, pb.JOB_STATE_EVICTED)
        return answer

    def _queued(self, job: pb.Job) -> None:
        if job.queue_position != self._place:
            self._place = job.queue_position
            why = f": {job.reason}" if job.reason else ""
            say(log, f"waiting for room on a switch, at place {self._place} of the queue{why}")

    def _end(self, why: str) -> None:
        self._lost = why
        if self.environment.carrier is not Carrier.SWITCH and not self._ended:
            say(log, f"training goes on over the ranks: {why}")

    def close(self) -> None:
        """Leave the job, which ends with its last launcher, and stop what is embedded."""
        self._heartbeats.stop()
        try:
            if self._lost is None:
                with contextlib.suppress(ControllerError):
                    self._client.release_job(self.job.id, self.job.token)
            self._client.close()
            self._heartbeats.join(timeout_s=2.0)
        finally:
            if self.embedded is not None:
                self.embedded.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
