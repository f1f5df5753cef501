"""Decides which job gets slots next: a pure function of the jobs that hold slots and of the queue.

Jobs are served in one order: higher priority first; of one priority, jobs that were shrunk before
jobs in the queue; of these, one job of each tenant in turn, in their order of arrival. Each gets a
free range, or other jobs make room for it where that is possible. The first job for which neither
is possible reserves a range, the one in which the fewest slots are held: no job behind it gets
slots there, so that it becomes free at last, however many small jobs come.

Parts of a job get what that job and its other parts give up (``parts.py``), before others of its
priority.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wiresum.controller.scheduling.packing import Holding, Move, Room, emptiest, make_room
from wiresum.controller.scheduling.parts import NUMBERS_FOR_PARTS, Family, give_up
from wiresum.controller.scheduling.slots import allocate, lowest_free_number
from wiresum.controller.state.model import MIN_SLOTS, SlotRange
from wiresum.p4 import packet

PARKED = -(1 << 31)
"""The priority of parked jobs: all others may have their slots."""

FOR_HIGHER = "for a job of higher priority"
"""The reason of a change that makes room for a job of higher priority."""

FOR_PART = "for a part of the job"
"""The reason of a change in which a job, or a part of it, makes room for another part."""

WHILE_PARKED = "while the job is parked"
"""The reason of a change by which a parked job makes room for any other."""

FOR_RETURN = "for a job that was parked, and is back"
"""The reason of a change by which a job gives back what a parked one has lent."""

# A round looks for room for so many jobs; the jobs behind them wait.
_TRIES = 16


@dataclass(frozen=True)
class SwitchView:
    """A switch: the slots that are held now, and those that will be when all changes are over."""

    name: str
    total: int
    held: tuple[tuple[str, SlotRange], ...]
    """Held now, with the job that holds it: both ranges of a job whose lease changes."""
    holdings: tuple[Holding, ...]
    numbers: frozenset[int]
    up: bool = True
    draining: bool = False


@dataclass(frozen=True)
class Wish:
    """A job that waits for slots."""

    job: str
    tenant: str
    priority: int
    sizes: tuple[int, ...]
    """The numbers of slots that it accepts, the best first."""
    switch: str = ""
    """Empty: any."""
    stays: bool = True
    """It waits if there is no room; otherwise it leaves at once."""
    present: bool = True
    """A caller is there to take the job. Without one, a job keeps its place, but gets no slots."""
    part_of: str = ""
    """The job that it is a part of: its slots are within that job's; empty: of none."""


@dataclass(frozen=True)
class Shrunk:
    """A job that has fewer slots than it was admitted with."""

    job: str
    switch: str
    priority: int
    range: SlotRange
    target: int
    lent: float = 0.0
    """When it was parked: those of its priority that were admitted since have its slots, and make
    way. 0: it never was."""


@dataclass(frozen=True)
class Account:
    """The limits and the usage of a tenant; a limit of 0 is none."""

    slot_quota: int = 0
    max_jobs: int = 0
    served: int = 0
    slots: int = 0
    jobs: int = 0


@dataclass(frozen=True)
class Grant:
    """A job gets its slots."""

    job: str
    switch: str
    number: int
    range: SlotRange


@dataclass(frozen=True)
class NewLease:
    """A job shall change over to other slots of its switch."""

    job: str
    range: SlotRange
    reason: str


class Standing(enum.Enum):
    """The standing of a job without slots."""

    COMING = "room is being made"
    FULL = "there is no room"
    QUOTA = "the tenant's slot quota is reached"
    JOBS = "the tenant's job limit is reached"
    BEHIND = "an earlier job of the tenant is first"
    SHARE = "its job has no slots to give"
    GROUPS = "the switch has no multicast group left for parts of jobs"


@dataclass
class Decisions:
    """The outcome of a round, to be carried out in this order."""

    grants: list[Grant] = field(default_factory=list)
    changes: list[NewLease] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    """Of the jobs that stay in the queue, in their order."""


