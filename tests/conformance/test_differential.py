"""The differential fuzzer over the suite's programs and ours; it must notice faults."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from scenarios import ALL

from wiresum.testbed.conformance import wiresum_traffic
from wiresum.testbed.conformance.bmv2 import BINARY, Bmv2Target, available
from wiresum.testbed.conformance.fuzz import Finding, fuzz
from wiresum.testbed.conformance.run import show
from wiresum.testbed.conformance.scenario import Packet, Scenario, Writes, steps_of
from wiresum.testbed.conformance.soft import SoftTarget
from wiresum.testbed.conformance.target import Count, Frame, Write

StartSoft = Callable[[Scenario], SoftTarget]

OURS = wiresum_traffic.scenario(64)
SCENARIOS = [OURS, *ALL.values()]
by_name = pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])


def told(finding: Finding | None) -> str:
    """The whole story, for the test's output."""
    if finding is None:
        return ""
    found = finding.difference or finding.seen
    head = f"sequences {finding.first} to {finding.sequence} of seed {finding.seed}"
    return "\n".join([head, *found.lines, *show(finding.steps)])


@by_name
@pytest.mark.bmv2
@pytest.mark.skipif(not available(), reason=f"{BINARY} is not on PATH")
def test_bmv2_does_the_same(scenario: Scenario, start_soft: StartSoft) -> None:
    with tempfile.TemporaryDirectory() as directory:
        result = fuzz(
            scenario,
            lambda: start_soft(scenario),
            lambda: Bmv2Target(scenario, Path(tempfile.mkdtemp(dir=directory))),
            seed=3,
            sequences=150,
        )
    assert told(result.finding) == ""
    assert result.tally.sequences == 150


@by_name
def test_the_softswitch_does_the_same_twice(scenario: Scenario, start_soft: StartSoft) -> None:
    result = fuzz(
        scenario,
        lambda: start_soft(scenario),
        lambda: start_soft(scenario),
        seed=4,
        sequences=100,
    )
    assert told(result.finding) == ""
    tally = result.tally
    # If every random frame were dropped, nothing would be compared.
    assert tally.frames_out > tally.frames_in / 6


def test_sequences_are_named_by_seed_and_number() -> None:
    assert steps_of(OURS, 5, 6) == steps_of(OURS, 5, 6)
    assert steps_of(OURS, 5, 6) != steps_of(OURS, 5, 7) != steps_of(OURS, 6, 6)


def test_every_rule_of_our_program_is_exercised(start_soft: StartSoft) -> None:
    result = fuzz(OURS, lambda: start_soft(OURS), lambda: start_soft(OURS), seed=1, sequences=200)
    from wiresum.p4.packet import DropReason, Event

    rules = result.rules(OURS.describe)
    assert set(rules["drops"]) == {reason.name for reason in DropReason}
    assert set(rules["events"]) == {event.name for event in Event}


class Broken(SoftTarget):
    """A softswitch with one fault."""

    def __init__(self, soft: SoftTarget, fault: str) -> None:
        self.__dict__.update(soft.__dict__)
        self.name = "broken"
        self.fault = fault
        self.fed = 0

    def send(self, frames: Sequence[Frame]) -> None:
        self.fed += len(frames)
        super().send(frames)

    def collect(self) -> dict[int, list[bytes]]:
        left = super().collect()
        if self.fault == "memory" and self.fed < 500:
            return left
        for port, frames in left.items():
            for at, frame in enumerate(frames):
                # A RESULT of MAX: the last bit of its last lane.
                if self.fault in ("bit", "memory") and frame[43:45] == b"\2\1":
                    frames[at] = frame[:-1] + bytes([frame[-1] ^ 1])
                if self.fault == "port" and frame[43:44] == b"\3":
                    del frames[at]
                    left[port + 1] = [*left.get(port + 1, []), frame]
                    return left
        return left

    def counters(self) -> dict[tuple[str, int], Count]:
        found = super().counters()
        if self.fault == "counter":
            found.pop(("drops", 4), None)
        return found

    def write(self, writes: Sequence[Write]) -> list[bool]:
        done = super().write(writes)
        return [True] * len(done) if self.fault == "write" else done


@pytest.mark.parametrize("fault", ["bit", "port", "counter", "write"])
def test_a_fault_is_found_and_traced(start_soft: StartSoft, fault: str) -> None:
    result = fuzz(
        OURS,
        lambda: start_soft(OURS),
        lambda: Broken(start_soft(OURS), fault),
        seed=9,
        sequences=200,
    )
    finding = result.finding
    assert finding is not None
    assert finding.difference is not None
    assert finding.first == finding.sequence < 200
    # The steps shown lead there, and the last one is needed.
    last = finding.steps[-1]
    whole = steps_of(OURS, 9, finding.sequence)
    assert finding.steps == whole[: len(finding.steps)]
    assert "softswitch" in "".join(finding.difference.lines)
    if fault == "write":
        assert isinstance(last, Writes)
        assert "accepts" in finding.difference.lines[0]
    else:
        assert isinstance(last, Packet)
        what = "counter" if fault == "counter" else "port"
        assert what in finding.difference.lines[0]
    assert f"{len(finding.steps) - 1:4} " in told(finding)


def test_a_fault_that_needs_earlier_sequences_is_traced_as_well(start_soft: StartSoft) -> None:
    result = fuzz(
        OURS,
        lambda: start_soft(OURS),
        lambda: Broken(start_soft(OURS), "memory"),
        seed=9,
        sequences=200,
    )
    finding = result.finding
    assert finding is not None
    assert finding.difference is not None
    assert finding.first == 0 < finding.sequence
