"""``wiresum testbed conformance`` and ``wiresum pcap``; the root command mounts them."""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from wiresum.common.command_line import Argument, Option
from wiresum.testbed import lines
from wiresum.testbed.conformance.errors import (
    ConformanceError,
    ConformanceUsageError,
    SwitchesDiffer,
)

_PROGRESS_S = 5.0


def conformance(
    fuzz: Annotated[
        bool, Option("--fuzz", help="Random sequences of frames and table writes.")
    ] = False,
    sequences: Annotated[int, Option(min=1, help="Number of sequences.")] = 10_000,
    seed: Annotated[
        int | None, Option(min=0, help="Seed of the run  [default: a random one]")
    ] = None,
    first: Annotated[
        int, Option(min=0, help="Number of the first sequence, to repeat a part of a run.")
    ] = 0,
    lanes: Annotated[int, Option(min=1, help="Lanes of the switch program.")] = 64,
) -> None:
    """Compare the embedded switch with BMv2: each output byte, each counter. Needs no root."""
    from wiresum.common.temporary import PrivateFolder
    from wiresum.testbed import find_bmv2
    from wiresum.testbed.conformance import bmv2, wiresum_traffic
    from wiresum.testbed.conformance.fuzz import fuzz as run
    from wiresum.testbed.conformance.run import Tally, show
    from wiresum.testbed.conformance.soft import SoftTarget
    from wiresum.testbed.interrupts import Interrupts

    if not fuzz:
        raise ConformanceUsageError(lines.NOTHING_TO_COMPARE.of())
    scenario = wiresum_traffic.scenario(lanes)
    if not bmv2.available():
        raise ConformanceError(lines.BMV2_MISSING_TO_COMPARE.of(binary=find_bmv2.BINARY))
    name = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    version = find_bmv2.version()
    print(f"softswitch and BMv2 {version}, {lanes} lanes, {sequences} sequences, seed {name}")
    started = time.monotonic()
    said = started

    def progress(tally: Tally) -> None:
        nonlocal said
        if time.monotonic() - said >= _PROGRESS_S:
            said = time.monotonic()
            print(f"  {tally.sequences} sequences, {tally.frames_in} frames", flush=True)

    with Interrupts(), PrivateFolder("conformance", for_sockets=True) as private:

        def theirs() -> bmv2.Bmv2Target:
            return bmv2.Bmv2Target(scenario, Path(tempfile.mkdtemp(dir=private.path)))

        result = run(
            scenario,
            lambda: SoftTarget(scenario.json, scenario.p4info),
            theirs,
            seed=name,
            sequences=sequences,
            first=first,
            progress=progress,
        )
    tally = result.tally
    print(
        f"{tally.sequences} sequences in {time.monotonic() - started:.0f} s: {tally.frames_in} "
        f"frames in, {tally.frames_out} out ({tally.bytes_out} bytes), {tally.writes} table writes "
        f"({tally.refused} refused by both), {tally.cells} counters of entries and "
        f"{tally.counter_reads} times all others compared"
    )
    for counter, counts in result.rules(scenario.describe).items():
        print(f"  {counter}: " + ", ".join(f"{rule} {count}" for rule, count in counts.items()))
    found = result.finding
    if found is None:
        print("no difference")
        return
    again = found.difference
    print("\n".join(["", *(found.seen.lines if again is None else again.lines), ""]))
    if again is None:
        print("it did not come back on fresh switches; the sequence that showed it:")
    elif found.first < found.sequence:
        print(f"after sequences {found.first} to {found.sequence - 1}, these steps show it:")
    else:
        print("on fresh switches these steps show it:")
    print("\n".join(show(found.steps)))
    sys.stdout.flush()
    count = found.sequence - found.first + 1
    raise SwitchesDiffer(
        lines.SWITCHES_DIFFER.of(
            sequence=found.sequence, seed=found.seed, lanes=lanes, first=found.first, count=count
        )
    )


def pcap(
    file: Annotated[Path, Argument(metavar="FILE", help="A pcap or pcapng file.")],
    as_json: Annotated[bool, Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print wiresum's packets of a capture (needs scapy: the extra `pcap`)."""
    from wiresum.testbed.pcap import line, read

    count = [0]
    found = 0
    for seen in read(file, count):
        found += 1
        print(json.dumps(seen.as_json()) if as_json else line(seen))
    sys.stdout.flush()
    print(f"{found} of {count[0]} packets are wiresum's", file=sys.stderr)
