"""Command lines that a user can copy."""

import shlex

from wiresum.measure.advise.choices import Choice, Effort
from wiresum.measure.remedies import REMEDIES

EXAMPLE = "torchrun … train.py"


def command_of(choice: Choice, job: str) -> str:
    """How to run with a choice. ``job``: the command of the report; empty: an example's."""
    remedy = REMEDIES[choice.remedy]
    job = job or EXAMPLE
    if choice.effort in (Effort.LINKS, Effort.RACKS):
        return job
    variables = " ".join(f"{k}={shlex.quote(v)}" for k, v in remedy.environment.items())
    words = ["env", variables] if variables else []
    if remedy.run_options:
        words += ["wiresum", "run", *(["--controller", "HOST:7500"] if remedy.needs else [])]
        words += [*remedy.run_options, "--"]
    return " ".join([*words, job])


def trial_of(choices: list[str], job: str) -> str:
    """How to measure candidates before anything is changed."""
    names = ",".join(choices)
    return f"wiresum trial --candidates {names} --json trial.json -- {job or EXAMPLE}"
