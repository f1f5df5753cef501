"""What a soak prints: each fault as it comes, what was seen, and a summary."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from wiresum.measure.soak.judge import Totals
from wiresum.measure.soak.schedule import Fault, Kind, Recipe


class Diary:
    """The diary of one soak. Times are seconds since all jobs had done their first step."""

    def __init__(self, seed: int, switch: str) -> None:
        self.clean = False
        self.totals = Totals()
        self.jobs = 0
        self.recovered = False
        """Whether what followed the last fault has been told."""
        self._console = Console(highlight=False, soft_wrap=True)
        self._seed = seed
        self._switch = switch
        self._entries: list[dict[str, Any]] = []
        self._faults: list[Fault] = []
        self._recoveries: list[float] = []

    def _line(self, at_s: float, text: str) -> None:
        self._console.print(f"{at_s:7.1f} s  {text}", markup=False)

    def reference(self, recipe: Recipe, steps: int) -> None:
        """An undisturbed training is done."""
        self._console.print(
            f"undisturbed: {recipe.workers} workers, {recipe.field}-bit fields, {steps} steps",
            markup=False,
        )

    def begins(self, at_s: float, fault: Fault, meets: Sequence[Fault]) -> None:
        """A fault is caused now, while the faults in ``meets`` last."""
        self.recovered = False
        self._faults.append(fault)
        meets_text = " and ".join(f"#{each.number}" for each in meets)
        during = f" (during {meets_text})" if meets else ""
        self._line(at_s, f"#{fault.number} {fault.says()}{during}")
        entry = dataclasses.asdict(fault) | {"began_s": round(at_s, 2), "says": fault.says()}
        self._entries.append(entry)

    def seen(self, at_s: float, text: str, waited_s: float | None = None) -> None:
        """Something has been seen; with ``waited_s``: all jobs go on, so long after a fault's end.

        That of a job that joins, and of the first jobs, is what their start took.
        """
        self._line(at_s, f"   {text}")
        entry: dict[str, Any] = {"at_s": round(at_s, 2), "seen": text}
        if waited_s is not None:
            entry["waited_s"] = round(waited_s, 2)
            self.recovered = True
            self._recoveries.append(waited_s)
        self._entries.append(entry)

    def _verdict(self) -> str:
        return "clean" if self.clean else "NOT clean"

    def summary(self) -> None:
        """Print what all of it was."""
        totals = self.totals
        table = Table(title=f"soak, seed {self._seed}, {self._switch}: {self._verdict()}")
        table.add_column("fault")
        table.add_column("times", justify="right")
        for kind in Kind:
            table.add_row(kind, str(sum(fault.kind == kind for fault in self._faults)))
        carriers = ", ".join(f"{n} over the {c}" for c, n in sorted(totals.by_carrier.items()))
        self._console.print(table)
        self._console.print(
            f"{self.jobs} jobs, {totals.steps} steps compared with the undisturbed ones "
            f"({carriers or 'none'}); {totals.to_ranks} times to the ranks, {totals.to_switch} "
            f"times to the switch; {totals.restarts} ranks started again; longest step "
            f"{totals.longest_s:.1f} s, longest recovery or start "
            f"{max(self._recoveries, default=0):.1f} s",
            markup=False,
        )

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "seed": self._seed,
            "switch": self._switch,
            "clean": self.clean,
            "jobs": self.jobs,
            "totals": dataclasses.asdict(self.totals),
            "faults": {str(k): sum(f.kind == k for f in self._faults) for k in Kind},
            "entries": self._entries,
        }
