"""A worker of a group of some of the ranks, which gets a part of the job of all ranks.

A group costs nothing until its first collective. From then on it has what any joined worker has: a
link between its ranks, the ranks as a carrier, and a job of its own, whose slots are taken from
those of the whole job. It begins on the ranks, in the background, so that ranks may issue the first
collectives of several groups in any order; the search for its part goes on beside the training
(:mod:`.search`), and the way to the switch is the same as after a loss of it (:mod:`.returning`).

A run that insists on the switch joins when the group is made.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from wiresum.common.errors import WiresumError
from wiresum.common.logs import one_line
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.agent import Agent, Held, JobGone, meet
from wiresum.host_agent.agent.carriers import ASKED_FOR
from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.agent.join import Membership
from wiresum.host_agent.agent.peers.judge import listed, with_numbers
from wiresum.host_agent.agent.relay import RefusingEngine
from wiresum.host_agent.agent.sums import Sums
from wiresum.host_agent.agent.worker import Departure, Part, PartOfWhole, Worker
from wiresum.host_agent.errors import CollectiveTimeout, EngineError, PeerLost

log = logging.getLogger("wiresum")

_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.001, 0.05
BEGINS = "a group begins over its ranks, and asks for a part of the job's lease"


class NoWhole:
    """For a group of a run whose default group is another backend's: see ``worker.Whole``."""

    ended = None

    def lends(self) -> None:
        """There is no job of all ranks."""

    def add_part(self, _part: PartOfWhole) -> None:
        """Nobody hears of ranks that are gone before the group has its own link."""


class PartAgent(Agent):
    """A worker of a group. See :class:`~wiresum.host_agent.agent.agent.Agent`."""

    _group: Group | None = None
    _began = False

    @classmethod
    def of(cls, worker: Worker) -> "PartAgent":
        """A worker that begins with the group's first collective.

        In a run that insists on the switch it joins now, and waits for the other ranks. Raises
        ``WiresumError`` in one line.
        """
        if worker.may_leave_switch:
            where = worker.where
            why = BEGINS if where.controller else where.fallback or ASKED_FOR
            made = cls(worker, None, None, None, why)
        else:
            made = cls.join(worker)  # type: ignore[assignment]
        made._part.whole.add_part(made)
        return made

    @property
    def _part(self) -> Part:
        assert self._worker.part is not None
        return self._worker.part

    def watch(self, group: Group) -> None:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        self._group = group
        super().watch(group)

    def check(self) -> None:
        """See :class:`Agent`; a job that has ended has ended for its parts, too."""
        super().check()
        ended = self._part.whole.ended
        if ended is not None:
            raise type(ended)(str(ended))

    # -- the beginning ------------------------------------------------------------------------

    def begin(self, make_sums: Callable[[], Sums]) -> None:
        """The group's first collective is issued: begin in the background, with these sums."""
        with self._lock:
            if self._began or self._closed:
                return
            self._began = True
        threading.Thread(
            target=self._begin, args=(make_sums,), name="wiresum-group", daemon=True
        ).start()

    def _begin(self, make_sums: Callable[[], Sums]) -> None:
        try:
            if not self._all_have_begun():
                return
            meeting = meet(self._worker)
            if meeting is not None:
                peers = self._meet(meeting)
                with self._lock:
                    closed = self._closed
                    if not closed:
                        self._peers = peers
                if closed:
                    peers.leave()
                    return
                if self._group is not None:
                    peers.watch(self._group)
            self.use_ranks(make_sums())
        except Exception as error:
            log.debug("wiresum: a group cannot begin", exc_info=True)
            if not isinstance(error, EngineError):
                line = one_line(str(error)) or type(error).__name__
                error = EngineError(lines.GROUP_NOT_BEGUN.of(group=self.label, why=line))
            self._end(error)

    def _all_have_begun(self) -> bool:
        """Wait for the other ranks' first collectives; false if this rank leaves meanwhile.

        Nothing of this rank's is blocked by that: another rank may have to do something else first,
        together with this one.
        """
        worker = self._worker
        keys = [f"{worker.key}/begun/{rank}" for rank in range(worker.workers)]
        worker.store.set(keys[worker.rank], "")
        deadline, look = time.monotonic() + worker.collective_s, _SHORTEST_LOOK_S
        while not worker.store.check(keys):
            with self._lock:
                if self._closed or self._gone is not None:
                    return False
            if time.monotonic() > deadline:
                pairs = zip(self._part.members, keys, strict=True)
                missing = [rank for rank, key in pairs if not worker.store.check([key])]
                named = f"rank{'s' if len(missing) > 1 else ''} {listed(missing)}"
                raise CollectiveTimeout(
                    lines.NOT_BEGUN.of(seconds=worker.collective_s, missing=named, group=self.label)
                )
            time.sleep(look)
            look = min(1.3 * look, _LONGEST_LOOK_S)
        return True

    def _end(self, error: WiresumError, *, fallback: bool = True) -> None:
        """The group cannot begin: what waits, and all that comes, ends with ``error``.

        ``fallback``: what is in flight there, too.
        """
        with self._lock:
            if self._gone is not None or self._closed:
                return
            self._gone = error
        self.engine.take_over(RefusingEngine(error))
        if self._group is not None and fallback:
            self._group.abort(error)

    def rank_is_gone(self, gone: Departure) -> None:
        """See :class:`~wiresum.host_agent.agent.worker.PartOfWhole`.

        Once the group has a link of its own, that is what tells.
        """
        if gone.rank not in self._part.members or self._peers is not None:
            return
        # Of the fallback's collectives, one that has left has done its part.
        died = gone.after is None
        self._end(PeerLost(gone.line(f"; {self.label} cannot begin")), fallback=died)

    def _lost_peer(self, error: EngineError) -> None:
        # The group's link knows its ranks by their numbers in the group.
        super()._lost_peer(type(error)(with_numbers(str(error), self._part.members)))

    # -- its part of the job ------------------------------------------------------------------

    def _rejoin(self, round: int) -> Held:
        """A part may end while its group trains, with the attempt of the whole job: each round
        takes the one that the group has, or a new one."""
        found = Membership(replace(self._worker, round=round), self._search)
        found.release_worker = self._worker
        with self._lock:
            old, beats = self._membership, self._heartbeats
            closed = self._closed
            if not closed:
                self._adopt(found)
        if closed:
            found.drop()
            raise JobGone(lines.WORKER_LEAVES.of())
        if beats is not None:
            beats.stop()
        if old is not None:
            old.client.close()
        return self._join_as(found.twin())

    def _report(self) -> pb.RankReport:
        """Of this group alone, in pieces: what other groups of a rank do makes it no straggler."""
        report = super()._report()
        report.started, report.ended = self.engine.asked, self.engine.ended
        report.fallback, report.in_flight_s, report.exposed_s = 0, 0.0, 0.0
        return report

    def close(self) -> None:
        """See :class:`Agent`."""
        with self._lock:
            searches = self._began and not self._closed and self._membership is None
        if searches:
            # Rank 0 may have the part already, and waits for all ranks before it gives it back.
            with contextlib.suppress(Exception):  # the store went first
                Membership.count_out(self._worker)
        super().close()

    def _over_for_good(self) -> bool:
        return self._superseded
