"""Rank 0's end of :mod:`.peers`: all other ranks connect to it, and hear of each other from it."""

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wiresum.common.logs import one_line
from wiresum.host_agent import lines
from wiresum.host_agent.agent.peers.judge import Judge, State, host_name, named
from wiresum.host_agent.agent.peers.meeting import Meeting
from wiresum.host_agent.agent.peers.member import Gone, Member
from wiresum.host_agent.agent.peers.wire import (
    FRAME_BYTES,
    Channel,
    Garbage,
    Message,
    new_nonce,
    proof,
    proves,
    tune,
)
from wiresum.host_agent.errors import EngineError, ResultLost, SwitchUnreachable

log = logging.getLogger("wiresum")

GREETING_S = 10.0
"""How long a new connection may take to prove its rank; seconds."""

STRANGERS = 128
"""The most connections without a proof; for one more, the oldest is closed."""

ROUND_S = 1.0
"""How long a rank may take to report its state; then the others are judged without it; seconds."""

PAUSE_S, LONGEST_PAUSE_S = 0.4, 5.0
"""Between rounds of questions, at first and after many that have found nothing."""

_QUICK_ROUNDS = 5
_STALL_LASTS_S = 1.6  # a rank that waits says so every half second


@dataclass
class _Stranger:
    nonce: str
    until: float


