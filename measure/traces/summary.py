"""What the traces of a job add up to: shares of the step, bytes, times, and who is late.

The words are the field's: exposed communication as in TraceLens (the difference of intervals
COMM − COMPUTATION), algbw and busbw as in nccl-tests.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from wiresum.measure import lines
from wiresum.measure.traces.intervals import clip, length, subtract
from wiresum.measure.traces.matching import Match, Matches, arrival, clocks, match
from wiresum.measure.traces.names import bus_factor
from wiresum.measure.traces.records import CPU, Collective, Job, RankTrace, Step

THRESHOLD = 0.05
"""The exposed share of a step above which communication is worth attention, as in TraceLens."""


@dataclass(frozen=True)
class Shares:
    """Where the time of one rank goes: milliseconds per step, under TraceLens' names.

    The first four add up to ``total_time``.
    """

    computation_time: float
    exposed_comm_time: float
    exposed_memcpy_time: float
    idle_time: float
    total_time: float
    total_comm_time: float

    @property
    def overlapped(self) -> float:
        """Communication behind computation, in milliseconds per step."""
        return self.total_comm_time - self.exposed_comm_time

    @property
    def exposed_share(self) -> float:
        """Of the step."""
        return self.exposed_comm_time / self.total_time if self.total_time else 0.0

    @property
    def comm_share(self) -> float:
        """Of the step."""
        return self.total_comm_time / self.total_time if self.total_time else 0.0


@dataclass(frozen=True)
class Rank:
    """One rank. ``size``: bytes of its messages per step, None if no message's size is known.

    ``sent``: bytes that it sends per step, None if that is not known of some message.
    ``late``: the share of the matched collectives to which it came last; ``behind_ms``: the median
    of how far it was behind the first then. ``waiting_ms``: per step, in collectives, for others.
    """

    rank: int
    file: str
    steps: int
    shares: Shares
    size: float | None
    sent: float | None
    late: float | None
    behind_ms: float | None
    waiting_ms: float | None


@dataclass(frozen=True)
class Row:
    """The collectives of one kind, dtype, size and group; ``called`` as in :class:`Collective`.

    ``per_step`` and ``bytes_per_step``: of a rank that takes part. ``latency_ms``: the median over
    the collectives of the least time on any rank. Bandwidths are in GB/s. ``skew_ms``: the median
    over the collectives of the time between the first rank's start and the last one's.
    """

    kind: str
    called: str | None
    carrier: str
    dtype: str | None
    size: int | None
    group: str
    ranks: int
    per_step: float
    bytes_per_step: float | None
    latency_ms: float
    algbw: float | None
    busbw: float | None
    skew_ms: float | None
    most_late: int | None


@dataclass(frozen=True)
class Report:
    """All of it."""

    ranks: list[Rank]
    rows: list[Row]
    steps: int
    exposed_share: float
    comm_share: float
    bytes_per_step: float | None
    sent_bytes_per_step: float | None
    """What a rank sends for these messages, without headers; None if not known of some."""
    waiting_share: float | None
    """Of the communication, what is waiting for a rank that comes later; None for one rank."""
    typical: Shares
    """Medians over the ranks, each figure by itself."""
    verdict: str
    notes: list[str]
    job: Job | None = None
    """The job, if `wiresum measure` has run it."""


def summarize(traces: list[RankTrace], job: Job | None = None, notes: Sequence[str] = ()) -> Report:
    """Sum up the traces of a job, one of each rank, in the order of ranks.

    ``notes``: what is known of the job beside its traces.
    """
    matches = match(traces)
    ahead = clocks(matches.found, [trace.rank for trace in traces])
    late = _Late(matches, ahead)
    ranks = [_rank(trace, late) for trace in traces]
    sizes = [each.size for each in ranks if each.size is not None]
    sent = [each.sent for each in ranks]
    exposed = median(each.shares.exposed_share for each in ranks)
    waits = [
        each.waiting_ms / each.shares.total_comm_time
        for each in ranks
        if each.waiting_ms is not None and each.shares.total_comm_time
    ]
    waiting = min(1.0, median(waits)) if waits else None
    whole = not any(trace.without_kernel for trace in traces)
    return Report(
        ranks=ranks,
        rows=_rows(traces, matches, late),
        steps=max(each.steps for each in ranks),
        exposed_share=exposed,
        comm_share=median(each.shares.comm_share for each in ranks),
        bytes_per_step=sum(sizes) / len(sizes) if sizes else None,
        sent_bytes_per_step=None if None in sent else sum(filter(None, sent)) / len(sent),
        waiting_share=waiting,
        typical=_typical([each.shares for each in ranks]),
        verdict=_verdict(exposed, waiting, whole),
        notes=[*notes, *_notes(traces, matches, ahead)],
        job=job,
    )


def shares(trace: RankTrace) -> Shares:
    """The time of one rank, averaged over its steps."""
    return _apart(trace) if trace.apart else _averaged(trace, trace.steps)


def _apart(trace: RankTrace) -> Shares:
    """Of steps without operators: what is neither computation nor idle is exposed.

    These two are known from the steps with operators, whose recording is taken out of them.
    """
    alone = [_averaged(trace, [step]) for step in trace.apart]
    comp, idle, copies = (
        median(getattr(each, f"{name}_time") for each in alone)
        for name in ("computation", "idle", "exposed_memcpy")
    )
    busy = comp + idle + copies
    rest = max(0.0, busy - trace.added / 1e6)
    share = rest / busy if busy else 0.0
    exposed = total = comm = 0.0
    for step in trace.steps:
        talking = length(clip(trace.communication, step.start, step.end)) / 1e6
        took = (step.end - step.start) / 1e6
        exposed += min(talking, max(0.0, took - rest))
        comm += talking
        total += took
    steps = len(trace.steps)
    exposed, total, comm = exposed / steps, total / steps, comm / steps
    comp, copies = min(comp * share, total - exposed), copies * share
    copies = min(copies, total - exposed - comp)
    return Shares(comp, exposed, copies, total - exposed - comp - copies, total, comm)


def _averaged(trace: RankTrace, steps: Sequence[Step]) -> Shares:
    comp = exposed = copies = total = comm = 0
    for step in steps:
        bounds = step.start, step.end
        computing = clip(trace.computation, *bounds)
        talking = clip(trace.communication, *bounds)
        alone = subtract(talking, computing)
        copying = subtract(clip(trace.copies, *bounds), computing)
        comp += length(computing)
        comm += length(talking)
        exposed += length(alone)
        copies += length(subtract(copying, talking))
        total += step.end - step.start
    unit = 1e6 * len(steps)
    idle = total - comp - exposed - copies
    return Shares(
        comp / unit, exposed / unit, copies / unit, idle / unit, total / unit, comm / unit
    )


class _Late:
    """Who came last to each matched collective, and how long the others waited."""

    def __init__(self, matches: Matches, ahead: dict[int, int]) -> None:
        self.arrivals = {id(each): arrival(each, ahead) for each in matches.found}
        self.taken: dict[int, int] = defaultdict(int)
        self.behind: dict[int, list[int]] = defaultdict(list)
        self.waited: dict[int, int] = defaultdict(int)
        for each in matches.found:
            latency = each.latency
            for rank, record in each.on.items():
                self.waited[rank] += record.end - record.start - latency
            came = self.arrivals[id(each)]
            if came is not None:
                for rank in came.behind:
                    self.taken[rank] += 1
                if came.last is not None:
                    self.behind[came.last].append(came.skew)


def _rank(trace: RankTrace, late: _Late) -> Rank:
    sizes = [each.size for each in trace.counted if each.size is not None]
    sent = [each.sent for each in trace.counted]
    behind = late.behind.get(trace.rank, [])
    taken = late.taken.get(trace.rank, 0)
    return Rank(
        rank=trace.rank,
        file=trace.file,
        steps=len(trace.steps),
        shares=shares(trace),
        size=sum(sizes) / len(trace.steps) if sizes else None,
        sent=None if None in sent else sum(filter(None, sent)) / len(trace.steps),
        late=len(behind) / taken if taken else None,
        behind_ms=median(behind) / 1e6 if behind else None,
        waiting_ms=late.waited[trace.rank] / 1e6 / len(trace.steps) if taken else None,
    )


def _like(each: Collective) -> tuple[object, ...]:
    return each.kind, each.called, each.carrier, each.dtype, each.size, each.group.label


def _rows(traces: list[RankTrace], matches: Matches, late: _Late) -> list[Row]:
    records: dict[tuple[object, ...], list[tuple[int, Collective]]] = defaultdict(list)
    for trace in traces:
        for each in trace.counted:
            records[_like(each)].append((trace.rank, each))
    same: dict[tuple[object, ...], list[Match]] = defaultdict(list)
    for found in matches.found:
        same[_like(found.sample)].append(found)
    steps = {trace.rank: len(trace.steps) for trace in traces}
    rows = [_row(found, same[like], late, steps) for like, found in records.items()]
    return sorted(rows, key=lambda row: (-(row.bytes_per_step or 0), -row.per_step, row.kind))


def _row(
    records: list[tuple[int, Collective]], same: list[Match], late: _Late, steps: dict[int, int]
) -> Row:
    each = records[0][1]
    ranks = {rank for rank, _ in records}
    per_step = len(records) / sum(steps[rank] for rank in ranks)
    times = [found.latency for found in same] or [one.end - one.start for _, one in records]
    latency = median(times)
    came = [found for found in (late.arrivals[id(one)] for one in same) if found is not None]
    lasts = [one.last for one in came if one.last is not None]
    algbw = each.size / latency if each.size and latency else None  # bytes per ns are GB/s
    factor = bus_factor(each.kind, each.group.size)
    return Row(
        kind=each.kind,
        called=each.called,
        carrier=each.carrier,
        dtype=each.dtype,
        size=each.size,
        group=each.group.label,
        ranks=len(ranks),
        per_step=per_step,
        bytes_per_step=None if each.size is None else per_step * each.size,
        latency_ms=latency / 1e6,
        algbw=algbw,
        busbw=None if algbw is None or factor is None else algbw * factor,
        skew_ms=median(one.skew for one in came) / 1e6 if came else None,
        most_late=Counter(sorted(lasts)).most_common(1)[0][0] if lasts else None,
    )


def _typical(all_shares: list[Shares]) -> Shares:
    return Shares(
        *(
            median(getattr(each, name) for each in all_shares)
            for name in Shares.__dataclass_fields__
        )
    )


def _verdict(exposed: float, waiting: float | None, whole: bool) -> str:
    """``whole``: whether the traces show all communication."""
    percent, threshold = 100 * exposed, 100 * THRESHOLD
    above = percent > threshold
    # The fewest digits that show on which side of the threshold it is.
    digits = next(d for d in range(1, 20) if (round(percent, d) > threshold) == above)
    share = f"{percent:.{digits}f} % of a step is exposed communication"
    if not whole:
        known = f"Worth a closer look: at least {share}" if above else f"Not known: {share}"
        return f"{known} in these traces, and some communication is missing in them."
    if not above:
        return (
            f"Not worth it: {share}, and no change of the network can save more than that "
            f"(the threshold is {threshold:.0f} %)."
        )
    text = f"Worth a closer look: {share}, the most that faster communication can save"
    if waiting is None:
        return f"{text}; the traces do not show how much of it is waiting for other ranks."
    if waiting > 0.5:
        return (
            f"{text}; but {100 * waiting:.0f} % of the communication is waiting for a rank that "
            "comes later, which no faster network shortens."
        )
    return f"{text}; {100 * waiting:.0f} % of the communication is waiting for a later rank."


def _notes(traces: list[RankTrace], matches: Matches, ahead: dict[int, int]) -> list[str]:
    notes: list[str] = []
    world = traces[0].world_size or 0
    present = {trace.rank for trace in traces}
    gaps = pairwise([-1, *(trace.rank for trace in traces if trace.rank < world), world])
    missing = [(low + 1, high - 1) for low, high in gaps if high - low > 1]
    if missing:
        notes.append(lines.RANKS_MISSING.of(count=len(traces), world=world, ranks=_listed(missing)))
    whole = [trace.file for trace in traces if trace.whole]
    if whole:
        notes.append(lines.NO_STEPS.of(count=len(whole), first=whole[0]))
    every = [each for trace in traces for each in trace.collectives]
    sizeless = sum(each.size is None for each in every)
    if sizeless:
        notes.append(lines.NO_SIZES.of(count=sizeless, all=len(every)))
    if len(traces) > 1 and not matches.found:
        notes.append(lines.NOTHING_MATCHES.of())
    elif matches.odd:
        notes.append(lines.SOME_DIFFER.of(count=matches.odd))
    if matches.found and present - ahead.keys():
        notes.append(lines.CLOCK_UNKNOWN.of(ranks=_listed(_runs(present - ahead.keys()))))
    if any(trace.device == CPU and not trace.computation for trace in traces):
        notes.append(lines.NO_COMPUTATION.of())
    calls = sum(trace.without_kernel for trace in traces)
    if calls:
        notes.append(lines.NO_KERNELS.of(count=calls))
    return notes


def _runs(ranks: Iterable[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of ranks without a gap."""
    runs: list[tuple[int, int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], rank
        else:
            runs.append((rank, rank))
    return runs


def _listed(runs: list[tuple[int, int]]) -> str:
    """Runs of ranks as text: ``0, 3-7``."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
