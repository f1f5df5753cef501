"""Runs torch's own tests of ``torch.distributed`` over gloo and over wiresum, and compares.

The tests are the ones in torch's wheel (``torch.testing._internal.distributed.distributed_test``).
Both sides get the tests that torch has for gloo: over wiresum the script asks for gloo and gets
wiresum, as with ``wiresum run --as-default``.

    make test-torch
    python tests/peers/torch_distributed.py --only test_barrier test_gather --json out/torch.json

Ends with 1 if a test that passes over gloo does not pass over wiresum.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

RANKS = int(os.environ.get("WORLD_SIZE", "8"))
"""With fewer than 8, torch skips its tests of groups."""

LIMIT_S = 120
"""How long one test may take; seconds."""

KNOWN = {
    "test_get_backend": "asks whether the backend's name is gloo",
}
"""Tests that pass over gloo and cannot over wiresum, and why."""

PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"
GLOO, WIRESUM = "gloo", "wiresum"


def tests(folder: str) -> Any:
    """torch's tests, each of which forks its ranks. Importing them takes seconds.

    ``counters`` of the class is a file for what wiresum has carried on rank 0; None: none.
    ``folder``: for torch's own files.
    """
    os.environ.update(BACKEND="gloo", WORLD_SIZE=str(RANKS), TEMP_DIR=folder)
    os.environ["DISTRIBUTED_TESTS_DEFAULT_TIMEOUT"] = str(LIMIT_S)

    import torch
    from torch.testing._internal.distributed import distributed_test

    class TorchsTests(
        distributed_test.TestDistBackend, distributed_test.DistributedTest._DistTestBase
    ):
        counters: Path | None = None

        def setUp(self) -> None:
            super().setUp()
            # Ranks that are forked need not import torch again.
            self._start_processes(multiprocessing.get_context("fork").Process)

        @classmethod
        def _run(cls, rank: int, name: str, *args: Any, **kwargs: Any) -> None:
            torch.set_num_threads(1)
            try:
                super()._run(rank, name, *args, **kwargs)
            finally:
                if rank == 0 and cls.counters is not None:
                    cls.counters.write_text(json.dumps(_counted()))

    return TorchsTests


def _counted() -> dict[str, int]:
    """How many collectives this process has issued, by their way."""
    from wiresum import host_agent

    counts = host_agent.stats()
    return {path: _total(counts[path]) for path in ("switch", "ranks", "fallback")}


def _total(counts: Any) -> int:
    return counts if isinstance(counts, int) else sum(map(_total, counts.values()))


def run_side(side: str, names: list[str]) -> dict[str, Any]:
    """Run these tests in this process's environment; by test: the outcome, why, and counters."""
    outcomes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wiresum-torch-") as folder:
        cases = tests(folder)
        for name in names or unittest.TestLoader().getTestCaseNames(cases):
            counters = Path(folder, f"{name}.json")
            cases.counters = counters if side == WIRESUM else None
            result = unittest.TestResult()
            began = time.monotonic()
            cases(name).run(result)
            took = time.monotonic() - began
            wrong = [*result.failures, *result.errors]
            outcome, whys = PASSED, [("", "")]
            if wrong:
                outcome, whys = FAILED, wrong
            elif result.skipped:
                outcome, whys = SKIPPED, result.skipped
            outcomes[name] = {"outcome": outcome, "why": whys[0][1], "seconds": round(took, 2)}
            if counters.exists():
                outcomes[name]["carried"] = json.loads(counters.read_text())
            print(f"{outcome:8} {took:6.1f} s  {name}", file=sys.stderr, flush=True)
    return outcomes


def compare(gloo: dict[str, Any], wiresum: dict[str, Any]) -> dict[str, Any]:
    """How the outcomes differ, and how many tests had collectives of theirs carried."""
    worse = [
        name
        for name, got in wiresum.items()
        if gloo[name]["outcome"] == PASSED and got["outcome"] != PASSED
    ]
    better = [
        name
        for name, got in wiresum.items()
        if gloo[name]["outcome"] == FAILED and got["outcome"] == PASSED
    ]
    return {
        "tests": len(wiresum),
        "passed over gloo": sum(each["outcome"] == PASSED for each in gloo.values()),
        "passed over wiresum": sum(each["outcome"] == PASSED for each in wiresum.values()),
        "known": sorted(set(worse) & KNOWN.keys()),
        "worse": sorted(set(worse) - KNOWN.keys()),
        "better": sorted(better),
        "carried": sum(
            any(each.get("carried", {}).get(path) for path in ("switch", "ranks"))
            for each in wiresum.values()
        ),
    }


def run_both(only: list[str], carrier: str) -> dict[str, Any]:
    """Run the tests on both sides, each in processes of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WIRESUM_")}
    command = Path(sys.executable).with_name("wiresum")
    before = {GLOO: [], WIRESUM: [command, "run", "--as-default", "--carrier", carrier, "--"]}
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, launcher in before.items():
            file = Path(folder, side)
            script = [sys.executable, __file__, "--side", side, "--json", file, "--only", *only]
            subprocess.run([*launcher, *script], env=clean, check=True)
            outcomes[side] = json.loads(file.read_text())
    return {**compare(outcomes[GLOO], outcomes[WIRESUM]), **outcomes}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="TEST", help="these tests alone")
    parser.add_argument("--carrier", choices=("auto", "switch", "ranks"), default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all outcomes")
    parser.add_argument("--side", choices=(GLOO, WIRESUM), help=argparse.SUPPRESS)
    given = parser.parse_args()
    side, only = given.side, given.only
    result = run_side(side, only) if side else run_both(only, given.carrier)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    if side:
        return 0
    for key, value in result.items():
        if key not in (GLOO, WIRESUM):
            print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    for name in result["worse"]:
        print(f"\n{name}: {result[WIRESUM][name]['why']}")
    return 1 if result["worse"] else 0


if __name__ == "__main__":
    sys.exit(main())
