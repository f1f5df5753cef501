"""Who gets the slots of parked jobs, and how these get them back, as a pure function."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.controller.scheduling.packing import Holding
from wiresum.controller.scheduling.scheduling import (
    PARKED,
    Account,
    Decisions,
    Shrunk,
    Standing,
    SwitchView,
    Wish,
    decide,
)
from wiresum.controller.state.model import MIN_SLOTS, SlotRange

TOTAL = 1024


@dataclass
class Lease:
    range: SlotRange
    target: int
    priority: int = 0
    admitted: float = 0.0
    least: int = MIN_SLOTS
    parked: bool = False
    lent: float = 0.0


@dataclass
class Switch:
    """One switch, on which every change is made as soon as it is asked for, unless told to wait."""

    leases: dict[str, Lease] = field(default_factory=dict)
    clock: float = 1.0
    asked: list[tuple[str, int, str]] = field(default_factory=list)
    """The changes so far: job, slots, reason."""

    def round(self, *wishes: Wish) -> Decisions:
        self.clock += 1
        decided = decide(
            [
                SwitchView(
                    "s1",
                    TOTAL,
                    tuple((job, each.range) for job, each in self.leases.items()),
                    tuple(
                        Holding(
                            job,
                            each.range,
                            each.least,
                            PARKED if each.parked else each.priority,
                            True,
                            each.admitted,
                        )
                        for job, each in self.leases.items()
                    ),
                    frozenset(range(1, 1 + len(self.leases))),
                )
            ],
            wishes,
            [
                Shrunk(job, "s1", each.priority, each.range, each.target, each.lent)
                for job, each in self.leases.items()
                if each.range.slots < each.target and not each.parked
            ],
            {"a": Account()},
        )
        for change in decided.changes:
            self.asked.append((change.job, change.range.slots, change.reason))
            self.leases[change.job].range = change.range
        for grant in decided.grants:
            (wish,) = [each for each in wishes if each.job == grant.job]
            self.leases[grant.job] = Lease(
                grant.range, grant.range.slots, wish.priority, self.clock
            )
        self.check()
        return decided

    def rounds(self, *wishes: Wish) -> None:
        """Until nothing more happens."""
        left = list(wishes)
        for _ in range(40):
            decided = self.round(*left)
            left = [wish for wish in left if wish.job not in self.leases]
            if not decided.changes and not decided.grants:
                return
        raise AssertionError(f"leases never come to rest: {self.asked}")

    def park(self, job: str) -> None:
        lease = self.leases[job]
        if not lease.lent or lease.range.slots >= lease.target:
            lease.lent = self.clock
        lease.parked = True

    def check(self) -> None:
        held = [each.range for each in self.leases.values()]
        assert all(0 <= each.base < each.end <= TOTAL for each in held)
        assert sum(each.slots for each in held) <= TOTAL
        assert not any(a.overlaps(b) for n, a in enumerate(held) for b in held[:n])
        for each in self.leases.values():
            assert each.least <= each.range.slots <= each.target

    def sizes(self) -> dict[str, int]:
        return {job: each.range.slots for job, each in self.leases.items()}


def full(**more: object) -> Switch:
    return Switch({"run": Lease(SlotRange(0, TOTAL), TOTAL, **more)})  # type: ignore[arg-type]


def wish(job: str, slots: int, priority: int = 0, *sizes: int) -> Wish:
    return Wish(job, "a", priority, (slots, *sizes))


def test_a_parked_job_keeps_its_slots_until_somebody_wants_them() -> None:
    switch = full()
    switch.park("run")
    switch.rounds()
    assert (switch.sizes(), switch.asked) == ({"run": TOTAL}, [])
    switch.leases["run"].parked = False
    switch.rounds()
    assert switch.asked == []


def test_anybody_may_have_the_slots_of_a_parked_job_down_to_its_least() -> None:
    switch = full(priority=9)
    assert switch.round(wish("low", 512, -5)).standings == {"low": Standing.FULL}
    switch.park("run")
    switch.rounds(wish("low", 512, -5))
    assert switch.asked == [("run", 512, "while the job is parked")]
    for slots in (256, 128):
        switch.rounds(wish(f"more{slots}", slots, -5))
    assert switch.sizes() == {"run": 128, "low": 512, "more256": 256, "more128": 128}
    switch = full(least=512)
    switch.park("run")
    switch.rounds(wish("half", 512), wish("more", 16))
    assert switch.sizes() == {"run": 512, "half": 512}


def test_those_that_were_admitted_since_give_the_slots_back() -> None:
    switch = full()
    switch.park("run")
    switch.rounds(wish("guest", 512))
    switch.leases["run"].parked = False
    switch.rounds()
    assert switch.sizes()["run"] == 512, "as much as there is in one range beside the guest"
    one, other = (Lease(SlotRange(base, 512), 512) for base in (0, 512))
    switch = Switch({"run": one, "other": other})
    switch.park("run")
    switch.rounds(wish("guest", 256))
    assert switch.sizes() == {"run": 256, "other": 512, "guest": 256}
    switch.leases["run"].parked = False
    switch.rounds()
    assert switch.sizes()["other"] == 512, "who was there before is not disturbed"


def test_a_guest_shrinks_for_the_host_that_is_back() -> None:
    switch = Switch({"run": Lease(SlotRange(0, 512), 512), "old": Lease(SlotRange(512, 256), 256)})
    switch.park("run")
    switch.rounds(wish("guest", 512))
    assert switch.sizes() == {"run": 256, "old": 256, "guest": 512}
    switch.leases["run"].parked = False
    switch.rounds()
    assert switch.sizes() == {"run": 512, "old": 256, "guest": 256}
    assert [reason for job, _, reason in switch.asked if job == "guest"] == [
        "for a job that was parked, and is back"
    ]


def test_a_job_of_higher_priority_keeps_what_it_got() -> None:
    switch = full()
    switch.park("run")
    switch.rounds(wish("high", 512, 3))
    switch.leases["run"].parked = False
    switch.rounds()
    assert switch.sizes() == {"run": 512, "high": 512}
    # Whoever was there before and is equal is not disturbed, either.
    switch = Switch({"run": Lease(SlotRange(0, 512), 512), "old": Lease(SlotRange(512, 512), 512)})
    switch.leases["run"] = replace(switch.leases["run"], range=SlotRange(0, 256), lent=5.0)
    switch.leases["high"] = Lease(SlotRange(256, 256), 256, 3, 6.0)
    switch.rounds()
    assert switch.sizes() == {"run": 256, "old": 512, "high": 256}


def test_a_job_that_was_shrunk_takes_the_slots_of_a_parked_one_and_of_no_other() -> None:
    switch = Switch(
        {
            "small": Lease(SlotRange(0, 256), 512),
            "run": Lease(SlotRange(256, 256), 256),
            "other": Lease(SlotRange(512, 512), 512),
        }
    )
    switch.rounds()
    assert switch.sizes()["small"] == 256
    switch.park("run")
    switch.rounds()
    assert switch.sizes() == {"small": 256, "run": 256, "other": 512}, "512 in a row are not there"
    switch.park("other")
    switch.rounds()
    assert switch.sizes()["small"] == 512
    assert {reason for *_, reason in switch.asked} == {"while the job is parked", "to grow back"}


def test_two_jobs_take_turns() -> None:
    switch = Switch({"a": Lease(SlotRange(0, 512), 1024), "b": Lease(SlotRange(512, 512), 1024)})
    for turn in range(6):
        busy, idle = ("a", "b") if turn % 2 else ("b", "a")
        switch.leases[busy].parked = False
        switch.park(idle)
        switch.rounds()
        assert switch.sizes()[busy] == 512, "1024 are never in one range beside another job"
    switch = Switch({"a": Lease(SlotRange(0, 512), 512), "b": Lease(SlotRange(512, 256), 512)})
    for turn in range(6):
        busy, idle = ("a", "b") if turn % 2 else ("b", "a")
        switch.leases[busy].parked = False
        switch.park(idle)
        switch.rounds()
        assert switch.sizes()[busy] == 512


@settings(max_examples=examples(60))
@given(data=st.data())
def test_leases_come_to_rest_and_all_is_given_back(data: st.DataObject) -> None:
    """Whatever is parked and unparked; and without guests every job has what it had."""
    switch = Switch()
    for base in range(0, TOTAL, 256):
        priority = data.draw(st.integers(0, 1))
        switch.leases[f"j{base}"] = Lease(SlotRange(base, 256), 256, priority)
    hosts = sorted(switch.leases)
    for number in range(data.draw(st.integers(1, 8))):
        job = data.draw(st.sampled_from(hosts))
        if data.draw(st.booleans()):
            switch.park(job)
        else:
            switch.leases[job].parked = False
        if data.draw(st.booleans()):
            slots = data.draw(st.sampled_from([16, 64, 128, 256]))
            switch.rounds(wish(f"guest{number}", slots, data.draw(st.integers(0, 1))))
        else:
            switch.rounds()
    for job in set(switch.leases) - set(hosts):
        del switch.leases[job]
    for job in hosts:
        switch.leases[job].parked = False
    switch.rounds()
    assert switch.sizes() == dict.fromkeys(hosts, 256)
