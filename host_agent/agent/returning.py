"""Back from the ranks to the switch: all ranks get a new lease, and go over after one collective.

This takes rounds. In each, every rank joins the job again, in the background; the controller hands
out leases once all ranks have joined and the switch holds the entries. With every collective the
ranks compare where they are. When all have a lease of one epoch, that collective is the last that
the ranks carry. When one of them has failed, all give the round up, and wait longer before the
next. While the ranks are to carry, though there is a switch, all of this is held.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent.ballot import Ballot
from wiresum.host_agent.agent.face import EngineFace

log = logging.getLogger("wiresum")

LONGEST_REST_S = 60.0
"""Between two rounds, after many that have failed; seconds."""

_FIRST_REST_S = 1.0
_NONE = -(1 << 31)


class Joined(Protocol):
    """A lease in hand, with an engine that has done nothing yet."""

    @property
    def epoch(self) -> int:
        """The lease's."""

    @property
    def engine(self) -> EngineFace:
        """The engine."""

    def drop(self) -> None:
        """It is not used: close the engine."""


class Return(Ballot):
    """The rounds of one rank, from one loss of the switch until its return."""

    size = 4

    def __init__(
        self,
        join: Callable[[int], Joined],
        first_round: int,
        delay_s: float,
        arrived: Callable[[Joined], None],
        *,
        held: bool = False,
    ) -> None:
        """Begin ``first_round`` in ``delay_s`` seconds; once it is not ``held`` any more.

        ``join(round)`` gets a lease, together with the other ranks; it blocks, and raises
        ``WiresumError``. ``arrived`` gets the lease once all have one, on the thread that carries.
        """
        self.round = first_round
        self._join = join
        self._arrived = arrived
        self._lock = threading.Condition()
        self._joined: Joined | None = None
        self._failed = False
        self._over = False
        self._agreed = False  # to go over, all ranks
        self._failures = 0
        self._held = held
        self._joining = False
        self._tried = first_round - 1
        self._delay_s = delay_s
        threading.Thread(target=self._run, name="wiresum-return", daemon=True).start()

    def words(self) -> Sequence[int]:
        """(1 without a lease, a round that has failed or 0, epoch, its complement)."""
        with self._lock:
            if self._joined is None or self._held:
                return 1, self.round if self._failed else 0, _NONE, _NONE
            epoch = _signed(self._joined.epoch)
            return 0, 0, epoch, ~epoch

    def counted(self, largest: Sequence[int]) -> bool:
        """See :class:`~wiresum.host_agent.agent.ballot.Ballot`."""
        without, failed, epoch, complement = largest
        with self._lock:
            if failed < self.round and (without or epoch == ~complement):
                self._agreed = not without
                return self._agreed
            # A rank has failed, or the leases are of different epochs.
            self._give_up()
            return False

    def stopped(self) -> None:
        """See :class:`~wiresum.host_agent.agent.ballot.Ballot`."""
        with self._lock:
            joined, self._joined = self._joined, None
            self._over = True
            self._lock.notify_all()
        if joined is not None:  # else it has been closed meanwhile
            self._arrived(joined)

    def lost(self) -> None:
        """The lease in hand, if there is one, has ended: this round has failed.

        Not once all ranks have agreed to go over: the others do, and only there can leave again.
        """
        with self._lock:
            if self._joined is not None and not self._agreed:
                self._joined.drop()
                self._joined, self._failed = None, True

    def hold(self, held: bool) -> None:
        """Begin no round, and do not go over, while ``held``: the ranks are to carry."""
        with self._lock:
            self._held = held
            self._lock.notify_all()

    @property
    def rests(self) -> bool:
        """Whether it is held, without a lease in hand or on its way."""
        with self._lock:
            return self._held and self._joined is None and not self._joining

    @property
    def has_lease(self) -> bool:
        """Whether a lease is in hand, to be used."""
        with self._lock:
            return self._joined is not None and not self._held

    def close(self) -> None:
        """Begin no round any more, and drop a lease in hand."""
        with self._lock:
            self._over = True
            joined, self._joined = self._joined, None
            self._lock.notify_all()
        if joined is not None:
            joined.drop()

    # ----

    def _give_up(self) -> None:
        if self._joined is not None:
            self._joined.drop()
        self._joined, self._failed = None, False
        self._failures += 1
        self.round += 1
        self._delay_s = min(_FIRST_REST_S * 2.0**self._failures, LONGEST_REST_S)
        self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(
                    lambda: self._over or (self.round > self._tried and not self._held)
                )
                if self._lock.wait_for(lambda: self._over, self._delay_s):
                    return
                current = self.round
                self._joining = True
            joined: Joined | None = None
            try:
                joined = self._join(current)
            except WiresumError as error:
                log.debug("wiresum: no way back to the switch: %s", error)
            except Exception:
                log.warning("wiresum: no way back to the switch", exc_info=True)
            with self._lock:
                self._tried = current
                self._joining = False
                late = self._over or self.round != current
                if not late:
                    self._joined, self._failed = joined, joined is None
            if late and joined is not None:
                joined.drop()


def _signed(epoch: int) -> int:
    return epoch - (1 << 32) if epoch >= 1 << 31 else epoch
