"""One worker in its job: it joins through the controller, owns the engine, and keeps the lease."""

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wiresum.common import logs
from wiresum.common.errors import WiresumError
from wiresum.controller.client import away
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent import parking
from wiresum.host_agent.agent.carriers import ASKED_FOR, RANKS, SWITCH, Carriers
from wiresum.host_agent.agent.change import Unused, change_lease
from wiresum.host_agent.agent.control import Heartbeats, NoJob, over
from wiresum.host_agent.agent.issued import Group
from wiresum.host_agent.agent.join import Membership, SwitchAway
from wiresum.host_agent.agent.network import local_address_towards
from wiresum.host_agent.agent.parking import Parking
from wiresum.host_agent.agent.peers.meeting import Meeting, arrange, find
from wiresum.host_agent.agent.peers.member import Gone, Member
from wiresum.host_agent.agent.peers.peers import Peers
from wiresum.host_agent.agent.plan import Search
from wiresum.host_agent.agent.progress import progress
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.agent.sums import Sums
from wiresum.host_agent.agent.tuning import ballot
from wiresum.host_agent.agent.tuning.ballot import Tuning
from wiresum.host_agent.agent.tuning.carrier import Decision, Why
from wiresum.host_agent.agent.tuning.wish import AUTO, parse
from wiresum.host_agent.agent.worker import PartOfWhole, Worker
from wiresum.host_agent.engine import Engine
from wiresum.host_agent.environment import AgentError
from wiresum.host_agent.errors import EngineError, PeerLost

log = logging.getLogger("wiresum")

ENDED_ON_PURPOSE = (pb.JOB_STATE_RELEASED, pb.JOB_STATE_EVICTED)
"""The job was ended on purpose; a run whose job has expired goes on without a switch."""


CHOSEN = "the ranks have chosen so: {why}"
"""Why the ranks carry in a run that is tuned."""

STAY_S = 5.0
"""How much longer than a switch may be silent a rank stays for others that lack its last sums;
seconds."""


class JobGone(AgentError):
    """The job was released, has expired, or a later attempt has replaced this worker."""


@dataclass
class Held:
    """A lease in hand, with an engine that has done nothing yet: ``returning.Joined``."""

    membership: Membership
    lease: pb.Lease
    engine: Engine

    @property
    def epoch(self) -> int:
        """The lease's."""
        return self.lease.epoch

    def drop(self) -> None:
        """It is not used: close the engine."""
        self.engine.close()
        self.membership.client.close()


