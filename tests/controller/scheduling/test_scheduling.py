"""Who gets slots next, as a pure function."""

import random
from dataclasses import dataclass, field, replace

from wiresum.controller.scheduling.packing import Holding
from wiresum.controller.scheduling.scheduling import (
    Account,
    Decisions,
    NewLease,
    Shrunk,
    Standing,
    SwitchView,
    Wish,
    decide,
    in_order,
)
from wiresum.controller.state.model import SlotRange

TOTAL = 4096


def view(*holdings: Holding, name: str = "s1", **more: object) -> SwitchView:
    return SwitchView(
        name=name,
        total=TOTAL,
        held=tuple((holding.job, holding.range) for holding in holdings),
        holdings=holdings,
        numbers=frozenset(range(1, len(holdings) + 1)),
        **more,  # type: ignore[arg-type]
    )


def held(job: str, base: int, slots: int, priority: int = 0, low: int = 16) -> Holding:
    return Holding(job, SlotRange(base, slots), low, priority, True)


def wish(job: str, slots: int = 1024, tenant: str = "a", priority: int = 0, **more: object) -> Wish:
    return Wish(job, tenant, priority, (slots,), **more)  # type: ignore[arg-type]


def accounts(**given: Account) -> dict[str, Account]:
    return {name: given.get(name, Account()) for name in ("a", "b", "c")}


def granted(decisions: Decisions) -> dict[str, SlotRange]:
    return {grant.job: grant.range for grant in decisions.grants}


def test_the_order_of_the_queue() -> None:
    wishes = [
        wish("a1"), wish("a2"), wish("a3"), wish("b1", tenant="b"), wish("b2", tenant="b"),
        wish("c1", tenant="c"), wish("a9", priority=5), wish("b9", tenant="b", priority=5),
    ]  # fmt: skip
    served = accounts(a=Account(served=3), b=Account(served=1), c=Account(served=2))
    order = [each.job for each in in_order(wishes, served)]
    assert order == ["b9", "a9", "b1", "c1", "a1", "b2", "a2", "a3"]


def test_a_small_job_may_pass_but_never_for_ever() -> None:
    """Small jobs come and go for ever; the big one gets its slots nevertheless."""
    chance = random.Random(1)
    jobs = {f"old{n}": SlotRange(256 * n, 256) for n in range(16)}
    passed = 0
    for turn in range(5000):
        holdings = [Holding(job, place, place.slots, 0, False) for job, place in jobs.items()]
        wishes = [wish("big", 2048), wish(f"n{turn}", 256, tenant="b", stays=False)]
        decisions = decide([view(*holdings)], wishes, [], accounts())
        jobs |= granted(decisions)
        if "big" in jobs:
            break
        passed += f"n{turn}" in jobs
        jobs.pop(chance.choice(sorted(jobs)))
    assert "big" in jobs
    # Those behind it were not locked out of the rest of the switch meanwhile.
    assert passed > 10


def test_without_the_range_that_is_kept_the_big_one_starves() -> None:
    """The control: first come, first served among those that fit."""
    chance = random.Random(1)
    jobs = {f"old{n}": SlotRange(256 * n, 256) for n in range(16)}
    for turn in range(5000):
        holdings = [Holding(job, place, place.slots, 0, False) for job, place in jobs.items()]
        for each in (wish("big", 2048, stays=False), wish(f"n{turn}", 256, stays=False)):
            jobs |= granted(decide([view(*holdings)], [each], [], accounts()))
        jobs.pop(chance.choice(sorted(jobs)))
    assert "big" not in jobs


def test_higher_priority_shrinks_lower_and_moves_anyone() -> None:
    low = held("low", 0, 4096)
    decisions = decide([view(low)], [wish("high", 1024, priority=1)], [], accounts())
    assert decisions.changes == [
        NewLease("low", SlotRange(0, 2048), "for a job of higher priority")
    ]
    assert decisions.standings == {"high": Standing.COMING}
    # An equal does not.
    decisions = decide([view(low)], [wish("peer", 1024)], [], accounts())
    assert (decisions.changes, decisions.standings) == ([], {"peer": Standing.FULL})
    # Room by moving is made for anyone.
    scattered = [held(f"j{n}", 1024 * n, 16, priority=9) for n in range(4)]
    decisions = decide([view(*scattered)], [wish("new", 2048)], [], accounts())
    assert decisions.standings == {"new": Standing.COMING}
    assert {change.reason for change in decisions.changes} == {"to make room"}
    assert {change.job for change in decisions.changes} <= {f"j{n}" for n in range(4)}


