"""Changing a lease while the job runs: all ranks go to the new one at the same collective.

 1. The controller announces a change. Each rank holds its further collectives, and says how many
    it has handed to its engine.
 2. The controller answers the largest of these numbers, the boundary, to all. Each rank lets its
    collectives through to the old engine up to the boundary and waits for their results.
 3. Each rank joins again. When all have, the controller hands out the new lease.

Nothing is lost, summed twice or reordered, because the boundary is the same collective everywhere.
Until the third step is complete on all ranks, each may carry on with the old lease.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.controller.errors import ControllerError
from wiresum.host_agent.backend.link import Engine
from wiresum.host_agent.control import UNREACHABLE
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.relay import Relay

log = logging.getLogger("wiresum")

_LOOK_S = 0.2  # how soon a withdrawn change is noticed
_RETRY_S = 0.2


class Withdrawn(WiresumError):
    """The change does not take place; the old lease is as good as before."""


class Control(Protocol):
    """What a change asks of the controller, for one rank. Methods raise ``ControllerError``."""

    def declare(self, change: int, started: int, limit_s: float) -> int | None:
        """Say that ``started`` collectives have been; the boundary, or None if it is cancelled."""

    def join_again(
        self, change: int, done: int, again: Callable[[ControllerError], bool]
    ) -> Engine:
        """Wait for all ranks; an engine with the new lease. Raises ``AgentError`` too.

        ``done``: collectives so far. ``again`` is asked whether to try again after an error.
        """

    def moved(self) -> bool:
        """Whether the controller has made the new lease the job's own."""

    def wanted(self, change: int) -> bool:
        """Whether the change still stands, by what the last heartbeat said."""


class Change:
    """One change of one rank's lease. :meth:`run` blocks; give it a thread of its own."""

    def __init__(
        self,
        relay: Relay,
        control: Control,
        number: int,
        *,
        patience_s: float,
        stopped: Callable[[], bool],
    ) -> None:
        """``patience_s``: how long to hold collectives until all ranks have said where they are.

        ``stopped`` tells that this worker has left or its job is over.
        """
        self._relay = relay
        self._control = control
        self._number = number
        self._patience_s = patience_s
        self._stopped = stopped

    def run(self) -> bool:
        """Make the change; False if it was called off and the old engine goes on.

        Raises ``WiresumError`` where neither is possible.
        """
        try:
            self._agree()
            self._drain()
            engine = self._join()
        except Withdrawn as reason:
            log.info("wiresum: change %d of the lease is off: %s", self._number, reason)
            self._relay.resume()
            return False
        self._relay.replace(engine)
        return True

    def _agree(self) -> None:
        started = self._relay.pause()
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                left = max(deadline - time.monotonic(), _RETRY_S)
                boundary = self._control.declare(self._number, started, left)
                break
            except ControllerError as error:
                # The others may have been told a boundary: the answer counts, once there is one.
                # Going on without it is safe, for nobody gets the new lease before this rank has
                # joined; those who wait for that go on as well when their time is up.
                if error.code not in UNREACHABLE or time.monotonic() + _RETRY_S > deadline:
                    raise Withdrawn(str(error)) from None
            self._pause()
        if boundary is None:
            raise Withdrawn("the controller has cancelled it")
        if boundary < started:
            raise Withdrawn(f"the others have agreed on {boundary}, this rank is at {started}")
        self._relay.let(boundary)

    def _drain(self) -> None:
        """Wait for the training to get to the boundary, however long that takes."""
        while True:
            try:
                if self._relay.drained(_LOOK_S):
                    return
            except WiresumError as error:
                raise Withdrawn(str(error)) from None
            if self._stopped():
                raise Withdrawn("this worker leaves")
            if not self._control.wanted(self._number):
                raise Withdrawn("the controller wants it no more")

    def _join(self) -> Engine:
        try:
            return self._control.join_again(self._number, self._relay.done, self._again)
        except (ControllerError, AgentError) as error:
            raise Withdrawn(str(error)) from None

    def _again(self, why: ControllerError) -> bool:
        """Whether to join again: the others may have the new lease, only the controller knows.

        A job whose controller stays away ends by its heartbeats.
        """
        if why.code not in UNREACHABLE:
            return False
        while True:
            self._pause()
            try:
                return self._control.moved()
            except ControllerError as error:
                if error.code not in UNREACHABLE:
                    return False

    def _pause(self) -> None:
        if self._stopped():
            raise Withdrawn("this worker leaves")
        time.sleep(_RETRY_S)