class Hub:
    """All links of rank 0. Everything is called by the one thread of ``peers``."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        meeting: Meeting,
        workers: int,
        member: Member,
        clock: Callable[[], float],
    ) -> None:
        self.complete = threading.Event()
        """Set once every rank has called."""
        self.dropped = 0
        """Connections of strangers, and of ranks that sent nonsense."""
        self._selector = selector
        self._meeting = meeting
        self._workers = workers
        self._member = member
        self._clock = clock
        self._strangers: dict[Channel, _Stranger] = {}
        self._ranks: dict[int, Channel] = {}
        self._hosts = {0: meeting.host}
        self._gone: dict[int, Gone] = {}
        self._judge = Judge(self._hosts)
        self._stalled = float("-inf")
        self._round = 0
        self._quiet_rounds = 0
        self._next_round = 0.0
        self._began = 0.0
        self._lost_epochs: set[int] = set()
        self._states: dict[int, State] | None = None  # while a round is under way
        self.free = threading.Event()
        """Set once this rank may leave: see :meth:`done`."""
        self._ended: dict[int, int] = {}  # all-reduces that have ended, as ranks have said last
        self._wanted: dict[int, int] = {}  # how many each rank was asked about
        self._leaving: dict[int, int] = {}  # ranks that would like to leave, after so many
        for listener in meeting.listeners:
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ, self._accept)
        if workers == 1:
            self.complete.set()

    # -- connections --------------------------------------------------------------------------

    def _accept(self, listener: Any, _events: int) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:  # no more connections, or one that has left again
                return
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        while len(self._strangers) >= STRANGERS:
            self._drop(next(iter(self._strangers)))
        nonce = new_nonce()
        self._strangers[channel] = _Stranger(nonce, self._clock() + GREETING_S)
        self._selector.register(
            sock, selectors.EVENT_READ, lambda _sock, events: self._ready(channel, events)
        )
        try:
            tune(sock)
        except OSError:
            self._drop(channel)
            return
        self._say(channel, {"t": "challenge", "nonce": nonce})

    def _ready(self, channel: Channel, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                channel.flush()
                self._interest(channel)
            messages, over = channel.receive()
            for message in messages:
                if channel.fileno() < 0:
                    return  # closed meanwhile
                self._heard(channel, message)
        except (OSError, Garbage, KeyError, ValueError, TypeError) as error:
            log.debug("wiresum: a link is given up: %r", error)
            self.dropped += 1
            over = True
        if over and channel.fileno() >= 0:
            self._closed(channel)

    def _say(self, channel: Channel, message: Message) -> None:
        try:
            channel.send(message)
            self._interest(channel)
        except OSError:
            self._closed(channel)

    def _interest(self, channel: Channel) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.wants_write else 0)
        key = self._selector.get_key(channel.sock)
        if key.events != wanted:
            self._selector.modify(channel.sock, wanted, key.data)

    def _tell(self, message: Message, but: int = -1) -> None:
        for rank, channel in list(self._ranks.items()):
            if rank != but:
                self._say(channel, message)

    def _close(self, channel: Channel) -> None:
        if channel.fileno() >= 0:
            self._selector.unregister(channel.sock)
            channel.close()

    def _drop(self, channel: Channel) -> None:
        self.dropped += 1
        del self._strangers[channel]
        self._close(channel)

    def _closed(self, channel: Channel) -> None:
        """A connection ended without a goodbye."""
        if channel in self._strangers:
            self._drop(channel)
            return
        self._close(channel)
        for rank, its in list(self._ranks.items()):
            if its is channel:
                del self._ranks[rank]
                self._departed(Gone(rank, self._hosts.get(rank, ""), self._clock()))

    def _departed(self, gone: Gone) -> None:
        self._gone[gone.rank] = gone
        if gone.after is not None:
            self._judge.left[gone.rank] = gone.after
        self._member.lost(gone)
        self._tell(_gone_message(gone), but=gone.rank)
        self._leaving.pop(gone.rank, None)
        self._free_ranks()

    # -- messages -----------------------------------------------------------------------------

    def _heard(self, channel: Channel, message: dict[str, Any]) -> None:
        if channel in self._strangers:
            self._introduced(channel, message)
            return
        rank = next(rank for rank, its in self._ranks.items() if its is channel)
        kind = message.get("t")
        if kind == "bye":
            after, collectives = int(message["after"]), int(message["collectives"])
            del self._ranks[rank]
            self._close(channel)
            host = self._hosts.get(rank, "")
            self._departed(Gone(rank, host, self._clock(), after, collectives))
        elif kind == "lost":
            self.lost_switch(int(message["epoch"]), one_line(str(message["why"])), rank)
        elif kind == "done":
            self._ends(rank, int(message["count"]))
        elif kind == "ended":
            self._ended[rank] = int(message["count"])
            self._free_ranks()
        elif kind == "stalled":
            self.stalled(self._clock())
        elif kind == "state" and self._states is not None and message["round"] == self._round:
            self._states[rank] = State.from_message(message["state"])

    def _introduced(self, channel: Channel, message: dict[str, Any]) -> None:
        nonce = self._strangers[channel].nonce
        rank, host, theirs = message.get("rank"), message.get("host"), message.get("nonce")
        secret = self._meeting.secret
        if not proves(message.get("proof"), secret, "rank", nonce, rank, host, theirs):
            self._drop(channel)
            return
        if type(rank) is not int or not 0 < rank < self._workers or rank in self._ranks:
            self._drop(channel)
            return
        del self._strangers[channel]
        channel.longest = FRAME_BYTES
        self._hosts[rank] = host_name(host)
        self._ranks[rank] = channel
        self._gone.pop(rank, None)
        self._say(channel, {"t": "welcome", "proof": proof(secret, "rank 0", theirs)})
        for gone in self._gone.values():
            if rank in self._ranks:
                self._say(channel, _gone_message(gone))
        if len(self._ranks) + len(self._gone) == self._workers - 1:
            self.complete.set()

    # -- who waits for what -------------------------------------------------------------------

    def lost_switch(self, epoch: int, why: str, rank: int = 0) -> None:
        """A rank has lost the switch: all leave it. Only the first one is heard."""
        if epoch in self._lost_epochs or not self._member.may_leave_switch:
            return
        self._lost_epochs.add(epoch)
        line = f"{named(rank, self._hosts.get(rank, ''))}: {why}"
        if not self.complete.is_set():  # the others would wait for a rank that is not told
            self._proclaim(SwitchUnreachable(lines.NO_LINK.of(why=line)))
            return
        self._tell({"t": "leave", "epoch": epoch, "why": line})
        self._member.leave_switch(epoch, line)

    def stalled(self, now: float) -> None:
        """A rank waits, and wants to know whether it waits in vain."""
        self._stalled = now

    def turn(self, now: float) -> None:
        """Do what is due: ask, judge, drop connections without a proof."""
        for channel, stranger in list(self._strangers.items()):
            if now > stranger.until:
                self._drop(channel)
        if self._states is not None:
            if len(self._states) > len(self._ranks) or now - self._began > ROUND_S:
                self._end_round(now)
        elif now - self._stalled > _STALL_LASTS_S:
            self._quiet_rounds = 0
            self._judge.forget()
        elif now >= self._next_round and not self._member.ended:
            self._round += 1
            self._began = now
            self._states = {0: self._member.state()}
            self._tell({"t": "ask", "round": self._round})

    def _end_round(self, now: float) -> None:
        states, self._states = self._states or {}, None
        self._quiet_rounds += 1
        pause = PAUSE_S * 2 ** max(0, self._quiet_rounds - _QUICK_ROUNDS)
        self._next_round = now + min(pause, LONGEST_PAUSE_S)
        verdict = self._judge.hear(states)
        if verdict is not None:
            self._proclaim(verdict)

    def _proclaim(self, verdict: EngineError) -> None:
        kind, line = type(verdict).__name__, str(verdict)
        if isinstance(verdict, ResultLost) and self._member.may_leave_switch:
            lost = self._judge.suspect
            assert lost is not None
            self.lost_switch(lost.epoch, line)
            return
        self._tell({"t": "fail", "kind": kind, "line": line, "code": verdict.line_code or ""})
        self._member.told(kind, line)

    def wait_s(self, now: float) -> float:
        """How soon :meth:`turn` has something to do, at the latest; seconds."""
        if self._states is not None:
            return max(0.0, min(0.05, self._began + ROUND_S - now))
        if now - self._stalled <= _STALL_LASTS_S:
            return max(0.0, self._next_round - now)
        return GREETING_S

    def late(self, now: float) -> None:
        """This process did not run for a while: that time counts against no rank."""
        self._states = None
        self._judge.forget()
        for stranger in self._strangers.values():
            stranger.until = now + GREETING_S

    # -- the end ------------------------------------------------------------------------------

    def done(self, count: int) -> None:
        """All ``count`` all-reduces of this rank have ended, and it would like to leave.

        ``free`` is set once they have ended on all other ranks that are there.
        """
        self._ends(0, count)

    def _ends(self, rank: int, count: int) -> None:
        """A rank would like to leave: ask those about ``count`` who have not said so much yet."""
        self._ended[rank] = self._leaving[rank] = count
        if not self.complete.is_set():  # the others cannot be asked: it need not wait for them
            self._free(rank)
            return
        if self._lacks(0, count):
            self._member.wanted.add(count)
        for other, channel in list(self._ranks.items()):
            # A rank that cannot be told is gone, and others may be gone, too.
            if self._lacks(other, count) and other in self._ranks:
                self._say(channel, {"t": "want", "count": count})
        self.tell_ended()
        self._free_ranks()

    def _lacks(self, rank: int, count: int) -> bool:
        """Whether a rank has not said so much, and was not asked for it."""
        asked = max(self._ended.get(rank, 0), self._wanted.get(rank, 0)) >= count
        self._wanted[rank] = max(count, self._wanted.get(rank, 0))
        return not asked

    def tell_ended(self) -> None:
        """Note how many all-reduces have ended here, once that is as many as a rank waits for."""
        ended = self._member.has_wanted
        if ended is not None:
            self._ended[0] = ended
            self._free_ranks()

    def _free_ranks(self) -> None:
        least = min(self._ended.get(rank, 0) for rank in [0, *self._ranks])
        for rank, count in list(self._leaving.items()):
            if count <= least:
                self._free(rank)

    def _free(self, rank: int) -> None:
        self._leaving.pop(rank, None)
        if rank == 0:
            self.free.set()
        elif rank in self._ranks:
            self._say(self._ranks[rank], {"t": "free"})

    def leave(self, farewell: dict[str, int]) -> None:
        """Say goodbye to all."""
        self._tell({"t": "bye", **farewell})
        for channel in self._ranks.values():
            channel.end()

    @property
    def left(self) -> bool:
        """Whether all have heard it."""
        return not self._ranks

    def close(self) -> None:
        """Close everything."""
        self._meeting.close()
        for channel in (*self._strangers, *self._ranks.values()):
            channel.close()


def _gone_message(gone: Gone) -> dict[str, Any]:
    message: dict[str, Any] = {"t": "gone", "rank": gone.rank, "host": gone.host}
    if gone.after is not None:
        message |= {"after": gone.after, "collectives": gone.collectives}
    return message