def test_room_that_is_being_made_is_reserved() -> None:
    low = held("low", 0, 4096)
    wishes = [wish("high", 1024, priority=1), wish("small", 16, stays=False)]
    decisions = decide([view(low)], wishes, [], accounts())
    assert decisions.grants == []
    changed = replace(low, range=decisions.changes[0].range, movable=False)
    both = (("low", low.range), ("low", changed.range))
    later = replace(view(changed), held=both)
    assert decide([later], wishes, [], accounts()).grants == []
    # Once the slots are free, it comes first; what is left over is anybody's.
    decisions = decide([view(changed)], wishes, [], accounts())
    assert [grant.job for grant in decisions.grants] == ["high", "small"]


def test_an_absent_caller_keeps_its_place_but_gets_nothing() -> None:
    filler = held("filler", 0, 2048)
    wishes = [wish("gone", 2048, present=False), wish("here", 1024, tenant="b")]
    decisions = decide([view(filler)], wishes, [], accounts())
    assert decisions.grants == []
    assert list(decisions.standings) == ["gone", "here"]


def test_freed_slots_go_back_to_the_shrunk_job() -> None:
    small = Shrunk("low", "s1", 0, SlotRange(0, 256), 1024)
    alone = held("low", 0, 256)
    decisions = decide([view(alone)], [], [small], accounts())
    assert decisions.changes == [NewLease("low", SlotRange(0, 1024), "to grow back")]
    # As much as there is, in place or elsewhere.
    beside = held("other", 512, 256, priority=1)
    decisions = decide([view(alone, beside)], [], [small], accounts())
    assert decisions.changes == [NewLease("low", SlotRange(1024, 1024), "to grow back")]
    rest = [held("x", 1024, 1024), held("y", 2048, 2048)]
    decisions = decide([view(alone, beside, *rest)], [], [small], accounts())
    assert decisions.changes == [NewLease("low", SlotRange(0, 512), "to grow back")]
    # Before others of its priority that wait; after those of a higher one.
    full = [alone, held("x", 1024, 1024), held("y", 2048, 2048)]
    decisions = decide([view(*full)], [wish("peer", 512)], [small], accounts())
    assert [change.job for change in decisions.changes] == ["low"]
    assert decisions.grants == []
    decisions = decide([view(*full)], [wish("high", 512, priority=1)], [small], accounts())
    assert list(granted(decisions)) == ["high"]
    # Not while its lease cannot change.
    pinned = replace(alone, movable=False)
    assert decide([view(pinned)], [], [small], accounts()).changes == []
    assert decide([view(alone, up=False)], [], [small], accounts()).changes == []


def test_a_smaller_lease_is_as_large_as_the_free_range() -> None:
    sizes = (2048, 1024, 512, 256)
    each = Wish("j", "a", 0, sizes, stays=False)
    full = [held("x", 0, 2048), held("y", 2048, 1024), held("z", 3072, 512)]
    assert granted(decide([view(*full)], [each], [], accounts())) == {"j": SlotRange(3584, 512)}
    # Nobody is moved or shrunk as long as anything is free.
    low = replace(each, priority=1)
    assert decide([view(*full)], [low], [], accounts()).changes == []
    full.append(held("w", 3584, 512))
    decisions = decide([view(*full)], [low], [], accounts())
    assert decisions.standings == {"j": Standing.COMING}
    assert {change.job for change in decisions.changes} == {"x", "y"}
    assert decide([view(*full)], [each], [], accounts()).standings == {"j": Standing.FULL}


def test_limits_of_a_tenant() -> None:
    quota = accounts(a=Account(slot_quota=1024, slots=512))
    decisions = decide([view()], [wish("a1", 1024), wish("a2", 16)], [], quota)
    # Its small job does not pass its big one: it would take what that waits for.
    assert decisions.standings == {"a1": Standing.QUOTA, "a2": Standing.BEHIND}
    decisions = decide([view()], [wish("a1", 512), wish("a2", 16)], [], quota)
    assert list(granted(decisions)) == ["a1"]
    assert decisions.standings == {"a2": Standing.QUOTA}
    smaller = Wish("a1", "a", 0, (1024, 512, 256), stays=False)
    assert granted(decide([view()], [smaller], [], quota)) == {"a1": SlotRange(0, 512)}
    jobs = accounts(a=Account(max_jobs=1))
    decisions = decide([view()], [wish("a1"), wish("a2"), wish("b1", tenant="b")], [], jobs)
    assert list(granted(decisions)) == ["a1", "b1"]
    assert decisions.standings == {"a2": Standing.JOBS}


