"""The fuzzer's input: a program, and random sequences of frames and table writes for it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wiresum.testbed.conformance.target import Probe, Write


@dataclass(frozen=True)
class Packet:
    """A frame that comes in by ``port``; ``what`` says in words why it was made."""

    port: int
    frame: bytes
    what: str = ""


@dataclass(frozen=True)
class Writes:
    """Table writes, done in order once all frames before them have been dealt with."""

    writes: tuple[Write, ...]


Step = Packet | Writes


@dataclass(frozen=True)
class Scenario:
    """A program, what its tables hold from the start, and what to feed it.

    ``sequence`` makes one sequence from a random generator and its number in the run, and nothing
    else: a seed and a number name it. Entries that a sequence leaves behind are removed after it;
    what is in registers stays.
    ``probes`` leave through every egress thread of BMv2; a program's registers may not depend on
    how many there were. ``copies``: the most frames that one frame sends out of one port.
    """

    name: str
    json: Path
    p4info: Path
    setup: Sequence[Write]
    probes: Sequence[Probe]
    sequence: Callable[[random.Random, int], list[Step]]
    copies: int = 1
    describe: Callable[[str, int], str] = lambda counter, index: str(index)
    """The name of a cell of an indirect counter."""


def steps_of(scenario: Scenario, seed: int, number: int) -> list[Step]:
    """Sequence ``number`` of the run that ``seed`` names."""
    return scenario.sequence(random.Random(f"{scenario.name} {seed} {number}"), number)
