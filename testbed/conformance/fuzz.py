"""The differential fuzzer: many sequences, and the shortest way to a difference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wiresum.testbed.conformance.run import Difference, Make, Pair, Tally
from wiresum.testbed.conformance.scenario import Scenario, Step, steps_of
from wiresum.testbed.conformance.target import Count

COUNTERS_EVERY = 100
"""Indirect counters are compared after this many sequences, and at the end."""


@dataclass(frozen=True)
class Finding:
    """A difference, and the sequences that lead to it on fresh switches.

    ``sequence``: the last sequence needed, shown up to and with the step that shows the difference;
    ``first``: the first one needed (the same, where it shows the difference alone). ``difference``
    is None where the difference did not come back.
    """

    seed: int
    first: int
    sequence: int
    steps: Sequence[Step]
    seen: Difference
    difference: Difference | None


@dataclass(frozen=True)
class Result:
    """The counts of a run, and its first difference if there is one."""

    tally: Tally
    finding: Finding | None
    counters: Mapping[tuple[str, int], Count]

    def rules(self, describe: Callable[[str, int], str]) -> dict[str, dict[str, int]]:
        """The rules that were exercised: packets by indirect counter and name of the cell."""
        found: dict[str, dict[str, int]] = {}
        for (name, index), count in sorted(self.counters.items()):
            cells = found.setdefault(name, {})
            cell = describe(name, index)
            cells[cell] = cells.get(cell, 0) + count.packets
        return found


def fuzz(
    scenario: Scenario,
    ours: Make,
    theirs: Make,
    *,
    seed: int,
    sequences: int,
    first: int = 0,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Result:
    """Run ``sequences`` sequences from number ``first`` on; stops at the first difference.

    Raises what making the switches raises.
    """
    checked = first  # counters agreed before this sequence
    with Pair(scenario, ours, theirs) as pair:
        for number in range(first, first + sequences):
            difference = pair.run(steps_of(scenario, seed, number))
            if difference is None:
                done = number + 1 - first
                if done % COUNTERS_EVERY == 0 or done == sequences:
                    lines = pair.compare_counters()
                    if lines:
                        difference = Difference(0, tuple(lines))
                    else:
                        checked = number + 1
            if difference is not None:
                break
            progress(pair.tally)
        tally, counters = pair.tally, pair.counters()
    if difference is None:
        return Result(tally, None, counters)
    # Indirect counters that differ may have done so for a while.
    finding = (
        _alone(scenario, ours, theirs, seed, range(number, number + 1), difference)
        or _alone(scenario, ours, theirs, seed, range(checked, number), difference)
        or _after_others(scenario, ours, theirs, seed, first, number, difference)
        or Finding(seed, first, number, steps_of(scenario, seed, number), difference, None)
    )
    return Result(tally, finding, counters)


def _alone(
    scenario: Scenario, ours: Make, theirs: Make, seed: int, numbers: range, seen: Difference
) -> Finding | None:
    """The first of these sequences that shows a difference on fresh switches."""
    for number in numbers:
        steps = steps_of(scenario, seed, number)
        with Pair(scenario, ours, theirs) as pair:
            found = pair.run(steps, closely=True)
        if found is not None:
            return Finding(seed, number, number, steps[: found.step], seen, found)
    return None


def _after_others(
    scenario: Scenario, ours: Make, theirs: Make, seed: int, first: int, last: int, seen: Difference
) -> Finding | None:
    """A difference that needs what earlier sequences left in registers."""
    with Pair(scenario, ours, theirs) as pair:
        for number in range(first, last + 1):
            steps = steps_of(scenario, seed, number)
            # A close comparison of all sequences takes too long: only the sequence with the
            # difference gets one.
            found = pair.run(steps, closely=number == last)
            if found is not None:
                return Finding(seed, first, number, steps[: found.step], seen, found)
    return None