def decide(
    switches: Iterable[SwitchView],
    wishes: Iterable[Wish],
    shrunk: Iterable[Shrunk],
    accounts: Mapping[str, Account],
    families: Iterable[Family] = (),
) -> Decisions:
    """Decide which jobs get slots now, and which leases change to make room.

    ``wishes`` of one tenant are in order of arrival; every tenant has an account, and every job
    of which a part is wished for a family. Of one priority, the families go first: what one of
    their members gives up is for the others.
    """
    kin = list(families)
    run = _Run([_Board(view) for view in switches], dict(accounts), kin)
    wishes = list(wishes)
    waiting = in_order((wish for wish in wishes if not wish.part_of), accounts)
    parts = [wish for wish in wishes if wish.part_of]
    # A job grows into what its parts leave.
    small = sorted(shrunk, key=lambda job: job.job in run.families)
    groups: tuple[Iterable[Wish | Shrunk | Family], ...] = (waiting, parts, small, kin)
    priorities = {each.priority for group in groups for each in group}
    for priority in sorted(priorities, reverse=True):
        for wish in parts:
            if wish.priority == priority:
                run.serve_part(wish)
        for job in small:
            if job.priority == priority:
                run.grow(job)
        for family in kin:
            if family.priority == priority:
                run.keep_for(family)
        for wish in waiting:
            if wish.priority == priority:
                run.serve(wish)
    return run.decisions


def in_order(wishes: Iterable[Wish], accounts: Mapping[str, Account]) -> list[Wish]:
    """Higher priority first; of one priority, one of each tenant in turn.

    The tenant that was served the longest ago begins.
    """
    queues: dict[tuple[int, str], list[Wish]] = {}
    for wish in wishes:
        queues.setdefault((-wish.priority, wish.tenant), []).append(wish)
    turns = [
        (priority, turn, accounts[tenant].served, tenant, wish)
        for (priority, tenant), queue in queues.items()
        for turn, wish in enumerate(queue)
    ]
    return [wish for *_, wish in sorted(turns, key=lambda each: each[:4])]


def _between(least: int, most: int) -> Iterator[int]:
    """The powers of two above ``least`` up to ``most``, which is one, the largest first."""
    while most > least:
        yield most
        most //= 2


class _Board:
    """A switch while decisions are being made."""

    def __init__(self, view: SwitchView) -> None:
        self.view = view
        self.held = list(view.held)
        self.holdings = list(view.holdings)
        self.numbers = set(view.numbers)
        self.reserved: list[SlotRange] = []
        self.load = sum(slots.slots for _, slots in self.held)
        self._free: dict[int, SlotRange | None] = {}
        """Free ranges by their size, until something changes: hundreds of jobs may ask for one."""

    def hold(self, job: str, range_: SlotRange) -> None:
        self.held.append((job, range_))
        self.load += range_.slots
        self._free.clear()

    def reserve(self, *ranges: SlotRange) -> None:
        self.reserved += ranges
        self._free.clear()

    def free_range(self, slots: int) -> SlotRange | None:
        if slots not in self._free:
            taken = [*(range_ for _, range_ in self.held), *self.reserved]
            self._free[slots] = allocate(taken, slots, self.view.total)
        return self._free[slots]

    def free_number(self) -> int | None:
        return lowest_free_number(self.numbers, 1, packet.JOBS - 1)

    def others_hold(self, job: str, range_: SlotRange) -> bool:
        return any(owner != job and range_.overlaps(taken) for owner, taken in self.held)

    def room(self, slots: int, priority: int, smaller: Sequence[Move] = ()) -> Room | None:
        """Room for so many slots, when the jobs that move ``smaller`` have done so."""
        if not self.view.up or self.free_number() is None:
            return None
        kept = {move.job: move.range for move in smaller}
        holdings = [
            replace(each, range=kept[each.job], movable=False) if each.job in kept else each
            for each in self.holdings
        ]
        return make_room(
            holdings, self.view.total, slots, priority=priority, reserved=self.reserved
        )

    def change(self, job: str, range_: SlotRange) -> None:
        """From now on the lease of the job is changing."""
        self.hold(job, range_)
        self.holdings = [
            replace(holding, range=range_, movable=False) if holding.job == job else holding
            for holding in self.holdings
        ]


