"""The other ranks' end of :mod:`.peers`: one connection, to rank 0."""

import logging
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from wiresum.common.errors import LineText
from wiresum.common.logs import one_line
from wiresum.host_agent import lines
from wiresum.host_agent.agent.peers.judge import host_name, named
from wiresum.host_agent.agent.peers.meeting import Meeting, here
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
from wiresum.host_agent.errors import SwitchUnreachable

log = logging.getLogger("wiresum")

TRY_S = 3.0
"""How long one address may take to answer; seconds."""

SEARCH_S = 60.0
"""How long all addresses are tried; seconds."""

MOST_TEXT = 1000
"""The most characters of a line that are passed on."""

_PAUSE_S = 0.5


class Spoke:
    """The link of a rank other than 0. Everything is called by the one thread of ``peers``."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        meeting: Meeting,
        member: Member,
        clock: Callable[[], float],
    ) -> None:
        self.complete = threading.Event()
        """Set once rank 0 has answered."""
        self.dropped = 0
        """Connections to a process that was not rank 0."""
        self._selector = selector
        self._meeting = meeting
        self._member = member
        self._clock = clock
        self._channel: Channel | None = None
        self._rank_0_left = False
        self._complaint = ""  # that the switch is lost, until rank 0 answers
        self._left_epochs: set[int] = set()
        self.free = threading.Event()
        """Set once this rank may leave: see :meth:`done`."""

    def connect(self, stop: Callable[[], bool]) -> None:
        """Find rank 0, unless ``stop()``. Blocks, for ``SEARCH_S`` at most."""
        deadline = time.monotonic() + SEARCH_S
        why = "no address"
        while not stop() and time.monotonic() < deadline:
            for address in self._meeting.addresses:
                try:
                    channel, early = self._try(address)
                except (OSError, Garbage) as error:
                    why = f"{address[0]}:{address[1]}: {error}"
                    continue
                self._channel = channel
                self._selector.register(channel.sock, selectors.EVENT_READ, self._ready)
                self._all_heard(early)
                self.complete.set()
                return
            time.sleep(_PAUSE_S)
        if not stop():
            log.warning(
                "wiresum: no link to %s (%s): a rank that dies is noticed late",
                named(0, self._meeting.host),
                why,
            )

    def _try(self, address: tuple[str, int]) -> tuple[Channel, list[dict[str, Any]]]:
        """A connection to rank 0, and what has come on it beyond the greeting."""
        channel = Channel(socket.create_connection(address, timeout=TRY_S))
        try:
            tune(channel.sock)
            early = self._introduce(channel)
        except BaseException:
            self.dropped += 1
            channel.close()
            raise
        channel.longest = FRAME_BYTES
        return channel, early

    def _introduce(self, channel: Channel) -> list[dict[str, Any]]:
        rank, host, nonce = self._member.rank, here(), new_nonce()
        secret = self._meeting.secret
        challenge, *_ = _next(channel)
        if challenge.get("t") != "challenge":
            raise Garbage("somebody else listens there")
        shown = proof(secret, "rank", challenge.get("nonce"), rank, host, nonce)
        channel.send({"t": "hello", "rank": rank, "host": host, "nonce": nonce, "proof": shown})
        welcome, *early = _next(channel)
        if welcome.get("t") != "welcome" or not proves(
            welcome.get("proof"), secret, "rank 0", nonce
        ):
            raise Garbage("somebody else listens there")
        return early

    # -- messages -----------------------------------------------------------------------------

    def _ready(self, _sock: Any, events: int) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            if events & selectors.EVENT_WRITE:
                channel.flush()
                self._interest(channel)
            messages, over = channel.receive()
        except (OSError, Garbage):
            messages, over = [], True
        self._all_heard(messages)
        if over or self._rank_0_left:
            self._closed()

    def _all_heard(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            try:
                self._heard(message)
            except (KeyError, ValueError, TypeError) as error:
                self.dropped += 1
                log.debug("wiresum: rank 0 has sent nonsense: %r", error)

    def _heard(self, message: dict[str, Any]) -> None:
        kind = message.get("t")
        if kind == "ask":
            state = self._member.state().to_message()
            self._say({"t": "state", "round": message["round"], "state": state})
        elif kind == "gone":
            self._member.lost(_gone(message, int(message["rank"]), host_name(message["host"]),
                                    self._clock()))  # fmt: skip
        elif kind == "bye":
            self._rank_0_left = True
            self._member.lost(_gone(message, 0, self._meeting.host, self._clock()))
        elif kind == "leave":
            self._complaint = ""
            self._left_epochs.add(int(message["epoch"]))
            self._member.leave_switch(int(message["epoch"]), one_line(str(message["why"])))
        elif kind == "want":
            self._member.wanted.add(int(message["count"]))
            self.tell_ended()
        elif kind == "free":
            self.free.set()
        elif kind == "fail":
            line = LineText(str(message["line"]), str(message.get("code", "")))
            self._member.told(str(message["kind"]), line)

    def _say(self, message: Message) -> None:
        if self._channel is None:
            return
        try:
            self._channel.send(message)
            self._interest(self._channel)
        except OSError:
            self._closed()

    def _interest(self, channel: Channel) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.wants_write else 0)
        if self._selector.get_key(channel.sock).events != wanted:
            self._selector.modify(channel.sock, wanted, self._ready)

    def _closed(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self._selector.unregister(channel.sock)
        channel.close()
        if not self._rank_0_left:
            self._member.lost(Gone(0, self._meeting.host, self._clock()))
        self._nobody_answers()
        self.free.set()

    # -- for the loop -------------------------------------------------------------------------

    def lost_switch(self, epoch: int, why: str) -> None:
        """This rank has lost the switch: rank 0 tells all."""
        if epoch in self._left_epochs:
            return  # another rank has said so, and rank 0 has answered
        self._complaint = why[:MOST_TEXT]
        self._say({"t": "lost", "epoch": epoch, "why": self._complaint})
        if self._channel is None:
            self._nobody_answers()

    def _nobody_answers(self) -> None:
        """Rank 0 is gone: if it has not answered the complaint, no rank will."""
        why, self._complaint = self._complaint, ""
        if why:
            self._member.told(SwitchUnreachable.__name__, lines.NO_LINK.of(why=why))

    def stalled(self, now: float) -> None:
        """This rank waits, and wants to know whether it waits in vain."""
        self._say({"t": "stalled"})

    def turn(self, now: float) -> None:
        """Nothing is ever due."""

    def wait_s(self, now: float) -> float:
        """How soon :meth:`turn` has something to do, at the latest; seconds."""
        return 60.0

    def late(self, now: float) -> None:
        """This process did not run for a while."""

    def done(self, count: int) -> None:
        """All ``count`` all-reduces of this rank have ended, and it would like to leave.

        ``free`` is set once they have ended on all other ranks, or rank 0 is gone.
        """
        self._say({"t": "done", "count": count})
        if self._channel is None:
            self.free.set()

    def tell_ended(self) -> None:
        """Say how many all-reduces have ended here, once that is as many as a rank waits for."""
        ended = self._member.has_wanted
        if ended is not None:
            self._say({"t": "ended", "count": ended})

    def leave(self, farewell: dict[str, int]) -> None:
        """Say goodbye."""
        self._say({"t": "bye", **farewell})
        if self._channel is not None:
            self._rank_0_left = True  # whatever rank 0 does now, it does not count as dead
            self._channel.end()

    @property
    def left(self) -> bool:
        """Whether rank 0 has heard it."""
        return self._channel is None

    def close(self) -> None:
        """Close everything."""
        if self._channel is not None:
            self._channel.close()


def _gone(message: Message, rank: int, host: str, now: float) -> Gone:
    if "after" not in message:
        return Gone(rank, host, now)
    return Gone(rank, host, now, int(message["after"]), int(message["collectives"]))


def _next(channel: Channel) -> list[dict[str, Any]]:
    """The next message, or more, of somebody who has to prove first who it is."""
    deadline = time.monotonic() + TRY_S
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        messages, over = channel.receive()
        if messages:
            return messages
        if over:
            raise Garbage("it hung up")
    raise Garbage(f"no answer within {TRY_S:g} s")