class Agent:
    """A joined worker. Implements ``wiresum.host_agent.backend.agent_face.AgentFace``."""

    def __init__(
        self,
        worker: Worker,
        membership: Membership | None,
        held: Held | None,
        meeting: Meeting | None = None,
        why: str = ASKED_FOR,
    ) -> None:
        """Use :meth:`join`.

        ``membership`` is None where there is no job, ``held`` where there is no lease; ``why``
        says why not.
        """
        self._worker = worker
        self._membership = membership
        self._held = held
        self._why_ranks = why
        self._lease = held.lease if held is not None else None
        # A run that may not leave the switch can begin without the other ranks.
        leaves = worker.may_leave_switch
        self.tuning = self._tuning()
        """Chooses the field while the job trains; None where nobody has asked for that."""
        self.engine = Relay(None if leaves or held is None else held.engine, self.tuning)
        self._gone: WiresumError | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._changing: threading.Thread | None = None  # while it is under way
        self._parked = False  # because the ranks have chosen to carry
        self._joining: Membership | None = None  # again, in the background
        self._search = Search()
        self._wanted = self._lease.change if self._lease is not None else 0
        self._asked = self._lease
        self._state = 0  # of the job, as the controller has said last
        self._superseded = False
        self._carriers = Carriers(
            self.engine,
            worker.rank,
            worker.workers,
            worker.where.field,
            rejoin=self._rejoin if worker.where.controller else None,
            tell=self._tell_lost,
            returned=self._returned,
            tuned=self.tuning is not None,
            label=self.label,
        )
        self._parts: weakref.WeakSet[PartOfWhole] = weakref.WeakSet()
        self._parking = Parking(self._park)
        if self.tuning is not None and self._may_choose_carrier():
            self.tuning.carriers(
                (SWITCH, RANKS),
                carrier=lambda: self._carriers.carrier,
                prefer=self._prefer,
                # Parts of the job end with each attempt of it.
                is_free=lambda: not self._parts,
            )
        self._heartbeats: Heartbeats | None = None
        if membership is not None:
            self._adopt(membership)
        self._peers: Peers | None = None
        if meeting is not None:
            self._peers = self._meet(meeting)

    def _meet(self, meeting: Meeting) -> Peers:
        worker = self._worker
        return Peers(
            meeting,
            worker.workers,
            Member(
                worker.rank,
                self.engine,
                epoch=lambda: self._carriers.epoch,
                over=self._lost_peer,
                leave_switch=self._carriers.leave_switch if worker.may_leave_switch else None,
                heard_gone=self._heard_gone,
            ),
        )

    @classmethod
    def join(cls, worker: Worker) -> "Agent":
        """Join the job that ``worker.where`` names; returns with an engine.

        Waits for the other ranks, at most ``worker.join_s``. A run that may leave the switch is
        joined without a lease where the switch does not hold its entries, none has room, or the
        controller cannot be reached. Raises ``WiresumError`` in one line.
        """
        if not worker.where.controller:
            why = worker.where.fallback or ASKED_FOR
            return cls(worker, None, None, meet(worker), why)
        try:
            membership = Membership(worker)
        except NoJob as none:
            if not worker.may_leave_switch:
                raise
            return cls(worker, None, None, meet(worker), why=str(none))
        held, meeting, why = None, None, ""
        try:
            meeting = membership.arrange()
            try:
                held = Held(membership, *membership.join())
            except SwitchAway as away:
                why = str(away)
            meeting = meeting or membership.find()
        except BaseException:
            if meeting is not None:
                meeting.close()
            membership.client.close()
            raise
        if held is not None:
            _say_joined(worker, held)
        return cls(worker, membership, held, meeting, why)

    @property
    def label(self) -> str:
        """What logs call its group; empty for the group of all ranks."""
        part = self._worker.part
        return "" if part is None else part.label

    @property
    def leaves_switch(self) -> bool:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        return self._worker.may_leave_switch

    @property
    def begins_later(self) -> bool:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        return self._worker.part is not None and self._worker.may_leave_switch

    def begin(self, make_sums: Callable[[], Sums]) -> None:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        raise AssertionError("only the agent of a part begins later")

    @property
    def may_have_switch(self) -> bool:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        return bool(self._worker.where.controller)

    @property
    def collective_s(self) -> float:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        return self._worker.collective_s

    def use_ranks(self, sums: Sums) -> None:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        # A reason that the user asked for, or that the launcher has printed, is not a warning.
        fallback = self._worker.where.fallback
        known = self._why_ranks == ASKED_FOR or bool(fallback) != bool(self.label)
        self._carriers.begin(sums, self._held, self._why_ranks, loud=not known)
        self._held = None

    def check(self) -> None:
        """Raise why no collective can begin: :class:`JobGone`, or an error of the ranks."""
        if self._gone is not None:
            raise type(self._gone)(str(self._gone))

    def register(self, group: str) -> None:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        if self._worker.rank == 0:
            parking.register(group, self._parking)

    def _park(self, parked: bool) -> bool:
        """Tell the controller that others may have the slots, or that they are wanted."""
        with self._lock:
            membership = self._membership
            if membership is None or self._closed or self._gone is not None:
                return True
        try:
            job = membership.client.park_job(
                membership.plan.job, membership.plan.token, unpark=not parked
            )
        except ControllerError as error:
            log.debug("wiresum: the job is not %sparked: %s", "" if parked else "un", error)
            return not away(error)
        log.debug("wiresum: the job is %sparked: %d slots", "" if parked else "un", job.slots)
        return True

    def watch(self, group: Group) -> None:
        """See :class:`~wiresum.host_agent.backend.agent_face.AgentFace`."""
        if self._peers is not None:
            self._peers.watch(group)

    # -- for parts of its job: see worker.Whole ------------------------------------------------

    def lends(self) -> tuple[str, str] | None:
        """See :class:`~wiresum.host_agent.agent.worker.Whole`."""
        with self._lock:
            membership = self._membership
            if membership is None or self._closed or self._gone or not self._carriers.has_lease:
                return None
            return membership.plan.job, membership.plan.token

    def add_part(self, part: PartOfWhole) -> None:
        """See :class:`~wiresum.host_agent.agent.worker.Whole`."""
        with self._lock:
            self._parts.add(part)

    @property
    def ended(self) -> WiresumError | None:
        """See :class:`~wiresum.host_agent.agent.worker.Whole`."""
        return self._gone if isinstance(self._gone, JobGone) else None

    def _heard_gone(self, gone: Gone) -> None:
        with self._lock:
            parts = list(self._parts)
        for part in parts:
            part.rank_is_gone(gone)

    @property
    def carrier(self) -> str:
        """``switch`` or ``ranks``: what sums now."""
        return self._carriers.carrier

    def describe(self) -> dict[str, Any]:
        """The job and the lease in words, without secrets."""
        lease, membership, worker = self._lease, self._membership, self._worker
        state: dict[str, Any] = {
            "carrier": self._carriers.carrier,
            "why_ranks": self._carriers.why or None,
            "field": worker.where.field,
            "rank": worker.rank,
            "workers": worker.workers,
            "held": self.engine.held,
            "gone": None if self._gone is None else str(self._gone),
            "part_of_ranks": None if worker.part is None else list(worker.part.members),
            "peers": None if self._peers is None else self._peers.describe(),
        }
        if self.tuning is not None:
            state |= {"field": self.tuning.field, "tuning": self.tuning.describe()}
        if membership is not None:
            state |= {
                "controller": worker.where.controller,
                "job": membership.plan.job,
                "attempt": membership.plan.attempt,
            }
        if lease is not None:
            state |= {
                "change": lease.change,
                "number": lease.job,
                "epoch": lease.epoch,
                "switch": f"{lease.switch_name} ({lease.switch_ip}:{lease.switch_udp_port})",
                "slots": lease.slots,
                "lanes": lease.lanes,
            }
        return state

    def close(self) -> None:
        """Stop the engine and the heartbeats; release the job if this worker has made it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            joining = self._joining
        self._stay()
        self._parking.close()
        self._search.stop()
        self._carriers.close()
        if joining is not None and joining is not self._membership:
            joining.client.close()
        if self._heartbeats is not None:
            self._heartbeats.stop()
        if self._peers is not None:
            self._peers.leave()
        self.engine.close()
        if self._held is not None:
            self._held.engine.close()
        if self._membership is not None:
            self._membership.release()
            self._membership.client.close()  # ends calls that are waiting for their answers
        if self._heartbeats is not None:
            self._heartbeats.join(timeout_s=1.0)
        changing = self._changing
        if changing is not None:
            changing.join(timeout=1.0)

    def _stay(self) -> None:
        """Keep this rank's contributions until all ranks have what it has; see ``Peers.stay``."""
        ended = self.engine.ended
        if ended != self.engine.asked:
            return  # what it lacks itself ends with an error
        if self._peers is not None and self._worker.may_leave_switch and ended:
            self._peers.stay(ended, self._worker.switch_s + STAY_S)

    # -- heartbeats ---------------------------------------------------------------------------

    def _adopt(self, membership: Membership) -> None:
        """This worker has a job from now on."""
        membership.report = self._report
        self._terms = self._lease or membership.client.get_job(membership.plan.job)
        self._membership = membership
        self._heartbeats = self._new_heartbeats(membership)

    def _new_heartbeats(self, membership: Membership) -> Heartbeats:
        return Heartbeats(
            membership.plan.job,
            self._beat,
            lambda: self._lease or self._terms,
            self._heard,
            self._lost,
            loud=self._worker.rank == 0,
        )

    def _report(self) -> pb.RankReport:
        report = progress(self._worker.rank, self.engine.stats())
        report.carrier = self._carriers.carrier
        report.carrier_reason = self._carriers.why
        return report

    def _beat(self, wait_s: float, change: int) -> pb.HeartbeatResponse:
        membership = self._membership
        assert membership is not None
        self._asked = lease = self._lease
        settled = self._changing is None and self._carriers.carrier != RANKS and lease is not None
        epoch = lease.epoch if settled and lease is not None else 0
        answer = membership.heartbeat(wait_s, epoch=epoch, change=change)
        self._state = answer.state
        return answer

    def _heard(self, answer: pb.HeartbeatResponse) -> str | None:
        with self._lock:
            self._wanted = answer.change
            lease = self._lease
            carried = self._carriers.carrier == RANKS
            if self._changing is not None or lease is None or self._is_without_switch():
                return None
            # The answer to a call from before a change has the epoch of the lease before.
            if not carried and answer.epoch != lease.epoch and self._asked is lease:
                assert self._membership is not None
                self._superseded = True
                return lines.SUPERSEDED.of(
                    job=self._membership.plan.job,
                    present=answer.epoch,
                    rank=lease.rank,
                    epoch=lease.epoch,
                )
            if answer.change > lease.change:
                self._changing = threading.Thread(
                    target=self._make_changes, name="wiresum-change", daemon=True
                )
                self._changing.start()
        return None

    def _lost(self, why: str) -> None:
        with self._lock:
            if self._gone is not None:
                return
            if not self._over_for_good() and self._carriers.lost_lease(why):
                return
            self._gone = JobGone(why)
        log.warning("wiresum: %s", why)
        self.engine.close()  # what is in flight ends now, and with this reason

    def _over_for_good(self) -> bool:
        """Whether what has ended the lease ends the run: others go on without a switch."""
        return self._superseded or self._state in ENDED_ON_PURPOSE

    def _lost_peer(self, error: EngineError) -> None:
        """Let no collective begin any more; ``peers`` ends those in flight."""
        with self._lock:
            # A later error may say more than the first one.
            if self._gone is None or isinstance(self._gone, PeerLost):
                self._gone = error

    def _tuning(self) -> Tuning | None:
        where = self._worker.where
        if not where.tune or self._worker.part is not None:
            return None
        tuning = Tuning(parse(where.tune), self._worker.rank, self._worker.workers)
        ballot.begin(tuning)
        return tuning

    # -- changes of the carrier ---------------------------------------------------------------

    def _may_choose_carrier(self) -> bool:
        worker = self._worker
        asked = parse(worker.where.tune).carrier == AUTO
        has_switch = bool(worker.where.controller) and worker.may_leave_switch
        return asked and has_switch and worker.workers > 1

    def _prefer(self, decision: Decision) -> None:
        """All ranks have chosen a carrier; others may have the slots of a switch left for long."""
        self._carriers.prefer(decision.carrier, CHOSEN.format(why=decision.why.words))
        parked = decision.carrier == RANKS and decision.why is not Why.TRY
        if self._worker.rank == 0 and parked != self._parked:
            self._parked = parked
            self._parking.want(parked)

    def _tell_lost(self, epoch: int, why: str) -> bool:
        return self._peers is not None and self._peers.lost_switch(epoch, why)

    def _rejoin(self, round: int) -> Held:
        if self._membership is None:
            found = Membership(replace(self._worker, round=round), self._search)
            found.release_worker = self._worker
            with self._lock:
                if self._closed:
                    found.client.close()
                    raise AgentError(lines.WORKER_LEAVES.of())
                self._adopt(found)
            membership = found.twin()
        else:
            membership = self._membership.again(round)
        return self._join_as(membership)

    def _join_as(self, membership: Membership) -> Held:
        with self._lock:
            self._joining = membership  # so that closing ends its calls
            if self._closed:
                membership.client.close()
        try:
            return Held(membership, *membership.join())
        except BaseException:
            membership.client.close()
            raise

    def _returned(self, joined: Any) -> None:
        held: Held = joined
        with self._lock:
            old, self._membership = self._membership, held.membership
            held.membership.report = self._report
            self._lease, self._wanted = held.lease, held.lease.change
        if old is not None:
            with contextlib.suppress(ControllerError):
                old.client.close()
        if self._heartbeats is not None and self._heartbeats.ended:
            self._heartbeats = self._new_heartbeats(held.membership)
        _say_joined(self._worker, held)

    # -- changes of the lease -----------------------------------------------------------------

    def _make_changes(self) -> None:
        tried = 0
        while True:
            with self._lock:
                # A cancelled change is tried again if the next heartbeat still announces it.
                lease = self._lease
                assert lease is not None
                done = self._wanted <= max(tried, lease.change)
                if done or self._has_ended() or self._is_without_switch():
                    self._changing = None
                    return
                tried = self._wanted
            self._change(tried)

    def _change(self, number: int) -> None:
        before, worker, membership = self._lease, self._worker, self._membership
        assert before is not None
        assert membership is not None
        unused = self._carriers.rests_from_switch
        try:
            changed = change_lease(
                Unused(self._carriers.chosen_at) if unused else self.engine,
                membership,
                before,
                number,
                limit_s=worker.collective_s,
                stopped=lambda: (
                    self._has_ended()
                    or unused != self._carriers.rests_from_switch
                    or self._is_without_switch()
                ),
            )
        except WiresumError as error:
            if not self._has_ended():
                self._lost(self._why_over() or lines.CHANGE_FAILED.of(number=number, why=error))
            assert self._heartbeats is not None
            self._heartbeats.stop()
            return
        if changed is None or self._lease is not before:
            return
        self._lease = changed.lease
        if worker.rank == 0:
            log.info(
                "wiresum: the lease%s has %d slots now, %d before; collectives were held for "
                "%.3f s (change %d, epoch %d)",
                f" of {self.label}" if self.label else "",
                changed.lease.slots,
                before.slots,
                changed.held_s,
                number,
                changed.lease.epoch,
            )

    def _why_over(self) -> str | None:
        assert self._membership is not None
        try:
            return over(self._membership.heartbeat(), self._membership.plan.job)
        except ControllerError:
            return None

    def _is_without_switch(self) -> bool:
        """Whether the lease in hand is lost: the ranks carry, and have not chosen to."""
        return self._carriers.carrier == RANKS and not self._carriers.rests_from_switch

    def _has_ended(self) -> bool:
        return self._closed or self._gone is not None


def _say_joined(worker: Worker, held: Held) -> None:
    lease, job = held.lease, held.membership.plan.job
    logs.bind(job=job, rank=worker.rank, switch=lease.switch_name)
    log.info(
        "wiresum: rank %d of %d joined job %s on switch %s (%s:%d): epoch %d, %d slots",
        worker.rank,
        worker.workers,
        job,
        lease.switch_name,
        lease.switch_ip,
        lease.switch_udp_port,
        lease.epoch,
        lease.slots,
    )


def meet(worker: Worker) -> Meeting | None:
    """Where the ranks meet that have no job: rank 0's address towards their store."""
    if worker.workers == 1:
        return None
    key = f"{worker.key}/peers"
    if worker.rank != 0:
        return find(worker.store, key)
    host, _, port = worker.endpoint.rpartition(":")
    try:
        address = local_address_towards(host, int(port))
    except (OSError, ValueError):
        address = "127.0.0.1"
    return arrange(worker.store, key, address)
