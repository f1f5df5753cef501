"""The link between the ranks, beside the switch: it notices ranks that died, left, or wait in vain.

A star of TCP connections from every rank to rank 0, with one thread per process. A connection that
breaks is a rank that has died: all others hear of it at once, and end what waits for it. A rank
that leaves says goodbye, and how far it came. A rank whose engine waits for others at one chunk
for a second tells rank 0, which asks all where they are, and compares.

Only the kernel decides by the clock that a peer is gone (see ``wire.tune``). A process that has
stood still itself drops its suspicions. The link knows neither torch nor the controller. Without it
everything works, but a rank that waits for a dead one waits until its limit.
"""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.agent.peers.hub import Hub
from wiresum.host_agent.agent.peers.meeting import Meeting
from wiresum.host_agent.agent.peers.member import Member
from wiresum.host_agent.agent.peers.spoke import Spoke

log = logging.getLogger("wiresum")

LOOK_S, SOON_S = 0.5, 0.1
"""How often this rank looks at its own engine; and while a rank is known to be gone."""

ENDED_S = 0.02
"""How often it looks whether its all-reduces have ended for which another rank waits; seconds."""

LATE_S = 3.0
"""A turn that is late by so much shows that this process did not run; seconds."""

START_S = 5.0
"""How long a rank waits for its links, so that no death goes unnoticed from the start."""

FAREWELL_S = 1.5
"""How long the others may take to hear the goodbye."""

_all: "weakref.WeakSet[Peers]" = weakref.WeakSet()


class Peers:
    """One rank's links to the others. Any thread may call the methods."""

    def __init__(
        self,
        meeting: Meeting,
        workers: int,
        member: Member,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread, and wait for the links for ``START_S`` at most.

        ``member`` is this rank of ``workers``; the thread calls it, and its functions.
        """
        self._clock = clock
        self._process = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._rung)
        self._member = member
        self._lost: deque[tuple[int, str]] = deque()  # to be said to the other ranks
        self._role: Hub | Spoke = (
            Hub(self._selector, meeting, workers, self._member, clock)
            if member.rank == 0
            else Spoke(self._selector, meeting, self._member, clock)
        )
        self._leaving = False
        self._done: int | None = None  # to be said to the other ranks
        self._thread = threading.Thread(target=self._run, name="wiresum-peers", daemon=True)
        _all.add(self)
        self._thread.start()
        self._role.complete.wait(START_S)

    def watch(self, group: Group) -> None:
        """Compare what ``group`` issues; end what its fallback has in flight when need be."""
        self._member.group = group

    def lost_switch(self, epoch: int, why: str) -> bool:
        """Tell all ranks that this one has lost the switch, in ``epoch``.

        All, this one too, are then told to leave it. False if they cannot be told.
        """
        if self._leaving or not self._role.complete.is_set():
            return False
        self._lost.append((epoch, why))
        try:
            self._rope.send(b"!")
        except OSError:
            return False
        return True

    def stay(self, count: int, limit_s: float) -> None:
        """Wait until the ``count`` all-reduces that have ended here have ended on all other ranks.

        A result that another rank lacks when the switch dies can be made again only while this rank
        is there. Waits for no rank that is gone, and for ``limit_s`` seconds at most.
        """
        if self._leaving or not self._role.complete.is_set() or not self._thread.is_alive():
            return
        self._done = count
        with contextlib.suppress(OSError):
            self._rope.send(b"!")
            self._role.free.wait(limit_s)

    def describe(self) -> dict[str, Any]:
        """State of the link, for the debug dump."""
        return {"complete": self._role.complete.is_set(), "dropped": self._role.dropped}

    def leave(self) -> None:
        """Say goodbye and close. May be called twice; does nothing in a forked child."""
        if os.getpid() != self._process:
            return
        self._leaving = True
        try:
            self._rope.send(b"!")
        except OSError:
            return  # the thread has ended
        if threading.current_thread() is not self._thread:
            self._thread.join(FAREWELL_S + 1.0)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if isinstance(self._role, Spoke):
                self._role.connect(lambda: self._leaving)
            self._loop()
            self._say_goodbye()
        except Exception:
            log.warning("wiresum: the link between the ranks has failed", exc_info=True)
        finally:
            self._role.free.set()
            self._role.close()
            self._selector.close()
            self._bell.close()
            self._rope.close()

    def _loop(self) -> None:
        look = last = self._clock()
        while not self._leaving:
            now = self._clock()
            planned = max(0.0, min(look - now, self._role.wait_s(now)))
            if self._member.wanted:
                planned = min(planned, ENDED_S)
            self._turn(planned)
            now = self._clock()
            if now - last > planned + LATE_S:
                self._role.late(now)
                self._member.forget(now)
            last = now
            while self._lost:
                self._role.lost_switch(*self._lost.popleft())
            if self._done is not None:
                done, self._done = self._done, None
                self._role.done(done)
            self._role.tell_ended()
            if now >= look:
                look = now + (SOON_S if self._member.urgent else LOOK_S)
                if self._member.look(now):
                    self._role.stalled(now)
            self._role.turn(now)

    def _turn(self, wait_s: float) -> None:
        for key, events in self._selector.select(wait_s):
            key.data(key.fileobj, events)

    def _say_goodbye(self) -> None:
        self._role.leave(self._member.farewell())
        deadline = self._clock() + FAREWELL_S
        while not self._role.left and (left := deadline - self._clock()) > 0:
            self._turn(left)

    def _rung(self, _sock: Any, _events: int) -> None:
        try:
            self._bell.recv(64)
        except OSError:
            return

    def forked(self) -> None:
        """In a child: close the descriptors, which are the parent's.

        A child that kept them would hide the parent's death from the others.
        """
        self._role.close()
        self._selector.close()
        self._bell.close()
        self._rope.close()


def _forked() -> None:
    for peers in list(_all):
        peers.forked()
    _all.clear()


os.register_at_fork(after_in_child=_forked)
