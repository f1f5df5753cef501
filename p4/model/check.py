"""Searches the states of the protocol's models with spin, and looks for each mutation's fault.

``python p4/model/check.py`` makes all searches; ``--quick`` those that take seconds; names choose
among them. ``--trace NAME`` tells the shortest way to the fault of a mutation. Needs ``spin`` and a
C compiler on PATH. The exit status is 1 if a search does not end as expected, 2 if it cannot be
made.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

NO_WRONG_SUM = "no wrong sum is accepted"
NO_CHUNK_TWICE = "no chunk is applied twice"
NO_CHUNK_LOST = "no chunk is lost at a carrier change"
SAME_COLLECTIVE = "all ranks are in the same collective"
NO_DEADLOCK = "no deadlock"

PROPERTIES = {
    "assertion violated sum_is_right": NO_WRONG_SUM,
    "assertion violated applied_once": NO_CHUNK_TWICE,
    "assertion violated chunk_kept": NO_CHUNK_LOST,
    "assertion violated same_collective": SAME_COLLECTIVE,
    "invalid end state": NO_DEADLOCK,
}
"""What spin says of a fault, and the property that does not hold then."""

# No search comes near this depth: it only sets the size of spin's stack.
DEPTH = 500_000


@dataclass(frozen=True)
class Search:
    """One search of one model."""

    name: str
    model: str
    bounds: str
    """Macros of the model: how much there is of everything."""
    mutation: str = ""
    """Macros that change the protocol."""
    finds: str | None = None
    """The property that it must find violated; None: all hold in every state."""
    quick: bool = True
    """Whether it takes seconds only."""


_ONE_JOB = "JOBS_RUN=1 MOVES=1 CHUNKS_0=4"
_CUT_OFF = "CHUNKS=3 GRANTS=2 DEATHS=0 COMPLAINTS=1"


def _slots(name: str, mutation: str, finds: str | None) -> Search:
    return Search(name, "slots.pml", _ONE_JOB, mutation, finds)


def _carrier(name: str, finds: str, bounds: str = _CUT_OFF) -> Search:
    return Search(name, "carrier.pml", bounds, name.replace("-", "_").upper(), finds)


DESIGN = (
    Search("one-job", "slots.pml", "JOBS_RUN=1 MOVES=2 CHUNKS_0=4"),
    Search("one-job-remembered", "slots.pml", "JOBS_RUN=1 MOVES=1 CHUNKS_0=3 REMEMBER=1"),
    Search("two-jobs-still", "slots.pml", "MOVES=0 CHUNKS_0=4 CHUNKS_1=3"),
    Search("two-jobs-short", "slots.pml", "MOVES=1 CHUNKS_0=1 CHUNKS_1=1"),
    Search("window-2", "slots.pml", "WINDOW=2 JOBS_RUN=1 MOVES=1 CHUNKS_0=6", quick=False),
    Search("one-job-three-moves", "slots.pml", "JOBS_RUN=1 MOVES=3 CHUNKS_0=4", quick=False),
    Search("two-jobs", "slots.pml", "MOVES=1 CHUNKS_0=3 CHUNKS_1=2", quick=False),
    Search("leave", "carrier.pml", "CHUNKS=4 GRANTS=1 DEATHS=0 COMPLAINTS=1"),
    Search("die-and-leave", "carrier.pml", "CHUNKS=2 GRANTS=1 DEATHS=1 COMPLAINTS=0"),
    Search("leave-and-return", "carrier.pml", "CHUNKS=2 GRANTS=2 DEATHS=0 COMPLAINTS=1"),
    Search("cut-off", "carrier.pml", _CUT_OFF, quick=False),
    Search("death", "carrier.pml", "CHUNKS=3 GRANTS=2 DEATHS=1 COMPLAINTS=0", quick=False),
    Search(
        "return-and-leave", "carrier.pml", "CHUNKS=3 GRANTS=2 DEATHS=0 COMPLAINTS=2", quick=False
    ),
    Search("two-returns", "carrier.pml", "CHUNKS=2 GRANTS=3 DEATHS=0 COMPLAINTS=1", quick=False),
    Search(
        "window-2-leave",
        "carrier.pml",
        "WINDOW=2 CHUNKS=4 GRANTS=1 DEATHS=0 COMPLAINTS=1",
        quick=False,
    ),
)
"""The protocol as it is designed: everything must hold."""

MUTATIONS = (
    _slots("bitmap-not-reset", "BITMAP_NOT_RESET", NO_WRONG_SUM),
    _slots("no-bitmap-check", "NO_BITMAP_CHECK", NO_WRONG_SUM),
    _slots("no-serial-compare", "NO_SERIAL_COMPARE", NO_DEADLOCK),
    _slots("plain-compare", "PLAIN_COMPARE", NO_DEADLOCK),
    _slots("no-epoch-compare", "NO_EPOCH_COMPARE", NO_DEADLOCK),
    _slots("result-before-compare", "RESULT_BEFORE_COMPARE", NO_DEADLOCK),
    _slots("label-from-request", "RESULT_BEFORE_COMPARE LABEL_FROM_REQUEST", NO_WRONG_SUM),
    _slots("result-once", "RESULT_ONCE", NO_DEADLOCK),
    _slots("window-too-large", "WINDOW_TOO_LARGE", NO_DEADLOCK),
    _slots("no-boundary", "NO_BOUNDARY", NO_DEADLOCK),
    _slots("epoch-twice", "EPOCH_TWICE", NO_WRONG_SUM),
    _slots("reply-epoch-unchecked", "REPLY_EPOCH_UNCHECKED", NO_WRONG_SUM),
    _carrier("no-exchange", NO_WRONG_SUM),
    _carrier("kept-one-window", NO_WRONG_SUM),
    _carrier("from-newest-base", NO_CHUNK_LOST),
    _carrier("to-newest-next", NO_WRONG_SUM),
    _carrier("apply-again", NO_CHUNK_TWICE),
    _carrier("no-stop", NO_CHUNK_LOST),
    _carrier("own-decision", NO_DEADLOCK),
    _carrier("leaves-early", NO_DEADLOCK),
    _carrier("only-silence", NO_DEADLOCK, "CHUNKS=2 GRANTS=1 DEATHS=1 COMPLAINTS=0"),
    _carrier("leave-forgotten", NO_DEADLOCK, "CHUNKS=2 GRANTS=2 DEATHS=0 COMPLAINTS=2"),
    _carrier("lease-at-decision", SAME_COLLECTIVE, "CHUNKS=2 GRANTS=3 DEATHS=0 COMPLAINTS=1"),
    Search("epoch-twice-at-return", "carrier.pml", _CUT_OFF, "EPOCH_TWICE", NO_WRONG_SUM),
    Search(
        "reply-epoch-unchecked-at-return",
        "carrier.pml",
        _CUT_OFF,
        "REPLY_EPOCH_UNCHECKED",
        NO_WRONG_SUM,
    ),
)
"""Faults that a search must find."""

HARMLESS = (
    _slots("only-label-from-request", "LABEL_FROM_REQUEST", None),
    _slots("stale-answered", "STALE_ANSWERED", None),
    _slots("entries-overlap", "ENTRIES_OVERLAP", None),
)
"""Second lines of defence: alone, their loss does no harm."""

SEARCHES = (*DESIGN, *MUTATIONS, *HARMLESS)


@dataclass(frozen=True)
class Outcome:
    """What a search has come to."""

    violated: str | None
    """The property that does not hold; None: all states were seen, and all hold."""
    states: int
    seconds: float


class CheckError(Exception):
    """A search that could not be made, or not to its end."""


def missing() -> str | None:
    """The program that a search needs and that is not on PATH."""
    return next((name for name in ("spin", _compiler()) if shutil.which(name) is None), None)


def search(what: Search) -> Outcome:
    """Search all states, or up to the first fault. Raises :class:`CheckError`."""
    with tempfile.TemporaryDirectory() as directory:
        pan = _build(what, Path(directory))
        began = time.monotonic()
        said = _run([str(pan), f"-m{DEPTH}"], Path(directory))
        seconds = time.monotonic() - began
    return Outcome(_violated(said), _states(said), seconds)


def trace(what: Search) -> list[str]:
    """The events of a shortest way to the fault. Raises :class:`CheckError`."""
    with tempfile.TemporaryDirectory() as directory:
        pan = _build(what, Path(directory), "-DBFS")
        said = _run([str(pan), f"-m{DEPTH}"], Path(directory))
        violated = _violated(said)
        if violated is None:
            return ["no fault"]
        events = _run([str(pan), "-r"], Path(directory)).splitlines()
    told = [
        line for line in events if re.match(r"(job|rank|the switch|entries|all|a rank) ?\S", line)
    ]
    return [*told, f"violated: {violated}"]


def _compiler(*, quick: bool = False) -> str:
    """In a short search compiling takes longest: tcc, where it is, needs a fiftieth of the time."""
    usual = "tcc" if quick and shutil.which("tcc") else "cc"
    return os.environ.get("CC", usual)


def _build(what: Search, into: Path, *options: str) -> Path:
    for source in HERE.glob("*.pml"):
        shutil.copy(source, into)
    macros = [f"-D{macro}" for macro in (what.bounds + " " + what.mutation).split()]
    _run(["spin", *macros, "-a", what.model], into)
    # -DSAFETY: no search for cycles. A search keeps whole states, not hashes of them.
    speed = "-O0" if what.quick else "-O2"
    _run(
        [_compiler(quick=what.quick), speed, "-w", "-DSAFETY", *options, "-o", "pan", "pan.c"], into
    )
    return into / "pan"


def _run(command: Sequence[str], where: Path) -> str:
    done = subprocess.run(
        command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise CheckError(f"{' '.join(command)} failed: {done.stdout.strip()}")
    return done.stdout


def _violated(said: str) -> str | None:
    for words, broken in PROPERTIES.items():
        if re.search(rf"^pan:\d+: {words}\b", said, re.MULTILINE):
            return broken
    complete = "errors: 0" in said and "Search not completed" not in said
    if not complete or "max search depth too small" in said:
        raise CheckError(f"the search did not come to its end: {said.strip()}")
    return None


def _states(said: str) -> int:
    found = re.search(r"(\d+(?:\.\d+e\+\d+)?) states, stored", said)
    if found is None:
        raise CheckError(f"spin told no number of states: {said.strip()}")
    return int(float(found[1]))


def _chosen(arguments: argparse.Namespace) -> list[Search]:
    names = set(arguments.names)
    unknown = sorted(names - {each.name for each in SEARCHES})
    if unknown:
        raise CheckError(f"there is no search {unknown[0]!r}: see SEARCHES in check.py")
    chosen = [each for each in SEARCHES if not names or each.name in names]
    return [each for each in chosen if each.quick or not arguments.quick]


def _report(what: Search) -> bool:
    outcome = search(what)
    right = outcome.violated == what.finds
    found = "all hold" if outcome.violated is None else f"violated: {outcome.violated}"
    line = f"{what.name:32} {outcome.states:>12,} states {outcome.seconds:7.1f} s  {found}"
    if not right:
        line += f"  UNEXPECTED (expected: {what.finds or 'all hold'})"
    print(line, flush=True)
    return right


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Search the states of the protocol's models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="searches to make; all by default")
    parser.add_argument("--quick", action="store_true", help="only those that take seconds")
    parser.add_argument("--trace", action="store_true", help="tell a shortest way to each fault")
    arguments = parser.parse_args()
    try:
        absent = missing()
        if absent is not None:
            raise CheckError(f"{absent} is not on PATH: apt install spin gcc")
        chosen = _chosen(arguments)
        if arguments.trace:
            for each in chosen:
                print(f"{each.name}:", *trace(each), sep="\n  ")
            return 0
        wrong = [each for each in chosen if not _report(each)]
        return 1 if wrong else 0
    except CheckError as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