def test_which_switch() -> None:
    switches = [
        view(held("x", 0, 2048), name="s1"), view(name="s2", up=False),
        view(held("y", 0, 1024), name="s3"), view(name="s4", draining=True),
    ]  # fmt: skip
    (grant,) = decide(switches, [wish("j")], [], accounts()).grants
    assert (grant.switch, grant.number) == ("s3", 2)
    (grant,) = decide(switches, [wish("j", switch="s1")], [], accounts()).grants
    assert grant.switch == "s1"
    # Who needs more than is free waits for those that are up, unless it named the other.
    assert decide(switches, [wish("j", 4096)], [], accounts()).grants == []
    (grant,) = decide(switches, [wish("j", 4096, switch="s2")], [], accounts()).grants
    assert grant.switch == "s2"
    (grant,) = decide([view(name="s2", up=False)], [wish("j")], [], accounts()).grants
    assert grant.switch == "s2"
    assert decide(switches, [wish("j", switch="s4")], [], accounts()).grants == []
    # Room is made where that disturbs the fewest.
    both = [view(held("big", 0, 4096), name="s1"), view(held("p", 0, 2048), held("q", 2048, 2048),
            name="s2")]  # fmt: skip
    decisions = decide(both, [wish("j", 1024, priority=1)], [], accounts())
    assert [change.job for change in decisions.changes] == ["p"]


@dataclass
class World:
    """A switch on which jobs of three priorities come and go, and changes take a while."""

    seed: int
    chance: random.Random = field(init=False)
    jobs: dict[str, Holding] = field(default_factory=dict)
    targets: dict[str, int] = field(default_factory=dict)
    changing: dict[str, SlotRange] = field(default_factory=dict)
    waiting: list[Wish] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def decide(self) -> None:
        now = [(job, each.range) for job, each in self.jobs.items()]
        now += list(self.changing.items())
        holdings = [
            replace(
                each, range=self.changing.get(job, each.range), movable=job not in self.changing
            )
            for job, each in self.jobs.items()
        ]
        switch = SwitchView("s1", TOTAL, tuple(now), tuple(holdings), frozenset())
        shrunk = [
            Shrunk(job, "s1", each.priority, each.range, self.targets[job])
            for job, each in self.jobs.items()
            if each.range.slots < self.targets[job]
        ]
        decisions = decide([switch], self.waiting, shrunk, accounts())
        for grant in decisions.grants:
            (mine,) = [each for each in self.waiting if each.job == grant.job]
            self.jobs[grant.job] = Holding(grant.job, grant.range, 16, mine.priority, True)
            self.targets[grant.job] = grant.range.slots
            self.waiting.remove(mine)
        for change in decisions.changes:
            assert change.job not in self.changing
            assert change.range.slots >= 16
            self.changing[change.job] = change.range
        self.check()

    def check(self) -> None:
        """No slot is held by two, whether now or after the changes."""
        ranges = [(job, each.range) for job, each in self.jobs.items()] + list(
            self.changing.items()
        )
        for position, (job, one) in enumerate(ranges):
            for other, two in ranges[position + 1 :]:
                assert job == other or not one.overlaps(two), (job, one, other, two)

    def finish(self) -> None:
        job = self.chance.choice(sorted(self.changing))
        self.jobs[job] = replace(self.jobs[job], range=self.changing.pop(job))

    def step(self, number: int) -> None:
        what = self.chance.random()
        if what < 0.4 and len(self.waiting) < 12:
            slots = self.chance.choice([16, 64, 256, 512, 1024, 2048])
            priority = self.chance.choice([0, 0, 1, 2])
            tenant = self.chance.choice("abc")
            self.waiting.append(wish(f"j{number}", slots, tenant, priority))
        elif what < 0.7:
            if self.changing:
                self.finish()
        elif self.jobs:
            gone = self.chance.choice(sorted(self.jobs))
            for known in (self.jobs, self.targets, self.changing):
                known.pop(gone, None)  # type: ignore[attr-defined]
        self.decide()


def test_a_switch_that_is_shared_for_a_long_time() -> None:
    for seed in range(3):
        world = World(seed)
        for number in range(1500):
            world.step(number)
        assert world.jobs
        # When nobody comes any more, those who wait get their slots ...
        for _ in range(5000):
            if world.changing:
                world.finish()
            elif world.waiting:
                gone = sorted(world.jobs)[0]
                for known in (world.jobs, world.targets):
                    known.pop(gone)  # type: ignore[attr-defined]
            world.decide()
            if not world.waiting and not world.changing:
                break
        assert world.waiting == []
        # ... and when enough is free, everyone who was shrunk has what it had.
        while len(world.jobs) > 1:
            gone = sorted(world.jobs)[0]
            for known in (world.jobs, world.targets):
                known.pop(gone)  # type: ignore[attr-defined]
            world.decide()
            while world.changing:
                world.finish()
                world.decide()
        for job, each in world.jobs.items():
            assert each.range.slots == world.targets[job]
