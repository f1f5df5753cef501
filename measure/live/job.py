"""What the ranks' files say of their job: its facts for the report, or why there is no report."""

import shlex
from pathlib import Path

from wiresum.measure import lines
from wiresum.measure.live.observed import Observed, links, overhead, read_all
from wiresum.measure.traces.errors import TraceError
from wiresum.measure.traces.records import Job

MOST_OVERHEAD = 0.02
"""Of a step: above it the report says that the profiler changes what it measures."""


def job_in(folder: Path, command: list[str] | None) -> tuple[Job | None, list[str]]:
    """The job whose ranks have written into a folder, and notes on how far they came.

    ``command``: what has been run, which must then have left something; None for a folder of
    traces, which may be of any profiler: no job then. Raises :class:`TraceError` in one line.
    """
    found = read_all(folder)
    ranks = [each for each in found if each.rank is not None]
    if command is not None:
        _check(found, ranks)
    if not ranks:
        return None, []
    first = ranks[0]
    job = Job(
        command=None if command is None else shlex.join(command),
        world_size=first.world_size,
        hosts=tuple(dict.fromkeys(each.host for each in ranks)),
        device=first.device,
        backend=first.backend,
        overhead_share=overhead(ranks),
        links=links(ranks),
        cores=min((each.cores for each in ranks if each.cores is not None), default=None),
    )
    return job, _notes(job, ranks, folder)


def _check(found: list[Observed], ranks: list[Observed]) -> None:
    """Whether there is something to report. Raises :class:`TraceError`."""
    if not found:
        raise TraceError(lines.NO_STEP.of())
    if not ranks:
        raise TraceError(lines.NO_PROCESS_GROUP.of())
    failed = next((each for each in ranks if each.failed is not None), None)
    if failed is not None:
        raise TraceError(lines.RANK_NOT_RECORDED.of(rank=failed.rank, why=failed.failed))
    most = max(ranks, key=lambda each: each.recorded)
    if not most.recorded:
        raise TraceError(
            lines.TOO_FEW_STEPS.of(seen=most.seen, wanted=most.wanted, needed=most.needed)
        )


def _notes(job: Job, ranks: list[Observed], folder: Path) -> list[str]:
    notes: list[str] = []
    if len(ranks) < job.world_size:
        notes.append(lines.RANKS_ELSEWHERE.of(count=job.world_size - len(ranks), folder=folder))
    short = min(ranks, key=lambda each: each.recorded)
    if short.recorded < short.wanted:
        notes.append(lines.STEPS_CUT.of(recorded=short.recorded, wanted=short.wanted))
    share = job.overhead_share
    if share is None:
        notes.append(lines.OVERHEAD_UNKNOWN.of())
    elif share > MOST_OVERHEAD:
        notes.append(lines.OVERHEAD_HIGH.of(percent=100 * share))
    if job.links.note:
        notes.append(lines.LINKS_NOT_MEASURED.of(why=job.links.note))
    return notes
