"""A job registered with a controller, kept alive until the block ends."""

import contextlib
import dataclasses
import logging
import os
from types import TracebackType

from wiresum.common.children.child import START_S
from wiresum.common.errors import WiresumError
from wiresum.common.logs import say
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.control import Heartbeats, connect, create_job
from wiresum.host_agent.environment import (
    SHM,
    AgentError,
    Transport,
    own_environment,
    without_secrets,
)
from wiresum.host_agent.launcher.embedded import Embedded
from wiresum.host_agent.launcher.options import JobOptions

log = logging.getLogger("wiresum")


class LeaseLost(WiresumError):
    """The job is over, or its controller has been silent for longer than the lease lasts."""


class Session:
    """A job of ours on a controller, given or embedded. Use as a context manager.

    ``environment`` says how to reach the job; its ``tenant_token`` may make more of them.
    """

    def __init__(self, options: JobOptions) -> None:
        """Register a job with the controller of ``options``, or start one and a switch.

        Raises ``ControllerError``, ``NoRoom``, ``ChildError`` or ``AddressError``.
        """
        self._lost: str | None = None
        self._place = 0
        self.embedded: Embedded | None = None
        controller, token = options.controller, options.token
        if controller is None:
            shm = options.transport is not Transport.UDP
            self.embedded = Embedded(options.timeout_s or START_S, shm=shm)
            controller, token = self.embedded.controller, self.embedded.token
        try:
            where = own_environment(controller)
            where = dataclasses.replace(
                where,
                field=options.field,
                timeout_s=options.timeout_s,
                switch_timeout_s=options.switch_timeout_s or where.switch_timeout_s,
                tenant_token=where.tenant_token if token is None else token,
                ca=where.ca if options.ca is None else options.ca,
                shm=self._shm(options.transport),
                request=options.slots,
            )
            self.job = create_job(where, options.name, self._queued)
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

    def _shm(self, transport: Transport) -> str:
        if self.embedded is not None:
            return self.embedded.shm
        path = os.environ.get(SHM, "")
        if transport is Transport.SHM and not path:
            raise AgentError(lines.NO_SHM_PORT.of(variable=SHM))
        return "" if transport is Transport.UDP else path

    def variables(self, *, as_default: bool = False) -> dict[str, str]:
        """The environment for the workers: this process's own, with the job's instead of secrets.

        Whoever runs in it can join this job, and make no other.
        """
        env = without_secrets(os.environ)
        env.pop(SHM, None)
        env |= self.environment.variables()
        if as_default:
            env["WIRESUM_AS_DEFAULT"] = "1"
        return env

    def describe(self) -> pb.Job:
        """The job as the controller sees it now, with the switch's counters."""
        return self._client.get_job(self.job.id, counters=True)

    def check(self) -> None:
        """Raise :class:`LeaseLost` or ``ChildError`` if the run cannot go on."""
        if self.embedded is not None:
            self.embedded.check()
        if self._lost is not None:
            raise LeaseLost(self._lost)

    def _beat(self, wait_s: float, change: int) -> pb.HeartbeatResponse:
        return self._client.heartbeat(self.job.id, self.job.token, wait_s=wait_s, change=change)

    def _queued(self, job: pb.Job) -> None:
        if job.queue_position != self._place:
            self._place = job.queue_position
            why = f": {job.reason}" if job.reason else ""
            say(log, f"waiting for room on a switch, at place {self._place} of the queue{why}")

    def _end(self, why: str) -> None:
        self._lost = why

    def close(self) -> None:
        """Release the job (unless another launcher made it) and stop what is embedded."""
        self._heartbeats.stop()
        try:
            if not self.job.attached and self._lost is None:
                with contextlib.suppress(ControllerError):
                    self._client.release_job(self.job.id, self.job.token)
            self._client.close()
            self._heartbeats.join(timeout_s=2.0)
        finally:
            if self.embedded is not None:
                self.embedded.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
