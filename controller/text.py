"""How the controller writes things in messages and tables."""

from collections.abc import Iterable


def format_ranks(ranks: Iterable[int]) -> str:
    """Ranks in order, runs of three and more joined: ``0-3, 7``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def format_seconds(seconds: float) -> str:
    """A time limit as the caller has set it: a call that began a moment ago has a little less."""
    return f"{round(seconds, 1):g}" if seconds >= 1 else f"{seconds:.2g}"
