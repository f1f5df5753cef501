"""Changing a lease while the job runs: all ranks go to the new one at the same collective.

 1. The controller announces a change. Each rank holds its further collectives, and says how many
    it has handed to its engine.
 2. The controller answers the largest of these numbers, the boundary, to all. Each rank lets its
    collectives through to the old engine up to the boundary and waits for their results.
 3. Each rank joins again. When all have, the controller hands out the new lease.

Nothing is lost, summed twice or reordered, because the boundary is the same collective everywhere.
The controller may call a change off until it has told the boundary. So a rank that has said where
it is starts no other collective before it has an answer, and one that knows the boundary never goes
on with the old lease beyond it.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.controller.errors import ControllerError
from wiresum.host_agent.agent.face import EngineFace
from wiresum.host_agent.agent.relay import Relay

log = logging.getLogger("wiresum")

_LOOK_S = 0.2  # how soon it is noticed that the worker leaves
_RETRY_S = 0.2

_OPEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED")
"""Codes of a ``ControllerError`` after which the same call may still be answered."""


class Withdrawn(WiresumError):
    """The change does not take place; the old lease is as good as before."""


class Control(Protocol):
    """What a change asks of the controller, for one rank. Methods raise ``ControllerError``."""

    def declare(self, change: int, started: int) -> int | None:
        """Say that ``started`` collectives have been; the boundary, or None if it is cancelled."""

    def join_again(
        self, change: int, done: int, again: Callable[[ControllerError], bool]
    ) -> EngineFace:
        """Wait for all ranks; an engine with the new lease. ``done``: collectives so far.

        ``again`` is asked whether to try again after an error.
        """


class Change:
    """One change of one rank's lease. :meth:`run` blocks; give it a thread of its own."""

    def __init__(
        self,
        relay: Relay,
        control: Control,
        number: int,
        *,
        limit_s: float,
        stopped: Callable[[], bool],
    ) -> None:
        """``limit_s``: how long to wait for an answer in each of the steps 1 and 3.

        ``stopped`` tells that this worker has left or its job is over.
        """
        self._relay = relay
        self._control = control
        self._number = number
        self._limit_s = limit_s
        self._stopped = stopped
        self._deadline = 0.0
        self.held_s = 0.0
        """How long collectives were held, once :meth:`run` has made the change; seconds."""

    def run(self) -> bool:
        """Make the change; False if it was called off and the old engine goes on.

        Raises ``WiresumError`` if there is no answer in time, or one that leaves no lease.
        """
        began = time.monotonic()
        try:
            self._agree()
            self._drain()
            self._deadline = time.monotonic() + self._limit_s
            engine = self._control.join_again(self._number, self._relay.done, self._again)
        except Withdrawn as reason:
            log.info("wiresum: change %d of the lease is off: %s", self._number, reason)
            self._relay.resume()
            return False
        self._relay.replace(engine)
        self.held_s = time.monotonic() - began
        return True

    def _agree(self) -> None:
        started = self._relay.pause()
        self._deadline = time.monotonic() + self._limit_s
        while True:
            try:
                boundary = self._control.declare(self._number, started)
                break
            except ControllerError as error:
                if not self._again(error):
                    raise
        if boundary is None:
            raise Withdrawn("the controller has cancelled it")
        self._relay.let(boundary)

    def _drain(self) -> None:
        """Wait for the training to get to the boundary, however long that takes."""
        while True:
            try:
                if self._relay.drained(_LOOK_S):
                    return
            except WiresumError as error:
                raise Withdrawn(str(error)) from None  # who waits for a collective is told why
            if self._stopped():
                raise Withdrawn("this worker leaves")

    def _again(self, why: ControllerError) -> bool:
        """Whether to make the same call again, after a while."""
        if self._stopped():
            raise Withdrawn("this worker leaves")
        if why.code not in _OPEN or time.monotonic() + _RETRY_S > self._deadline:
            return False
        time.sleep(_RETRY_S)
        return True
