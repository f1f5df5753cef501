"""A job registered with a controller, kept alive until the block ends."""

import contextlib
import logging
import os
import threading
import time
from types import TracebackType

from wiresum.common.errors import WiresumError
from wiresum.controller.client import ControllerClient
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.environment import Environment
from wiresum.host_agent.launcher.embedded import START_S, Embedded

log = logging.getLogger("wiresum")

_LIVE = (pb.JOB_STATE_WAITING, pb.JOB_STATE_READY)


class LeaseLost(WiresumError):
    """The job is over, or its controller has been silent for longer than the lease lasts."""


class Session:
    """A job of ours on a controller, given or embedded. Use as a context manager."""

    def __init__(
        self,
        controller: str | None = None,
        *,
        field: int = 32,
        name: str = "",
        slots: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        """Register a job with ``controller`` (``HOST:PORT``), or start one and a switch.

        ``timeout_s`` limits the start, and the workers' joining and collectives. Raises
        ``ControllerError``, ``EmbeddedError`` or ``AddressError``.
        """
        self._stop = threading.Event()
        self._lost: str | None = None
        self.embedded = Embedded(timeout_s or START_S) if controller is None else None
        try:
            address = self.embedded.controller if self.embedded else str(controller)
            self._client = ControllerClient(address)
            self.job = self._client.create_job(name, slots=slots)
        except BaseException:
            if self.embedded:
                self.embedded.close()
            raise
        self.environment = Environment(address, self.job.id, self.job.token, field, timeout_s)
        self._thread = threading.Thread(target=self._beat, name="wiresum-heartbeat", daemon=True)
        self._thread.start()

    def variables(self, *, as_default: bool = False) -> dict[str, str]:
        """The environment for the workers: this process's own and the lease's variables."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("WIRESUM_JOB")}
        env |= self.environment.variables()
        if as_default:
            env["WIRESUM_AS_DEFAULT"] = "1"
        return env

    def describe(self) -> pb.Job:
        """The job as the controller sees it now, with the switch's counters."""
        return self._client.get_job(self.job.id, counters=True)

    def check(self) -> None:
        """Raise :class:`LeaseLost` or ``EmbeddedError`` if the run cannot go on."""
        if self.embedded is not None:
            self.embedded.check()
        if self._lost is not None:
            raise LeaseLost(self._lost)

    def _beat(self) -> None:
        heard = time.monotonic()
        warned = False
        while not self._stop.wait(max(self.job.heartbeat_s, 0.1)):
            try:
                answer = self._client.heartbeat(self.job.id, self.job.token)
            except ControllerError as error:
                if self._stop.is_set():
                    return
                if error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    self._lost = f"job {self.job.name} is gone: {error}"
                    return
                if time.monotonic() - heard > self.job.expiry_s:
                    self._lost = f"job {self.job.name} has lost its lease: {error}"
                    return
                if not warned:
                    log.warning("wiresum: heartbeats are failing: %s", error)
                    warned = True
                continue
            heard, warned = time.monotonic(), False
            if answer.state not in _LIVE:
                state = pb.JobState.Name(answer.state).removeprefix("JOB_STATE_").lower()
                self._lost = f"job {self.job.name} is {state}: {answer.reason or 'no reason given'}"
                return

    def close(self) -> None:
        """Release the job (unless another launcher made it) and stop what is embedded."""
        self._stop.set()
        try:
            if not self.job.attached and self._lost is None:
                with contextlib.suppress(ControllerError):
                    self._client.release_job(self.job.id, self.job.token)
            self._client.close()
            self._thread.join(timeout=2.0)
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
