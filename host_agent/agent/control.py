"""Calls to the controller from launchers and workers: clients, jobs, heartbeats."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.common.patience import Patience
from wiresum.controller.client import ControllerClient, OnFull
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.environment import AgentError, Environment

log = logging.getLogger("wiresum")

GONE = ("NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED")
"""Codes of a ``ControllerError`` that say that there is no such job. All others say nothing about
the job: the controller is away, busy, in trouble, or what answers is not the controller."""

_LIVE = (pb.JOB_STATE_WAITING, pb.JOB_STATE_READY)
_SOON_S = 1.0
CALL_S = 10.0
"""How much longer than its wait a heartbeat may take: the client's own limit; seconds."""

_SHORTEST_S = 0.05  # between two calls, even if the controller answers at once


class NoJob(WiresumError):
    """There is no job yet, and the group may begin without one; says why."""


class NoRoom(NoJob):
    """No switch has room, and the run goes on without one; says why."""


_connected = False  # this process, or the one that it is a fork of, has called a controller
_forked = False  # the latter


def connect(where: Environment, token: str) -> ControllerClient:
    """A client of the controller that ``where`` names. Raises ``WiresumError``."""
    global _connected
    if _forked:
        # gRPC's threads are gone, and with one of them in a call its state is broken: a crash.
        raise AgentError(lines.FORK_OF_CLIENT.of())
    _connected = True
    return ControllerClient(
        where.controller,
        token=token,
        ca=where.ca or None,
        cert=where.cert or None,
        key=where.key or None,
    )


def _after_fork() -> None:
    global _forked
    _forked = _connected


os.register_at_fork(after_in_child=_after_fork)


def create_job(
    where: Environment,
    name: str,
    on_queue: Callable[[pb.Job], None],
    lent: tuple[str, str] | None = None,
    share: float = 0.0,
) -> pb.Job:
    """Make a job, or attach to the live one of that name, as ``where.request`` says.

    ``lent``: a job and its token, of which a part is made, with this ``share`` of its slots.
    ``on_queue`` gets the job from time to time while it waits for room. Raises
    :class:`NoRoom` if there is none and the request says "fallback", else ``ControllerError``.
    """
    request = where.request
    with connect(where, lent[1] if lent else where.tenant_token) as client:
        try:
            request = part_request(client, request, lent, share)
            parent, token = lent or ("", "")
            return client.create_job(
                name, request, on_queue=on_queue, parent=parent, parent_token=token
            )
        except ControllerError as error:
            full = error.code == "RESOURCE_EXHAUSTED" and error.retry_after_s is None
            if full and request.on_full is OnFull.FALLBACK:
                raise NoRoom(str(error)) from None
            raise


def part_request(
    client: ControllerClient, request: SlotRequest, lent: tuple[str, str] | None, share: float
) -> SlotRequest:
    """The request for a part of that job which gets this share of its slots."""
    if lent is None:
        return request
    return replace(request, slots=max(1, int(share * client.get_job(lent[0]).slots_target)))


def over(answer: pb.HeartbeatResponse, label: str) -> str | None:
    """One line that says why job ``label`` is over, if it is."""
    if answer.state in _LIVE:
        return None
    state = pb.JobState.Name(answer.state).removeprefix("JOB_STATE_").lower()
    return lines.JOB_OVER.of(job=label, state=state, reason=answer.reason or "no reason given")


class Terms(Protocol):
    """A job or a lease: how often to call, and after how much silence it expires; seconds."""

    heartbeat_s: float
    expiry_s: float


class Heartbeats:
    """A thread that always has a call open at the controller: a sign of life that brings news."""

    def __init__(
        self,
        label: str,
        beat: Callable[[float, int], pb.HeartbeatResponse],
        terms: Callable[[], Terms],
        heard: Callable[[pb.HeartbeatResponse], str | None],
        lost: Callable[[str], None],
        *,
        loud: bool,
    ) -> None:
        """Start it.

        ``beat(seconds, change)`` makes the call, which waits so long for news, such as another
        announced change of the lease. ``heard`` gets the answer while the job lives; what it
        returns is a reason to stop. ``lost`` gets the reason, one line about job ``label``, once;
        then the thread ends. ``loud``: warn when the controller cannot be reached.
        """
        self._label = label
        self._call = beat
        self._terms = terms
        self._heard = heard
        self._lost = lost
        self._loud = loud
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wiresum-heartbeat", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended: it calls no more."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Call no more; a call in progress goes on until the client is closed."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end, unless this is that thread."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        silence = Patience(0.0)
        failures = 0
        asked = False  # once more, when it was silent for too long
        rest, change = 0.0, 0
        while not self._stop.wait(rest):
            silence.step(rest)
            waits = self._terms().heartbeat_s
            try:
                answer = self._call(waits, change)
                rest, change = _SHORTEST_S, answer.change
            except ControllerError as error:
                if self._stop.is_set():
                    return
                silence.step(waits + CALL_S)
                if error.retry_after_s is not None:
                    silence.restart()  # the controller is there, and knows that this process is
                    asked = False
                if (
                    error.code not in GONE
                    and silence.spent_s > self._terms().expiry_s
                    and not asked
                ):
                    # The call may have failed because this process stood still meanwhile, and so
                    # may have the controller: one more, which has its whole time, decides.
                    asked, rest = True, 0.0
                    continue
                why = self._failed(error, silence.spent_s)
                failures += 1
                # One may fail because the controller restarts: it is asked again soon.
                if failures == 2 and why is None and self._loud:
                    log.warning("wiresum: heartbeats are failing: %s", error)
                rest = max(self._terms().heartbeat_s, _SHORTEST_S)
                if failures == 1:
                    rest = min(rest, _SOON_S)
            else:
                silence.restart()
                failures, asked = 0, False
                why = over(answer, self._label) or self._heard(answer)
            if why is not None:
                if not self._stop.is_set():
                    self._lost(why)
                return

    def _failed(self, error: ControllerError, silent_s: float) -> str | None:
        if error.code in GONE:
            return lines.JOB_GONE.of(job=self._label, why=error)
        if silent_s > self._terms().expiry_s:
            return lines.LEASE_LOST.of(job=self._label, why=error)
        return None
