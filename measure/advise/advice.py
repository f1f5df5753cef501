"""Puts the parts together: a report, a trial, prices, and the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wiresum.measure.advise.change import changes
from wiresum.measure.advise.choices import Choice, Choices, Effort, choices
from wiresum.measure.advise.commands import command_of, trial_of
from wiresum.measure.advise.documents import Report, Tried, measured_steps
from wiresum.measure.advise.money import Prices
from wiresum.measure.advise.text import ms
from wiresum.measure.advise.verdict import Decision, Verdict, decide
from wiresum.measure.model import collectives
from wiresum.measure.model.costs import Costs
from wiresum.measure.model.job import Job
from wiresum.measure.model.links import Link, Protection
from wiresum.measure.model.step import Prediction, Setting

KIND = "wiresum advice"
VERSION = 1

_OVER = 1.1
"""Communication so much faster than the links' closed form says that the links are others."""


@dataclass(frozen=True)
class Question:
    """All that the answer depends on, beside the report."""

    link: Link
    mtu: int = 1500
    protection: Protection | None = None
    faster_gbit: float | None = None
    prices: Prices = field(default_factory=Prices)
    threshold: float | None = None
    wanted_hours: float | None = None
    costs: Costs = field(default_factory=Costs)


@dataclass(frozen=True)
class Advice:
    """The answer, with its evidence."""

    report: Report
    question: Question
    options: Choices
    decision: Decision
    threshold: float
    evidence: list[str]
    changes: list[str]
    command: str
    trial: str
    """How to measure the candidates first; empty where a trial was given, or none is needed."""


def advise(report: Report, question: Question, tried: Mapping[str, Tried] | None = None) -> Advice:
    """The answer for a job. ``tried``: what a trial has measured."""
    job = report.job
    threshold = report.threshold if question.threshold is None else question.threshold
    now = Setting(question.link, question.mtu)
    protection = question.protection
    then = now if protection is None else replace(now, protection=protection)
    found = choices(
        job,
        now,
        then,
        question.prices,
        question.costs,
        faster=question.faster_gbit,
        measured=measured_steps(job, tried) if tried else None,
        rejected={
            name: each.why or "rejected by the trial"
            for name, each in (tried or {}).items()
            if not each.accepted
        },
        missed=[name for name, each in (tried or {}).items() if each.missed],
    )  # fmt: skip
    decision = decide(job, found, question.prices, threshold, question.wanted_hours)
    soft = [
        each.name
        for each in found.found
        if each.effort is Effort.SOFTWARE and each.saved_share > threshold
    ]
    wants_trial = decision.verdict is not Verdict.STOP and not tried and bool(soft)
    return Advice(
        report=report,
        question=question,
        options=found,
        decision=decision,
        threshold=threshold,
        evidence=_evidence(report, question, then, found),
        changes=changes(
            job, now, found, decision, question.prices, question.costs, threshold
        ),
        command="" if decision.choice is None else command_of(decision.choice, report.command),
        trial=trial_of(soft, report.command) if wants_trial else "",
    )  # fmt: skip


def _evidence(report: Report, question: Question, then: Setting, found: Choices) -> list[str]:
    job, link = report.job, question.link
    said = [
        f"a step of {ms(job.step_s)} ms on {job.workers} workers: {ms(job.comm_s)} ms "
        f"of communication, {ms(job.exposed_s)} ms of it exposed",
    ]
    if job.gradients:
        said.append(
            f"{job.gradient_bytes / 1e6:.3g} MB of gradients a step in {job.buckets:.3g} "
            "all-reduces"
        )
    pair = report.slowest
    where = "as given" if pair is None else f"the slowest pair, ranks {pair[0]} and {pair[1]}"
    said.append(f"links of {link.beta_gbit:.3g} Gbit/s and {link.alpha_s * 1e6:.3g} µs ({where})")
    if job.overlapped_s > 0.5 * job.comm_s:
        said.append(
            f"{100 * job.overlapped_s / job.comm_s:.0f} % of the communication hides behind "
            "computation: compression cannot shorten what is hidden"
        )
    if job.waiting_s > 0:
        said.append(f"{ms(job.waiting_s)} ms of the communication is waiting for late ranks")
    least = _least_s(job, link, question.mtu)
    if least > _OVER * job.net_s:
        said.append(
            f"attention: these links need {ms(least)} ms for what the report says took "
            f"{ms(job.net_s)} ms: the job ran over others, or over shared memory"
        )
    if then.protection.frame_bytes:
        said.append(
            f"{then.protection.title}: {then.protection.frame_bytes} more bytes in every frame; "
            f"plain gloo's step would take {ms(found.base.step_s)} ms with it"
        )
    return said


def _least_s(job: Job, link: Link, mtu: int) -> float:
    return sum(
        each.per_step * collectives.collective_s(each.kind, each.size, each.ranks, link, mtu)
        for each in job.messages
    )


# ---- JSON


def as_json(advice: Advice) -> dict[str, Any]:
    """The answer for programs: milliseconds, bytes, money in the currency."""
    decision, prices = advice.decision, advice.question.prices
    return {
        "kind": KIND,
        "version": VERSION,
        "verdict": str(decision.verdict),
        "because": decision.because,
        "choice": None if decision.choice is None else decision.choice.name,
        "command": advice.command,
        "trial": advice.trial,
        "threshold": advice.threshold,
        "currency": prices.currency or None,
        "horizon_months": prices.horizon_months,
        "step_ms": _prediction(advice.options.base),
        "best_possible_share": advice.options.best_possible_share,
        "choices": [_choice(each) for each in advice.options.found],
        "impossible": dict(advice.options.impossible),
        "evidence": advice.evidence,
        "changes": advice.changes,
        "notes": list(advice.report.notes),
    }


def _prediction(each: Prediction) -> dict[str, float]:
    return {
        "predicted": each.step_s * 1e3,
        "low": each.low_s * 1e3,
        "high": each.high_s * 1e3,
    }


def _choice(each: Choice) -> dict[str, Any]:
    value = each.worth
    finite = value.payback_months is not None and value.payback_months != float("inf")
    return {
        "name": each.name,
        "title": each.title,
        "kind": each.effort.name.lower(),
        "remedy": each.remedy,
        "step_ms": _prediction(each.prediction),
        "measured": each.prediction.measured,
        "communication_ms": each.prediction.comm_s * 1e3,
        "exposed_share": each.prediction.exposed_share,
        "sent_bytes": each.prediction.sent_bytes,
        "saved_share": each.saved_share,
        "sure_share": each.sure_share,
        "lossy": each.lossy,
        "refused": each.refused,
        "hours_per_run": value.hours_after,
        "saved_per_run": value.saved_per_run,
        "saved_per_month": value.saved_per_month,
        "cost": value.cost,
        "payback_months": value.payback_months if finite else None,
        "never_pays_back": value.payback_months == float("inf"),
    }
