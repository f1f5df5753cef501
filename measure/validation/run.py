"""Measures each case plainly, lets ``advise`` predict, then measures every remedy.

One rack stands for all cases; its links are changed from case to case. The ranks of each training
are forked anew (``bench/train_crew.py``).
"""

import math
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from wiresum.host_agent.environment import MEASURE, MEASURE_STEPS
from wiresum.measure import lines
from wiresum.measure.bench.train_rack import START_S, Trainings
from wiresum.measure.remedies import PLAIN, REMEDIES, Remedy
from wiresum.measure.remedies import Carrier as Sums
from wiresum.measure.validation import judge
from wiresum.measure.validation.cases import Case, Options
from wiresum.testbed.errors import RackError


class Validation:
    """One run; use as a context manager. Everything raises ``WiresumError``."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self._say = say
        self._exits = ExitStack()

    def __enter__(self) -> "Validation":
        most, fastest = max(self.options.workers), max(self.options.rates)
        self._trainings = self._exits.enter_context(
            Trainings(self.options.name, most, fastest, "wiresum.measure.validation.train")
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def case(self, case: Case, kept: dict[str, Any] | None = None) -> dict[str, Any]:
        """Measure and predict one case; an entry of the JSON.

        ``kept``: what an earlier run has measured of it, to which is added what it lacks.
        """
        self._trainings.shape(case.rates)
        report = self._report(case) if kept is None else kept["report"]
        found = judge.predicted(judge.with_cores(report, os.cpu_count()))
        measured: dict[str, float] = {} if kept is None else dict(kept["measured"])
        for name in (PLAIN, *self.options.remedies):
            if name in measured:
                continue
            measured[name] = self._train(case, REMEDIES[name])
            self._say(
                f"{case}: {name}: {1e3 * measured[name]:.0f} ms, predicted "
                f"{1e3 * found[name].step_s:.0f}"
            )
        return {
            "model": case.model.name,
            "rate_mbit": case.rate_mbit,
            "workers": case.workers,
            "unequal": case.unequal,
            "measured": measured,
            "report": report,
        }

    # ---- trainings

    def _report(self, case: Case) -> dict[str, Any]:
        """Measure the plain run as ``wiresum measure`` does; its report."""
        from wiresum.measure.live.job import job_in
        from wiresum.measure.traces import show
        from wiresum.measure.traces.load import load
        from wiresum.measure.traces.summary import summarize

        folder = self._trainings.folder / "traces"
        folder.mkdir()
        more = {MEASURE: str(folder), MEASURE_STEPS: str(self.options.steps)}
        more["KINETO_LOG_LEVEL"] = "99"
        self._run(case, REMEDIES[PLAIN], more, 3 * self.options.steps + 8)
        job, notes = job_in(folder, None)
        report = summarize(load(folder), job, notes)
        shutil.rmtree(folder)
        return show.as_json(report)

    def _train(self, case: Case, remedy: Remedy) -> float:
        """Seconds of a step: the median of the steps, of the median rank.

        The mean of whole rounds, where not all steps synchronize.
        """
        rounds = math.ceil(self.options.steps / remedy.every)
        which = "median" if remedy.every == 1 else "mean"
        ranks = self._run(case, remedy, {}, rounds * remedy.every)
        found = sorted(float(each[which]) for each in ranks)
        return found[len(found) // 2]

    def _run(
        self, case: Case, remedy: Remedy, more: dict[str, str], steps: int
    ) -> list[dict[str, Any]]:
        """One training; once more, if a rank fails or does not end in time."""
        answer = self._try(case, remedy, more, steps)
        if "error" in answer:
            self._say(f"{case}: {remedy.name}: once more, since {answer['error']}")
            answer = self._try(case, remedy, more, steps)
        if "error" in answer:
            raise RackError(lines.PART_FAILED.of(part="a training", why=answer["error"]))
        return list(answer["ranks"])

    def _try(self, case: Case, remedy: Remedy, more: dict[str, str], steps: int) -> dict[str, Any]:
        order = {
            "backend": "gloo" if remedy.carrier is Sums.GLOO else "wiresum",
            "hook": remedy.hook,
            "size": case.model.size,
            "layers": case.model.layers,
            "compute_ms": case.model.compute_ms,
            "steps": steps,
        }
        sums = remedy.carrier, remedy.field or 32
        return self._trainings.run(order, case.workers, *sums, _limit_s(case, steps), more)


def _limit_s(case: Case, steps: int) -> float:
    """How long a training may take: several times what its computing and its ring need."""
    ring = 2 * case.model.size * 8 / (min(case.rates) * 1e6)
    return START_S + 4 * (steps + 3) * (case.model.compute_ms / 1e3 + ring)
