"""The in-house checklist: what to measure, who does it, when to go on."""

from wiresum.measure.advise.advice import Advice
from wiresum.measure.advise.commands import EXAMPLE, trial_of
from wiresum.measure.advise.verdict import Verdict


def checklist(advice: Advice) -> str:
    """A page in Markdown, with this job's figures and commands in it."""
    job, decision = advice.report.job, advice.decision
    command = advice.report.command or EXAMPLE
    limit = f"{100 * advice.threshold:.0f} %"
    candidates = [each.name for each in advice.options.found if each.effort.name == "SOFTWARE"]
    trial = advice.trial or trial_of(candidates or ["gloo"], advice.report.command)
    hardware = decision.verdict is Verdict.INFRASTRUCTURE
    rows = [
        (
            "Is communication the bottleneck?",
            "ML engineer, half a day",
            f"`wiresum measure --json report.json -- {command}`",
            f"exposed communication above {limit} of a step "
            f"(today {100 * job.exposed_share:.1f} %)",
        ),
        (
            "Are ranks late?",
            "ML engineer, the same run",
            "the column *last* of that report",
            "less than half of the communication is waiting; else balance the ranks first",
        ),
        (
            "What would a remedy bring?",
            "ML engineer, minutes",
            "`wiresum advise report.json`",
            "the verdict is not *stop here*",
        ),
        (
            "Does the model still learn?",
            "ML engineer, a day",
            f"`{trial}`",
            "a candidate meets the target loss with three seeds",
        ),
        (
            "Software in production",
            "ML engineer, a week",
            f"`{advice.command or command}`",
            "the exposed share of a week's runs is what the trial had",
        ),
        (
            "What does a run cost?",
            "manager, an hour",
            "price per hour of all machines, runs per month",
            "`wiresum advise` with `--price-per-hour`, `--runs-per-month`, `--currency`",
        ),
        (
            "Is hardware worth it?",
            "manager and network engineer",
            "offers for faster links and a switch: `--links-cost`, `--switch-cost`",
            f"it is back within {advice.question.prices.horizon_months:g} months"
            + ("" if hardware else "; after the software, measured again"),
        ),
        (
            "How much hardware?",
            "network engineer",
            "`wiresum plan --jobs jobs.json`",
            "all jobs are admitted, and no uplink is overbooked",
        ),
    ]
    table = "".join(
        f"| [ ] {at} | {what} | {who} | {how} | {when} |\n"
        for at, (what, who, how, when) in enumerate(rows, 1)
    )
    return (
        "# Checklist\n\n"
        f"Verdict today: **{decision.verdict}**, because {decision.because}.\n\n"
        "| step | question | who, how long | how | go on when |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"{table}\n"
        "Stop at the first row whose condition does not hold.\n"
    )
