"""What ``advise`` says of a measured report, beside what was measured then: pure.

The file of a validation holds reports and measured steps; predictions are made from them whenever
the table is, so that a change of the model shows without another measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wiresum.measure import lines
from wiresum.measure.advise import advice, documents
from wiresum.measure.advise.choices import Effort
from wiresum.measure.advise.errors import AdviceError
from wiresum.measure.model.step import Prediction
from wiresum.measure.remedies import PLAIN, REMEDIES

CLOSE = 0.01
"""Of a step: so near to the threshold, either verdict costs next to nothing."""


@dataclass(frozen=True)
class Judged:
    """One case: predictions by remedy, the verdict from them, and the one that follows from the
    measured steps.

    ``close``: the best software saves by measurement within :data:`CLOSE` of the threshold.
    """

    exposed_share: float
    predicted: dict[str, Prediction]
    verdict: tuple[str, str]
    right: tuple[str, str]
    close: bool


def predicted(report: Mapping[str, Any]) -> dict[str, Prediction]:
    """The predicted steps, by remedy."""
    return _steps(_advice(documents.report_of(report)))


def judge(entry: Mapping[str, Any], cores: int | None = None) -> Judged:
    """Judge a case of the JSON. Raises ``AdviceError`` for a report that says too little.

    ``cores``: of the machine, where the report does not say them.
    """
    report = documents.report_of(with_cores(entry["report"], cores))
    said = _advice(report)
    tried = {name: _tried(name, 1e3 * seconds) for name, seconds in entry["measured"].items()}
    measured = _advice(report, tried)
    software = [each for each in measured.options.found if each.effort is Effort.SOFTWARE]
    saved = max((each.saved_share for each in software if not each.refused), default=0.0)
    return Judged(
        report.job.exposed_share,
        _steps(said),
        _answer(said),
        _answer(measured),
        close=abs(saved - measured.threshold) <= CLOSE,
    )


def with_cores(report: Mapping[str, Any], cores: int | None) -> Mapping[str, Any]:
    """The report of an earlier measurement, with the cores of the machine that it was made on."""
    about = report.get("job")
    if cores is None or not isinstance(about, Mapping) or about.get("cores") is not None:
        return report
    return {**report, "job": {**about, "cores": cores}}


def _tried(name: str, step_ms: float) -> documents.Tried:
    """As a trial would have measured it. PowerSGD's accuracy is not judged here."""
    return documents.Tried(
        name, step_ms, step_ms, step_ms, REMEDIES[name].gentle, "not judged here"
    )


def _advice(
    report: documents.Report, tried: Mapping[str, documents.Tried] | None = None
) -> advice.Advice:
    if report.slowest is None:
        raise AdviceError(lines.DOCUMENT_WRONG.of(path="the report", why="it has no links"))
    return advice.advise(report, advice.Question(link=report.slowest[2]), tried)


def _steps(said: advice.Advice) -> dict[str, Prediction]:
    found = {each.name: each.prediction for each in said.options.found}
    return {PLAIN: said.options.base, **found}


def _answer(said: advice.Advice) -> tuple[str, str]:
    choice = said.decision.choice
    return str(said.decision.verdict), "" if choice is None else choice.name
