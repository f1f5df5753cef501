"""One rank's own part of :mod:`.peers`: its state, and its reaction when another rank is gone."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.host_agent import lines
from wiresum.host_agent.agent.issued import Group, NoGroup
from wiresum.host_agent.agent.peers.judge import State, StreamPosition, named, stream_at
from wiresum.host_agent.errors import EngineError, PeerLost, engine_error

log = logging.getLogger("wiresum")

STALL_S = 0.9
"""A rank that has waited for others at one chunk for so long asks them about it; seconds."""

STUCK_S = 1.0
"""A collective without progress for so long will not get its other results by itself; seconds."""


class Engine(Protocol):
    """The part of an engine that the link between ranks uses. Any thread may call it."""

    @property
    def asked(self) -> int:
        """How many all-reduces it was given."""

    @property
    def ended(self) -> int:
        """How many of these have ended, well or not."""

    @property
    def completed(self) -> int:
        """How many of these have ended well."""

    def positions(self) -> Mapping[str, StreamPosition]:
        """How far each stream is."""

    def fail(self, kind: str, line: str) -> None:
        """End everything in flight, and all that comes."""


@dataclass(frozen=True)
class Gone:
    """A rank that is not in the group any more."""

    rank: int
    host: str
    since: float
    after: int | None = None
    """If it has left: how many all-reduces it has completed. None: it died."""
    collectives: int = 0
    """If it has left: how many collectives of any kind it has issued."""

    def line(self, waits: str = "") -> str:
        """One line about its end. ``waits``: "; " and what this rank waits in, if it does."""
        who = named(self.rank, self.host)
        if self.after is None:
            return lines.RANK_DIED.of(who=who, waits=waits)
        return lines.RANK_LEFT.of(who=who, collectives=self.collectives, waits=waits)


class Member:
    """This rank. All methods but :meth:`watch` are for the one thread of ``peers``."""

    def __init__(
        self,
        rank: int,
        engine: Engine,
        epoch: Callable[[], int],
        over: Callable[[EngineError], None],
        leave_switch: Callable[[int, str], None] | None = None,
        heard_gone: Callable[[Gone], None] = lambda _gone: None,
    ) -> None:
        """``epoch()`` is the epoch of the lease in use.

        ``over`` is told why no collective can begin any more; what is in flight ends through
        ``engine.fail``. ``leave_switch(epoch, why)`` is told that all ranks leave the switch. None:
        they do not, and a result that the switch has lost ends everything. ``heard_gone`` is told
        of each rank that is gone.
        """
        self.rank = rank
        self.group: Group = NoGroup()
        self._engine = engine
        self._epoch = epoch
        self._over = over
        self._leave_switch = leave_switch
        self._heard_gone = heard_gone
        self._gone: list[Gone] = []
        self._ended = False
        self._seen: tuple[object, ...] = ()
        self._seen_since = 0.0
        self.wanted: set[int] = set()
        """Other ranks leave once so many all-reduces have ended here: one number for each rank."""

    @property
    def ended(self) -> bool:
        """Whether what was in flight here has been ended."""
        return self._ended

    @property
    def urgent(self) -> bool:
        """Whether a rank is gone, and this rank must soon check whether that concerns it."""
        return bool(self._gone) and not self._ended

    def state(self) -> State:
        """Where this rank is now."""
        streams = {name: stream_at(at) for name, at in self._engine.positions().items()}
        return State(self._epoch(), streams, self.group.issued(), self._engine.ended)

    def farewell(self) -> dict[str, int]:
        """The message to the others when this rank leaves."""
        issued = self.group.issued()
        count = issued[-1].sequence if issued else self._engine.asked
        return {"after": self._engine.completed, "collectives": count}

    @property
    def has_wanted(self) -> int | None:
        """How many all-reduces have ended here, if another rank waits for that many; told once."""
        ended = self._engine.ended
        reached = {count for count in self.wanted if count <= ended}
        self.wanted -= reached
        return ended if reached else None

    def lost(self, gone: Gone) -> None:
        """Another rank has died, or has left."""
        log.debug("wiresum: %s", gone.line())
        self._gone.append(gone)
        self._heard_gone(gone)

    def end(self, error: EngineError, *, fallback: bool) -> None:
        """End everything that is in flight. ``fallback``: there, too."""
        if self._ended:
            return
        self._ended = True
        self._over(error)
        self._engine.fail(type(error).__name__, str(error))
        if fallback:
            # Collectives there end with an error of torch's, which does not say why.
            log.error("wiresum: %s", error)
            self.end_fallback(error)

    def end_fallback(self, error: WiresumError) -> None:
        """End what the fallback has in flight."""
        try:
            self.group.abort(error)
        except Exception:  # torch's; what waits there then waits for torch's own limit
            log.debug("wiresum: the fallback could not be given up", exc_info=True)

    def told(self, kind: str, line: str) -> None:
        """Rank 0 has found out that no rank can go on."""
        self.end(engine_error(kind, line), fallback=True)

    @property
    def may_leave_switch(self) -> bool:
        """Whether the ranks can carry what the switch does not."""
        return self._leave_switch is not None

    @property
    def epoch(self) -> int:
        """Of the lease in use."""
        return self._epoch()

    def leave_switch(self, epoch: int, line: str) -> None:
        """All ranks leave the switch."""
        if self._leave_switch is not None:
            self._leave_switch(epoch, line)

    def forget(self, now: float) -> None:
        """Time has passed in which this process did not run."""
        self._seen_since = now

    def look(self, now: float) -> bool:
        """Called every now and then: whether this rank has waited for others for too long."""
        if self._ended:
            return False
        at = self.state()
        seen = (at.epoch, self._engine.ended, *((s.oldest, s.next) for s in at.streams.values()))
        if seen != self._seen:
            self._seen, self._seen_since = seen, now
        still = now - self._seen_since
        for gone in self._gone:
            if self._needs(gone, at, still):
                self.end(PeerLost(gone.line(self._waits(gone))), fallback=False)
                return False
            if gone.after is None or self._engine.asked >= gone.after:
                self._over(PeerLost(gone.line()))
        return at.waits and still >= STALL_S

    def _needs(self, gone: Gone, at: State, still: float) -> bool:
        """Whether what is in flight here can never end without that rank."""
        if self._engine.asked == self._engine.ended:
            return False
        if gone.after is not None:
            # All ranks have contributed to the all-reduces that it completed: the switch has the
            # results.
            return self._engine.asked > gone.after and self._engine.ended >= gone.after
        if still >= STUCK_S:
            return True
        wanting = (s.there for s in at.streams.values() if s.there is not None)
        # A WAIT from before its death may have been answered since.
        return still >= STUCK_S / 2 and any(not there >> gone.rank & 1 for there in wanting)

    def _waits(self, gone: Gone) -> str:
        issued = self.group.issued()
        beyond = [each for each in issued if gone.after is None or each.sequence > gone.collectives]
        if not issued:
            return f"; rank {self.rank} waits in a collective"
        what = beyond[0] if beyond and gone.after is not None else issued[-1]
        return f"; rank {self.rank} waits in {what}"
