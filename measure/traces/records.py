"""What a trace says, in plain records that know no file format.

Times are integers of nanoseconds on the clock of the rank; zero is the first event of its trace.
"""

from dataclasses import dataclass, field
from pathlib import Path

from wiresum.common.logs import one_line
from wiresum.measure.probe.links import Links
from wiresum.measure.traces.intervals import Intervals, union
from wiresum.measure.traces.names import sent_factor

NCCL, GLOO, WIRESUM = "nccl", "gloo", "wiresum"
GPU, CPU = "gpu", "cpu"


@dataclass(frozen=True)
class Group:
    """The ranks of a collective, as far as the trace names them."""

    name: str = ""
    ranks: tuple[int, ...] | None = None
    size: int | None = None

    @property
    def key(self) -> object:
        """The same on all ranks of the group."""
        return self.ranks if self.ranks is not None else (self.name, self.size)

    @property
    def label(self) -> str:
        """A short name for tables."""
        size = "" if self.size is None else f"{self.size} ranks"
        return " of ".join(filter(None, [self.name, size])) or "unknown"


@dataclass(frozen=True)
class Collective:
    """One collective on one rank.

    ``size``: bytes of the message as nccl-tests define them; None where the trace does not say.
    ``step``: the number of the step that issued it; None outside all steps. ``called``: what the
    script has called, where the trace tells that the backend does another collective for it.
    """

    kind: str
    carrier: str
    group: Group
    dtype: str | None
    size: int | None
    start: int
    end: int
    step: int | None = None
    called: str | None = None

    @property
    def sent(self) -> float | None:
        """Bytes that a rank sends for it, the mean over its ranks; None where that is unknown.

        wiresum's depend on its field and carrier, which a trace does not tell.
        """
        factor = sent_factor(self.kind, self.group.size)
        if self.size is None or factor is None or self.carrier == WIRESUM:
            return None
        return factor * self.size


@dataclass(frozen=True)
class Step:
    """One training step on one rank; ``number`` is the profiler's, None for a whole trace."""

    number: int | None
    start: int
    end: int


@dataclass(frozen=True)
class RankTrace:
    """The trace of one rank.

    ``device``: what computes, ``gpu`` or ``cpu``. ``computation`` and ``copies`` (memcpy of a GPU)
    are disjoint and sorted. ``without_kernel``: calls of NCCL in a trace that has no kernels.
    """

    rank: int
    world_size: int | None
    path: Path
    device: str
    steps: tuple[Step, ...]
    computation: Intervals
    copies: Intervals
    collectives: tuple[Collective, ...]
    without_kernel: int = 0
    apart: tuple[Step, ...] = ()
    """Steps with operators, if those of the figures have none; ``computation`` is in these."""
    added: int = 0
    """By how much the recording of operators lengthens one of them."""
    communication: Intervals = field(init=False)
    """When any collective runs."""

    def __post_init__(self) -> None:
        spans = union((each.start, each.end) for each in self.collectives)
        object.__setattr__(self, "communication", spans)

    @property
    def file(self) -> str:
        """The name of its file, as one line that can be printed."""
        return one_line(self.path.name)

    @property
    def counted(self) -> list[Collective]:
        """The collectives of the steps: the figures are of these."""
        numbers = {step.number for step in self.steps}
        return [each for each in self.collectives if each.step in numbers]

    @property
    def shown(self) -> tuple[Step, ...]:
        """Steps in which computation is to be seen."""
        return self.apart or self.steps

    @property
    def whole(self) -> bool:
        """Whether the trace has no steps, so that all of it is one."""
        return self.steps[0].number is None


@dataclass(frozen=True)
class Job:
    """The job that was run to be measured.

    ``command``: None where its traces were read from a folder. ``hosts``: of the ranks that have
    left a trace. ``overhead_share``: how much longer the profiler makes a step, as a share of a
    step without it; None if that is not known. ``links``: between the hosts. ``cores``: of a host,
    on which its ranks may run; None if that is not known.
    """

    command: str | None
    world_size: int
    hosts: tuple[str, ...]
    device: str
    backend: str
    overhead_share: float | None
    links: Links
    cores: int | None = None
