"""Who gets which share of a job's slots: the job and its parts, as pure functions."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from wiresum.controller.scheduling.packing import Holding
from wiresum.controller.scheduling.parts import NUMBERS_FOR_PARTS, Family, give_up
from wiresum.controller.scheduling.scheduling import (
    Account,
    Decisions,
    Shrunk,
    Standing,
    SwitchView,
    Wish,
    decide,
)
from wiresum.controller.state.model import MIN_SLOTS, SlotRange
from wiresum.p4 import packet

TOTAL = 1024
POWERS = [16, 32, 64, 128, 256, 512, 1024]


@dataclass
class Switch:
    """The leases of one switch; changes of leases happen when the test says so."""

    admitted: int
    leases: dict[str, SlotRange] = field(default_factory=dict)
    coming: dict[str, SlotRange] = field(default_factory=dict)
    targets: dict[str, int] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    numbers: int = 0

    def decide(self, *wishes: Wish) -> Decisions:
        """One round, of which the grants happen at once."""
        after = self.leases | self.coming
        decided = decide(
            [
                SwitchView(
                    "s1",
                    TOTAL,
                    (*self.leases.items(), *self.coming.items()),
                    tuple(
                        Holding(job, range_, self.least[job], 0, job not in self.coming)
                        for job, range_ in after.items()
                    ),
                    frozenset(range(1, 1 + max(self.numbers, len(self.leases)))),
                )
            ],
            wishes,
            [
                Shrunk(job, "s1", 0, range_, self.targets[job])
                for job, range_ in self.leases.items()
                if range_.slots < self.targets[job]
            ],
            {"a": Account(), "b": Account()},
            [Family("run", "s1", 0, self.admitted, frozenset({"run"} | self.parts))],
        )
        for grant in decided.grants:
            self.has(grant.job, grant.range)
            if any(wish.job == grant.job and wish.part_of for wish in wishes):
                self.parts.add(grant.job)
        for change in decided.changes:
            self.coming[change.job] = change.range
        self.check()
        return decided

    def has(self, job: str, range_: SlotRange, least: int = MIN_SLOTS) -> None:
        self.leases[job], self.targets[job], self.least[job] = range_, range_.slots, least

    def change(self, job: str) -> None:
        self.leases[job] = self.coming.pop(job)

    def change_all(self) -> None:
        for job in list(self.coming):
            self.change(job)

    def end(self, job: str) -> None:
        del self.leases[job]
        self.coming.pop(job, None)
        self.parts.discard(job)

    def family(self) -> int:
        """The slots that the job and its parts have, or are about to have."""
        return sum(
            max(self.leases[job].slots, self.coming.get(job, self.leases[job]).slots)
            for job in {"run"} | self.parts
        )

    def check(self) -> None:
        assert self.family() <= self.admitted
        held = [*self.leases.items(), *self.coming.items()]
        for job, range_ in held:
            assert 0 <= range_.base < range_.end <= TOTAL
            assert all(not range_.overlaps(other) for name, other in held if name != job)
        for job, range_ in self.leases.items():
            assert self.least[job] <= range_.slots <= self.targets[job]

    def sizes(self) -> dict[str, int]:
        return {job: range_.slots for job, range_ in self.leases.items()}


def running(slots: int = 512, least: int = MIN_SLOTS) -> Switch:
    switch = Switch(slots)
    switch.has("run", SlotRange(0, slots), least)
    return switch


def part(name: str, *sizes: int, stays: bool = True) -> Wish:
    return Wish(name, "a", 0, sizes, stays=stays, part_of="run")


def halving(slots: int) -> tuple[int, ...]:
    return tuple(slots >> n for n in range(slots.bit_length()) if slots >> n >= MIN_SLOTS)


def test_a_job_halves_for_a_part_and_gets_all_back_at_its_end() -> None:
    switch = running()
    decided = switch.decide(part("p", 128))
    assert decided.standings == {"p": Standing.COMING}
    assert [(each.job, each.range, each.reason) for each in decided.changes] == [
        ("run", SlotRange(0, 256), "for a part of the job")
    ]
    # Until the job has changed over, its slots are its own.
    assert switch.decide(part("p", 128)).standings == {"p": Standing.COMING}
    switch.change_all()
    (grant,) = switch.decide(part("p", 128)).grants
    assert grant.range.slots == 128
    assert not grant.range.overlaps(SlotRange(0, 256))
    assert switch.decide().changes == []
    switch.end("p")
    assert [change.range for change in switch.decide().changes] == [SlotRange(0, 512)]


def test_a_growing_family_ends_up_with_equal_shares() -> None:
    switch = running()
    for number in range(7):
        for _ in range(4):
            name = f"p{number}"
            if name not in switch.leases:
                switch.decide(part(name, *halving(128)))
            switch.change_all()
    assert switch.sizes() == dict.fromkeys(["run", *(f"p{n}" for n in range(7))], 64)


def test_a_part_that_would_like_more_takes_no_more_than_an_equal_share() -> None:
    switch = running(64)
    switch.decide(part("p", 64, 32, 16))
    switch.change_all()
    switch.decide(part("p", 64, 32, 16))
    assert switch.sizes() == {"run": 32, "p": 32}


def test_a_job_keeps_its_least() -> None:
    switch = running(512, least=512)
    decided = switch.decide(part("p", 16))
    assert (decided.standings, decided.changes) == ({"p": Standing.SHARE}, [])
    switch = running(512, least=256)
    switch.decide(part("p", 256))
    switch.change_all()
    assert len(switch.decide(part("p", 256)).grants) == 1
    assert switch.decide(part("q", 16)).standings == {"q": Standing.COMING}, "p gives half"
    switch.change_all()
    switch.decide(part("q", 16))
    assert switch.sizes() == {"run": 256, "p": 128, "q": 16}


def test_nobody_else_gets_what_a_job_gave_up_for_its_parts() -> None:
    switch = running(512)
    switch.has("other", SlotRange(512, 512))
    equal = Wish("equal", "b", 0, (16,))
    for _ in range(3):
        switch.decide(part("p", 128), equal)
        switch.change_all()
    assert switch.sizes() == {"run": 256, "p": 128, "other": 512}
    # The 128 that nobody in the family has are kept for it: this one finds them.
    decided = switch.decide(part("q", 128), equal)
    assert [grant.job for grant in decided.grants] == ["q"]
    # A job of higher priority may have them, as it may have all else.
    switch.end("q")
    high = Wish("high", "b", 5, (128,))
    assert [grant.job for grant in switch.decide(high).grants] == ["high"]


def test_parts_leave_numbers_to_jobs() -> None:
    switch = running(512)
    switch.numbers = NUMBERS_FOR_PARTS
    job = Wish("job", "b", 0, (16,))
    decided = switch.decide(part("p", 16), job)
    assert decided.standings == {"p": Standing.GROUPS}
    assert [grant.job for grant in decided.grants] == ["job"]
    assert NUMBERS_FOR_PARTS < packet.JOBS - 1


def test_members_that_cannot_change_now_give_nothing() -> None:
    fixed = [
        Holding("run", SlotRange(0, 256), 16, 0, False),
        Holding("p", SlotRange(256, 64), 16, 0, True),
    ]
    assert give_up(fixed, "run", 64, 0) is None
    (move,) = give_up(fixed, "run", 32, 0) or []
    assert (move.job, move.range) == ("p", SlotRange(256, 32))
    assert give_up(fixed, "run", 0, 0) == []


@settings(max_examples=examples(60))
@given(data=st.data(), admitted=st.sampled_from(POWERS))
def test_a_family_never_has_more_than_its_job_was_admitted_with(
    data: st.DataObject, admitted: int
) -> None:
    """Parts come and go, changes take their time, and at the end the job has all of its slots."""
    switch = running(admitted, data.draw(st.sampled_from([n for n in POWERS if n <= admitted])))
    wishes: dict[str, Wish] = {}
    for number in range(data.draw(st.integers(1, 14))):
        what = data.draw(st.sampled_from(["part", "part", "job", "change", "end"]))
        if what == "part":
            slots = data.draw(st.sampled_from(POWERS))
            sizes = halving(slots) if data.draw(st.booleans()) else (slots,)
            wishes[f"p{number}"] = part(f"p{number}", *sizes)
        elif what == "job":
            wishes[f"j{number}"] = Wish(f"j{number}", "b", 0, (data.draw(st.sampled_from(POWERS)),))
        elif what == "change" and switch.coming:
            switch.change(data.draw(st.sampled_from(sorted(switch.coming))))
        elif what == "end" and len(switch.leases) > 1:
            switch.end(data.draw(st.sampled_from(sorted(set(switch.leases) - {"run"}))))
        decided = switch.decide(*wishes.values())
        for grant in decided.grants:
            wish = wishes.pop(grant.job)
            assert grant.range.slots in wish.sizes
        assert set(decided.standings) == wishes.keys()
    for job in set(switch.leases) - {"run"}:
        switch.end(job)
    for _ in range(12):
        switch.decide()
        switch.change_all()
    assert switch.sizes() == {"run": admitted}
    assert switch.decide().changes == []


@pytest.mark.parametrize("wanted", [16, 64, 128])
def test_rounds_without_news_change_nothing(wanted: int) -> None:
    """No member grows into what another gave up, and back: leases come to rest."""
    switch = running(512)
    for number in range(5):
        for _ in range(8):
            name = f"p{number}"
            missing = [] if name in switch.leases else [part(name, *halving(wanted))]
            switch.decide(*missing)
            switch.change_all()
        assert name in switch.leases
        assert switch.decide().changes == []
