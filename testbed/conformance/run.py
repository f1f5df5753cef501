"""Feeds two switches the same sequences and reports where they differ."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from wiresum.testbed import lines
from wiresum.testbed.conformance.bmv2 import QUEUE_FRAMES
from wiresum.testbed.conformance.errors import SwitchGone
from wiresum.testbed.conformance.scenario import Packet, Scenario, Step, Writes
from wiresum.testbed.conformance.target import (
    Count,
    Delete,
    EntryKey,
    Insert,
    Leaving,
    Target,
    Write,
)

Make = Callable[[], Target]


@dataclass(frozen=True)
class Difference:
    """Where two switches differed: after which step of the sequence, and how.

    ``step``: how many steps had been taken when it showed; in a quick run, at the latest.
    """

    step: int
    lines: tuple[str, ...]


@dataclass
class Tally:
    """The counts of what a run has compared."""

    sequences: int = 0
    frames_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    writes: int = 0
    refused: int = 0
    counter_reads: int = 0
    cells: int = 0


def compare_leaving(names: tuple[str, str], ours: Leaving, theirs: Leaving) -> list[str]:
    """One line for each port whose frames differ."""
    lines = []
    for port in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(port, []), theirs.get(port, [])
        if a == b:
            continue
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if at is None:
            at = min(len(a), len(b))
        lines.append(
            f"port {port}: {names[0]} sends {len(a)} frames and {names[1]} {len(b)}, "
            f"the first difference is in frame {at}"
        )
        for name, frames in ((names[0], a), (names[1], b)):
            lines.append(f"  {name}: {frames[at].hex() if at < len(frames) else 'no such frame'}")
    return lines


def compare_counts(
    names: tuple[str, str], ours: Mapping[Any, Any], theirs: Mapping[Any, Any]
) -> list[str]:
    """One line for each counter that differs."""
    return [
        f"counter {key}: {names[0]} {ours.get(key)}, {names[1]} {theirs.get(key)}"
        for key in sorted(ours.keys() | theirs.keys(), key=str)
        if ours.get(key) != theirs.get(key)
    ]


def _key_of(write: Insert | Delete) -> EntryKey:
    return write.table, tuple(sorted(write.match.items())), write.priority


class Pair:
    """Two switches running a scenario's program, side by side."""

    def __init__(self, scenario: Scenario, ours: Make, theirs: Make) -> None:
        """Start both and give them the scenario's set-up."""
        self.scenario = scenario
        self.tally = Tally()
        self._ours = ours()
        try:
            self._theirs = theirs()
        except BaseException:
            self._ours.close()
            raise
        self.names = (self._ours.name, self._theirs.name)
        self._left_behind: dict[EntryKey, Delete] = {}
        self._direct = True
        # One frame of room: the probes wait in the same queues.
        self._batch = max(1, (QUEUE_FRAMES - 4) // scenario.copies)
        try:
            for switch in (self._ours, self._theirs):
                if not all(switch.write(scenario.setup)):
                    raise SwitchGone(
                        lines.SETUP_REFUSED.of(switch=switch.name, scenario=scenario.name)
                    )
                switch.ready(scenario.probes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End both."""
        self._ours.close()
        self._theirs.close()

    def run(self, steps: Sequence[Step], *, closely: bool = False) -> Difference | None:
        """One sequence, and whether they differ in it.

        ``closely``: look at everything after each step; otherwise at frames when the switches'
        queues are full or tables change, and at entries' counters at the end.
        """
        taken = 0
        waiting: list[Packet] = []
        try:
            for step in steps:
                if isinstance(step, Packet):
                    waiting.append(step)
                    taken += 1
                    if not closely and len(waiting) < self._batch:
                        continue
                    lines = self._flush(waiting)
                else:
                    lines = self._flush(waiting)
                    if not lines:
                        taken += 1
                        lines = self._write(step.writes)
                waiting = []
                if closely:
                    lines = lines or self._compare_entries() or self.compare_counters()
                if lines:
                    return Difference(taken, tuple(lines))
            lines = self._flush(waiting) or self._compare_entries() or self._tidy()
        except SwitchGone as gone:
            lines = [str(gone)]
        self.tally.sequences += 1
        return Difference(taken, tuple(lines)) if lines else None

    def _flush(self, packets: Sequence[Packet]) -> list[str]:
        if not packets:
            return []
        frames = [(packet.port, packet.frame) for packet in packets]
        self._theirs.send(frames)  # it works on them while we do
        self._ours.send(frames)
        ours, theirs = self._ours.collect(), self._theirs.collect()
        tally = self.tally
        tally.frames_in += len(frames)
        tally.frames_out += sum(map(len, ours.values()))
        tally.bytes_out += sum(len(frame) for out in ours.values() for frame in out)
        return [] if ours == theirs else compare_leaving(self.names, ours, theirs)

    def _write(self, writes: Sequence[Write]) -> list[str]:
        ours, theirs = self._ours.write(writes), self._theirs.write(writes)
        self.tally.writes += len(writes)
        self.tally.refused += ours.count(False)
        for write, accepted in zip(writes, ours, strict=True):
            if not accepted:
                continue
            if isinstance(write, Insert):
                self._left_behind[_key_of(write)] = Delete(write.table, write.match, write.priority)
            elif isinstance(write, Delete):
                self._left_behind.pop(_key_of(write), None)
        says = {True: "accepts", False: "refuses"}
        return [
            f"{self.names[0]} {says[a]} and {self.names[1]} {says[b]}: {write}"
            for write, a, b in zip(writes, ours, theirs, strict=True)
            if a != b
        ]

    def _compare_entries(self) -> list[str]:
        ours, theirs = self._ours.direct_counters(), self._theirs.direct_counters()
        self.tally.cells += len(ours)
        return compare_counts(self.names, ours, theirs)

    def compare_counters(self) -> list[str]:
        """One line for each indirect counter that differs."""
        self.tally.counter_reads += 1
        return compare_counts(self.names, self._ours.counters(), self._theirs.counters())

    def counters(self) -> dict[tuple[str, int], Count]:
        """Our switch's indirect counters."""
        return self._ours.counters()

    def _tidy(self) -> list[str]:
        leftovers = tuple(self._left_behind.values())
        return self._write(leftovers) if leftovers else []


def show(steps: Iterable[Step]) -> list[str]:
    """The steps of a sequence, one or more lines each."""
    lines = []
    for number, step in enumerate(steps):
        if isinstance(step, Writes):
            lines.append(f"{number:4} writes")
            lines += [f"       {write}" for write in step.writes]
        else:
            note = f"  # {step.what}" if step.what else ""
            lines.append(f"{number:4} port {step.port} {step.frame.hex() or '(empty)'}{note}")
    return lines
