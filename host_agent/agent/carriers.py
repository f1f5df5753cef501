"""Which carrier sums this worker's collectives, the switch or the ranks, and the way from one to
the other.

To the ranks: a rank whose switch is silent says so, and all ranks hand over what was in flight
(:mod:`.handover`); or all ranks have chosen so. Back to the switch: see :mod:`.returning`.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from zlib import crc32

from wiresum.common.errors import Line
from wiresum.common.logs import one_line
from wiresum.common.version import package_version, series
from wiresum.host_agent import lines
from wiresum.host_agent.agent.ballot import Ballot
from wiresum.host_agent.agent.face import EngineFace
from wiresum.host_agent.agent.handover import Suspended, hand_over
from wiresum.host_agent.agent.ranks import RanksEngine
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.returning import Joined, Return
from wiresum.host_agent.agent.sums import Sums
from wiresum.host_agent.engine import Rest
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.errors import EngineError, PeerLost, SwitchUnreachable

log = logging.getLogger("wiresum")

SWITCH, RANKS = "switch", "ranks"
ASKED_FOR = "this run asks for it"

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""How long the ranks carry at least after a loss of the switch; doubles with each; seconds."""


class Carriers:
    """The carriers of one worker. Any thread may call the methods."""

    def __init__(
        self,
        relay: Relay,
        rank: int,
        workers: int,
        field: int,
        *,
        rejoin: Callable[[int], Joined] | None = None,
        tell: Callable[[int, str], bool] = lambda _epoch, _why: False,
        returned: Callable[[Joined], None] = lambda _joined: None,
        tuned: bool = False,
        label: str = "",
    ) -> None:
        """``rejoin`` gets a lease anew, in a round that all ranks make together: see ``returning``.

        None: there is no switch to go to. ``tell`` says to the other ranks that the switch of that
        epoch is lost, and why; false if they cannot be told. ``returned`` is called when the
        switch carries again, with the lease it carries under. ``tuned``: whether the collectives
        have fields that the ranks agree on, which must be so on all of them. ``label`` names a
        group of some of the ranks.
        """
        self._label = label
        self._relay = relay
        self._rank = rank
        self._workers = workers
        self._field = field
        self._rejoin = rejoin
        self._tell = tell
        self._returned = returned
        self._tuned = tuned
        self._sums: Sums | None = None
        self._lock = threading.Lock()
        self._left: set[int] = set()  # epochs in which the switch was lost
        self._returning: Return | None = None
        self._falls = 0
        self._lost = True  # the last switch, if the ranks have not chosen to leave it
        self._chosen = ""  # why the ranks are to carry, though there may be a switch
        self.chosen_at = 0
        """Pieces that engines have been handed once the collective is under way at which all ranks
        have chosen the carrier last: the same on all ranks."""
        self._closed = False
        # Held for a whole way from one carrier to the other, while ``carrier`` says RANKS.
        self._moving = threading.Lock()
        self.carrier = SWITCH if relay.has_engine else RANKS
        self.why = ""
        """Why the ranks carry, in one line."""
        relay.on_suspended = self._suspended

    # -- the start ----------------------------------------------------------------------------

    def begin(self, sums: Sums, joined: Joined | None, why: str, *, loud: bool) -> None:
        """Start with the switch if all ranks have the same lease, else with the ranks.

        All ranks call it together. ``joined`` is this rank's lease; ``why`` says why it has none,
        ``loud`` whether that is a warning. Raises ``AgentError`` on all ranks where they could not
        sum together.
        """
        self._sums = sums
        mine = 0 if joined is None else joined.epoch
        # What the lanes and words of the ranks depend on must be the same everywhere.
        alike = crc32(
            f"{series(package_version())} {self._field} {self._rejoin is None} {self._tuned}"
            "".encode()
        )
        largest, smallest, most, least = sums.largest([mine, -mine, alike, -alike])
        if most != -least:
            raise AgentError(lines.RANKS_NOT_ALIKE.of(rank=self._rank, field=self._field))
        if joined is not None and largest == -smallest:
            with self._moving:
                self._relay.take_over(joined.engine)
                self._settle(joined.epoch)
            return
        if joined is not None:
            joined.drop()
            why = "another rank has no lease on the switch"
        with self._moving:
            ranks = self._carry((), why, delay_s=0.0, loud=loud)
            self._falls += self._rejoin is not None
            self._relay.take_over(ranks)

    # -- to the ranks -------------------------------------------------------------------------

    def _suspended(self, engine: EngineFace, why: str) -> None:
        """The switch is silent to this rank. Called by the thread that polls the engine."""
        self._complain(_epoch_of(engine), why)

    def _complain(self, epoch: int, why: str) -> None:
        """Say that the switch is lost to this rank."""
        if epoch in self._left:
            return  # the engine stands still because all ranks leave the switch
        if self._sums is None:
            self._relay.fail(SwitchUnreachable.__name__, why)
        elif self._workers == 1:
            self.leave_switch(epoch, why)
        elif not self._tell(epoch, why):
            self._relay.fail(SwitchUnreachable.__name__, lines.NO_LINK.of(why=why))

    def lost_lease(self, why: str) -> bool:
        """The controller is silent, or the lease is over: go on without the switch, if possible."""
        if self._sums is None:
            return False
        if self.carrier == SWITCH:
            log.warning("wiresum: %s", why)
            self._complain(self.epoch, why)
        elif self._returning is not None:
            self._returning.lost()
        return True

    def leave_switch(self, epoch: int, why: str) -> None:
        """All ranks leave the switch that they have used in ``epoch``. Returns at once."""
        with self._lock:
            if epoch in self._left or self._closed or self._sums is None:
                return
            self._left.add(epoch)
            if self.carrier == SWITCH:
                self._start_leaving(why)
            # Else it is on the way to that lease: see _settle.

    def prefer(self, carrier: str, why: str) -> None:
        """All ranks have chosen what is to carry from now on: the ranks, for the reason ``why``,
        or the switch as soon as there is one. Returns at once.

        All ranks call it with the same choices at the same collectives, before an engine has these,
        under the relay's lock.
        """
        with self._lock:
            self.chosen_at = self._relay.taken + 1
            self._chosen = why if carrier == RANKS else ""
            if self._returning is not None:
                self._returning.hold(bool(self._chosen))
            if self._chosen and self.carrier == SWITCH and self._sums and not self._closed:
                self._left.add(self.epoch)
                self._start_leaving(self._chosen, lost=False)
            # Else it is on the way to a lease, maybe: see _settle.

    @property
    def rests_from_switch(self) -> bool:
        """Whether the ranks carry because all have chosen so, and no lease is on its way.

        So it is from the choice on: the others may have to get there first.
        """
        with self._lock:
            returning = self._returning
            chosen = self.carrier == RANKS and bool(self._chosen)
            return chosen and (returning is None or returning.rests)

    def _start_leaving(self, why: str, *, lost: bool = True) -> None:
        self.carrier, self.why = RANKS, why
        threading.Thread(
            target=self._leave, args=(why, lost), name="wiresum-handover", daemon=True
        ).start()

    def _settle(self, epoch: int) -> None:
        """The switch carries from now on, under the lease of ``epoch``."""
        with self._lock:
            self.carrier, self.why = SWITCH, ""
            if self._closed:
                return
            if epoch in self._left:
                self._start_leaving("another rank has lost the switch")
            elif self._chosen:
                self._left.add(epoch)
                self._start_leaving(self._chosen, lost=False)

    def _leave(self, why: str, lost: bool) -> None:
        """Hand over to the ranks, after a loss of the switch or because all have chosen so."""
        relay = self._relay
        assert self._sums is not None
        with self._moving:
            try:
                engine: Suspended = relay.stand()  # type: ignore[assignment]
                if not engine.suspend(why):
                    relay.go_on()
                    return
                rests = hand_over(engine, self._sums)
                (most,) = self._sums.largest([len(rests)])
                self._lost = lost
                ranks = self._carry(
                    *(rests, why, self._pause_s() if lost else 0.0), most_rests=most, loud=lost
                )
                self._falls += lost
            except Exception as error:
                self._fail(error, lines.NO_TAKE_OVER, why=why)
                return
            relay.take_over(ranks, moved=len(rests))

    def _carry(
        self,
        rests: Sequence[Rest],
        why: str,
        delay_s: float,
        *,
        most_rests: int = 0,
        loud: bool = True,
    ) -> RanksEngine:
        """The ranks' engine, which has begun with ``rests``."""
        assert self._sums is not None
        self.why = why
        ballot = Ballot()
        if self._rejoin is not None:
            after = 0 if self._returning is None else self._returning.round
            with self._lock:
                made = Return(
                    *(self._rejoin, after + 1, delay_s, self._arrived), held=bool(self._chosen)
                )
                ballot = self._returning = made
                closed = self._closed
            if closed:
                made.close()
        if self._rank == 0:
            level = logging.WARNING if loud else logging.INFO
            whose = f" ({self._label})" if self._label else ""
            log.log(level, "wiresum: the ranks sum without the switch%s: %s", whose, why)
        return RanksEngine(
            *(self._sums, self._workers, self._field),
            rests=rests,
            most_rests=most_rests,
            ballot=ballot,
        )

    def _pause_s(self) -> float:
        """How long the ranks carry at least: longer each time that they had to."""
        return min(FIRST_PAUSE_S * 2.0**self._falls, LONGEST_PAUSE_S)

    def _fail(self, error: Exception, line: Line, **parts: str) -> None:
        """End all collectives with ``line`` while the relay stands: no carrier can go on."""
        kind = type(error) if isinstance(error, EngineError) else PeerLost
        said = line.of(line=one_line(str(error)) or type(error).__name__, **parts)
        log.debug("wiresum: %s", said, exc_info=error)
        self._relay.fail(kind.__name__, said)
        self._relay.go_on()

    # -- back to the switch -------------------------------------------------------------------

    def _arrived(self, joined: Joined) -> None:
        """All ranks have a lease, and this collective was the last that they carry."""
        relay = self._relay
        with self._moving:
            ranks = relay.stand()
            assert isinstance(ranks, RanksEngine)
            try:
                self._returned(joined)
                again = ranks.give_back()
            except Exception as error:
                joined.drop()
                self._fail(error, lines.NO_RETURN)
                return
            relay.take_over(joined.engine, again=again)
            self._settle(joined.epoch)
        if self._rank == 0:
            # A group of some of the ranks always begins without.
            usual = not self._lost or (self._label and self._falls == 1)
            level = logging.INFO if usual else logging.WARNING
            whose = f" ({self._label})" if self._label else ""
            log.log(
                level,
                "wiresum: the switch sums%s%s",
                "" if level == logging.INFO else " again",
                whose,
            )

    @property
    def has_lease(self) -> bool:
        """Whether the switch carries, or will after the next collective of all ranks."""
        returning = self._returning
        return self.carrier == SWITCH or (returning is not None and returning.has_lease)

    @property
    def epoch(self) -> int:
        """Of the lease in use; 0 while the ranks carry."""
        return _epoch_of(self._relay.engine)

    def close(self) -> None:
        """Stop returning. What is on its way ends with the relay."""
        with self._lock:
            self._closed = True
            returning = self._returning
        if returning is not None:
            returning.close()


def _epoch_of(engine: EngineFace) -> int:
    return int(getattr(engine, "epoch", 0))