class _Run:
    """One round of decisions."""

    def __init__(
        self,
        boards: Sequence[_Board],
        accounts: dict[str, Account],
        families: Iterable[Family] = (),
    ) -> None:
        self.boards = boards
        self.accounts = accounts
        self.families = {family.job: family for family in families}
        self._family_of = {
            member: family.job for family in self.families.values() for member in family.members
        }
        self._promised: Counter[str] = Counter()
        """Slots of each family for parts for which room is being made."""
        self.decisions = Decisions()
        self._held_up: set[tuple[str, int]] = set()
        self._range_is_kept = False
        self._tries = _TRIES

    def serve(self, wish: Wish) -> None:
        """Give the job its slots, or make room, or say why not."""
        sizes = self._allowed(wish)
        if not sizes:
            return
        boards = self._boards_for(wish)
        for slots in sizes:
            for board in boards:
                range_, number = board.free_range(slots), board.free_number()
                if range_ is not None and number is not None:
                    self._grant(wish, board, range_, number)
                    return
        for slots in sizes if self._tries else ():
            rooms = [
                (room.cost(board.holdings), place, board, room)
                for place, board in enumerate(boards)
                if (room := board.room(slots, wish.priority)) is not None
            ]
            if rooms:
                *_, board, room = min(rooms, key=lambda each: each[:2])
                self._make_room(wish, board, room)
                return
        self._tries = max(0, self._tries - 1)
        self.decisions.standings[wish.job] = Standing.FULL
        if wish.stays and not self._range_is_kept:
            self._keep_a_range(boards, sizes[-1])

    def serve_part(self, wish: Wish) -> None:
        """Give a part its slots, or let its family make room, or say why not.

        Unlike a job, it prefers the largest number that can be made free. Nobody gives up so much
        for a part that wants more than it needs that the part would have the larger share.
        """
        family = self.families[wish.part_of]
        board = self._board(family.switch)
        number = board.free_number()
        if number is None or len(board.numbers) >= NUMBERS_FOR_PARTS:
            self.decisions.standings[wish.job] = Standing.GROUPS
            return
        for slots in wish.sizes:
            range_ = board.free_range(slots)
            if range_ is not None and self._spare(family) >= slots:
                self._grant(wish, board, range_, number)
                return
            if self._tries and self._make_room_in(family, wish, slots):
                return
        self._tries = max(0, self._tries - 1)
        self.decisions.standings[wish.job] = Standing.SHARE

    def keep_for(self, family: Family) -> None:
        """Keep what a family may still get: no other job of its priority has it."""
        board = self._board(family.switch)
        spare = 0 if family.parked else self._spare(family)
        slots = 1 << spare.bit_length()
        while slots > MIN_SLOTS and spare >= MIN_SLOTS:
            slots //= 2
            while slots <= spare and (range_ := board.free_range(slots)) is not None:
                board.reserve(range_)
                spare -= slots

    def grow(self, job: Shrunk) -> None:
        """Give a shrunk job its slots back, or as many of them as are free."""
        board = self._board(job.switch)
        holding = next(each for each in board.holdings if each.job == job.job)
        if not board.view.up or not holding.movable:
            return
        most = job.target
        family = self.families.get(self._family_of.get(job.job, ""))
        if family is not None:
            theirs = job.range.slots + max(0, self._spare(family))
            most = min(most, 1 << (theirs.bit_length() - 1))
        for slots in _between(job.range.slots, most):
            around = SlotRange(job.range.base // slots * slots, slots)
            if board.others_hold(job.job, around) or any(
                around.overlaps(taken) for taken in board.reserved
            ):
                found = board.free_range(slots)
            else:
                found = around
            if found is not None:
                board.change(job.job, found)
                self.decisions.changes.append(NewLease(job.job, found, "to grow back"))
                return
            if self._reclaim(job, board, slots):
                return

    def _reclaim(self, job: Shrunk, board: _Board, slots: int) -> bool:
        """Let those make way that have a shrunk job's slots and no better right to them.

        These are the parked ones; and if it was parked itself and is back, those of lower priority,
        and those of its own that were admitted since.
        """
        parked = {each.job for each in board.holdings if each.priority == PARKED}
        if not self._tries or not (parked or job.lent):
            return False
        family = self._family_of.get(job.job)
        holdings = [
            replace(each, priority=job.priority - 1)
            if each.priority == job.priority
            and each.admitted >= job.lent
            and (family is None or self._family_of.get(each.job) != family)
            else each
            for each in board.holdings
            if each.job != job.job
        ]
        priority = job.priority if job.lent else PARKED + 1
        room = make_room(
            holdings,
            board.view.total,
            slots,
            priority=priority,
            reserved=board.reserved,
            own=job.range,
        )
        if room is None or (not job.lent and any(move.job not in parked for move in room.moves)):
            self._tries -= 1
            return False
        self._move(board, room, job.priority, FOR_RETURN)
        return True

    # ----

    def _board(self, name: str) -> _Board:
        return next(board for board in self.boards if board.view.name == name)

    def _spare(self, family: Family, *, after_changes: bool = False) -> int:
        """What nobody in a family has of its slots, now or when the changes under way are over."""
        board = self._board(family.switch)
        has = {each.job: each.range.slots for each in board.holdings if self._is_of(each, family)}
        if not after_changes:
            for job, range_ in board.held:
                if job in has:
                    has[job] = max(has[job], range_.slots)
        return family.admitted - sum(has.values()) - self._promised[family.job]

    def _is_of(self, holding: Holding, family: Family) -> bool:
        return self._family_of.get(holding.job) == family.job

    def _make_room_in(self, family: Family, wish: Wish, slots: int) -> bool:
        """Begin to make room for a part in its family, if that is possible."""
        board = self._board(family.switch)
        moves = give_up(
            [each for each in board.holdings if self._is_of(each, family)],
            family.job,
            slots - self._spare(family, after_changes=True),
            slots if slots > wish.sizes[-1] else 0,
        )
        if moves is None:
            return False
        room = board.room(slots, wish.priority, moves)
        if room is None:
            return False
        self._make_room(wish, board, Room(room.range, (*moves, *room.moves)))
        self._promised[family.job] += slots
        return True

    def _allowed(self, wish: Wish) -> tuple[int, ...]:
        """The sizes that the tenant's limits allow now; says so if there is none."""
        if (wish.tenant, wish.priority) in self._held_up:
            self.decisions.standings[wish.job] = Standing.BEHIND
            return ()
        account = self.accounts[wish.tenant]
        standing = None
        sizes = wish.sizes
        if account.max_jobs and account.jobs >= account.max_jobs:
            standing = Standing.JOBS
        elif account.slot_quota:
            left = account.slot_quota - account.slots
            sizes = tuple(slots for slots in wish.sizes if slots <= left)
            standing = None if sizes else Standing.QUOTA
        if standing is None:
            return sizes
        self.decisions.standings[wish.job] = standing
        if wish.stays:
            # Later jobs of the tenant would take the slots that this one waits for.
            self._held_up.add((wish.tenant, wish.priority))
        return ()

    def _boards_for(self, wish: Wish) -> list[_Board]:
        fitting = [
            board
            for board in self.boards
            if wish.switch in ("", board.view.name) and not board.view.draining
        ]
        # A switch that is down may come back at once, as after a restart, or never: jobs wait for
        # it only if they could wait for no other.
        up = [board for board in fitting if board.view.up]
        return sorted(up or fitting, key=lambda board: (board.load, board.view.name))

    def _grant(self, wish: Wish, board: _Board, range_: SlotRange, number: int) -> None:
        if not wish.present:
            board.reserve(range_)
            self.decisions.standings[wish.job] = Standing.COMING
            return
        board.hold(wish.job, range_)
        board.holdings.append(Holding(wish.job, range_, range_.slots, wish.priority, False))
        board.numbers.add(number)
        if wish.part_of:
            self._family_of[wish.job] = wish.part_of
        else:
            account = self.accounts[wish.tenant]
            self.accounts[wish.tenant] = replace(
                account, slots=account.slots + range_.slots, jobs=account.jobs + 1
            )
        self.decisions.grants.append(Grant(wish.job, board.view.name, number, range_))

    def _make_room(self, wish: Wish, board: _Board, room: Room) -> None:
        self.decisions.standings[wish.job] = Standing.COMING
        if wish.present:
            self._move(board, room, wish.priority, FOR_HIGHER, wish.part_of)
        else:
            board.reserve(room.range, *(move.range for move in room.moves))

    def _move(
        self, board: _Board, room: Room, priority: int, for_whom: str, part_of: str = ""
    ) -> None:
        """Begin with the moves whose destination is free already; the others follow.

        Room is made for a job of that ``priority``, or for a part of the job ``part_of``.
        """
        moved: set[str] = set()
        for move in room.moves:
            if move.job not in moved and not board.others_hold(move.job, move.range):
                before = next(each for each in board.holdings if each.job == move.job)
                gives = before.priority < priority or move.range.slots < before.range.slots
                reason = for_whom if gives else "to make room"
                if part_of and self._family_of.get(move.job) == part_of:
                    reason = FOR_PART
                elif before.priority == PARKED:
                    reason = WHILE_PARKED
                board.change(move.job, move.range)
                self.decisions.changes.append(NewLease(move.job, move.range, reason))
            moved.add(move.job)
        board.reserve(room.range, *(move.range for move in room.moves))

    def _keep_a_range(self, boards: Sequence[_Board], slots: int) -> None:
        for board in boards:
            ranges = [holding.range for holding in board.holdings]
            kept = emptiest(ranges, board.view.total, slots, board.reserved)
            if kept is not None:
                board.reserve(kept)
                self._range_is_kept = True
                return
