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
from typing import NamedTuple, Protocol, TypeVar

from wiresum.common.errors import WiresumError
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.face import EngineFace
from wiresum.host_agent.agent.network import WorkerSocket
from wiresum.host_agent.errors import EngineClosed

log = logging.getLogger("wiresum")

T = TypeVar("T")

_LOOK_S = 0.2  # how soon it is noticed that the worker leaves
_RETRY_S = 0.2

_OPEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED")
"""Codes of a ``ControllerError`` after which the same call may still be answered."""


class Withdrawn(WiresumError):
    """The change does not take place; the old lease is as good as before."""


class Seat(Protocol):
    """One rank's calls to the controller in a change. Methods raise ``ControllerError``."""

    def declare(self, lease: pb.Lease, change: int, started: int) -> int | None:
        """Say that ``started`` collectives were handed to the engine of ``lease``.

        Returns the boundary, or None if the change is cancelled.
        """

    def open_socket(self) -> WorkerSocket:
        """A new socket towards the switch, for the new lease."""

    def rejoin(self, change: int, sock: WorkerSocket, waited_s: float) -> pb.Lease:
        """Join again from ``sock``; waits for all ranks. ``waited_s``: in earlier calls."""

    def start(self, sock: WorkerSocket, lease: pb.Lease, done: int) -> EngineFace:
        """An engine with the new lease. ``done``: collectives that earlier engines have taken."""


class Engines(Protocol):
    """What uses the lease: see :class:`~wiresum.host_agent.agent.relay.Relay`."""

    @property
    def done(self) -> int:
        """How many pieces all engines together have been handed."""

    def pause(self) -> int:
        """Hold all further collectives; how many pieces have been handed."""

    def let(self, boundary: int) -> None:
        """Let through what is held below the boundary."""

    def drained(self, timeout_s: float) -> bool:
        """Wait until all collectives up to the boundary have ended."""

    def resume(self) -> None:
        """Carry on with the same engine."""

    def replace(self, engine: EngineFace) -> None:
        """Carry on with another engine."""


class Unused:
    """A lease under which nothing is summed: the ranks carry, and keep it for later."""

    done = 0

    def __init__(self, chosen_at: int) -> None:
        """``chosen_at``: see :class:`~wiresum.host_agent.agent.carriers.Carriers`."""
        self._chosen_at = chosen_at

    def pause(self) -> int:
        """Nothing is held. A rank that uses the lease still must get to where it leaves it, too."""
        return self._chosen_at

    def let(self, _boundary: int) -> None:
        """Nothing is held."""

    def drained(self, _timeout_s: float) -> bool:
        """Nothing is in flight."""
        return True

    def resume(self) -> None:
        """Nothing is held."""

    def replace(self, engine: EngineFace) -> None:
        """It is not used, either."""
        engine.close()


class Changed(NamedTuple):
    """A change that was made."""

    lease: pb.Lease
    held_s: float
    """How long collectives were held; seconds."""


def change_lease(
    relay: Engines,
    seat: Seat,
    lease: pb.Lease,
    number: int,
    *,
    limit_s: float,
    stopped: Callable[[], bool],
) -> Changed | None:
    """Make change ``number`` of one rank's ``lease``; blocks.

    None if it was called off, and the old engine goes on; one that the carrier's change overtakes
    in its last step has a lease that no engine uses. ``limit_s``: how long to wait for an
    answer in each of the steps 1 and 3. ``stopped`` tells that this worker has left or its job is
    over. Raises ``WiresumError`` if there is no answer in time, or one that leaves no lease.
    """
    began = time.monotonic()
    try:
        # 1. Hold what comes, and say how many collectives the engine has.
        started = relay.pause()
        answered = _Patient(limit_s, stopped)
        boundary = answered(lambda _waited_s: seat.declare(lease, number, started))
        if boundary is None:
            raise Withdrawn(lines.CHANGE_CANCELLED.of())

        # 2. Let collectives through up to the boundary, and wait for their results.
        _let(relay, boundary)
        _drain(relay, stopped)

        # 3. Join again, always from one address; what is held goes to the new engine.
        answered = _Patient(limit_s, stopped)
        sock = answered(lambda _waited_s: seat.open_socket())
        with sock.socket:
            new = answered(lambda waited_s: seat.rejoin(number, sock, waited_s))
            engine = seat.start(sock, new, relay.done)
        try:
            relay.replace(engine)
        except EngineClosed:
            # The ranks have begun to carry meanwhile. The lease is this rank's all the same.
            engine.close()
    except Withdrawn as reason:
        log.info("wiresum: change %d of the lease is off: %s", number, reason)
        relay.resume()
        return None
    return Changed(new, time.monotonic() - began)


class _Patient:
    """Makes a call to the controller until it is answered: together for ``limit_s`` at most."""

    def __init__(self, limit_s: float, stopped: Callable[[], bool]) -> None:
        self._began = time.monotonic()
        self._limit_s = limit_s
        self._stopped = stopped

    def __call__(self, call: Callable[[float], T]) -> T:
        """The answer to ``call``, which gets the seconds for which there was none so far."""
        while True:
            try:
                return call(time.monotonic() - self._began)
            except ControllerError as error:
                if self._stopped():
                    raise Withdrawn(lines.WORKER_LEAVES.of()) from None
                waited_s = time.monotonic() - self._began
                if error.code not in _OPEN or waited_s + _RETRY_S > self._limit_s:
                    raise
                time.sleep(_RETRY_S)


def _let(relay: Engines, boundary: int) -> None:
    try:
        relay.let(boundary)
    except EngineClosed as reason:
        raise Withdrawn(str(reason)) from None


def _drain(relay: Engines, stopped: Callable[[], bool]) -> None:
    """Wait for the training to get to the boundary, however long that takes."""
    while True:
        try:
            if relay.drained(_LOOK_S):
                return
        except WiresumError as error:
            raise Withdrawn(str(error)) from None  # who waits for a collective is told why
        if stopped():
            raise Withdrawn(lines.WORKER_LEAVES.of())
