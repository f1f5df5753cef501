"""A training step as it is today: the figures that a prediction starts from."""

from dataclasses import dataclass
from functools import cached_property

COMPRESSIBLE = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Message:
    """Collectives of one kind and size. ``size``: bytes, nccl-tests' S.

    ``called``: what the script has called; gloo's reduce-scatter is an all-reduce.
    """

    kind: str
    carrier: str
    dtype: str | None
    size: int
    ranks: int
    per_step: float
    called: str = "all_reduce"


@dataclass(frozen=True)
class Job:
    """Seconds per step, of the median rank.

    ``comm_s``: with any collective running; ``exposed_s``: of these, without computation;
    ``waiting_s``: of these, for ranks that come later. ``lowest_s``, ``highest_s``: the step of the
    fastest and the slowest rank. ``ranks_per_core``: of a host, what its ranks have to share; None
    if that is not known.
    """

    workers: int
    step_s: float
    comm_s: float
    exposed_s: float
    waiting_s: float
    messages: tuple[Message, ...]
    device: str = "cpu"
    lowest_s: float | None = None
    highest_s: float | None = None
    ranks_per_core: float | None = None

    @property
    def exposed_share(self) -> float:
        """Of the step."""
        return self.exposed_s / self.step_s if self.step_s else 0.0

    @property
    def crowding(self) -> float:
        """Ranks per core; as if each had four where that is not known."""
        return 0.25 if self.ranks_per_core is None else self.ranks_per_core

    @property
    def overlapped_s(self) -> float:
        """Communication behind computation."""
        return max(0.0, self.comm_s - self.exposed_s)

    @property
    def net_s(self) -> float:
        """Communication without the waiting: what links and codecs can change."""
        return max(0.0, self.comm_s - self.waiting_s)

    @cached_property
    def gradients(self) -> tuple[Message, ...]:
        """The messages that compression and switches apply to: all-reduces of floats by all ranks.

        A DDP hook sees buckets of gradients alone; what is smaller than a block's worth of them
        (norms, flags, metrics) is as short with any remedy.
        """
        return tuple(
            each
            for each in self.messages
            if each.kind == each.called == "all_reduce"
            and each.dtype in COMPRESSIBLE
            and each.ranks == self.workers
            and each.size > 4096
        )

    @cached_property
    def others(self) -> tuple[Message, ...]:
        """All other messages."""
        chosen = set(map(id, self.gradients))
        return tuple(each for each in self.messages if id(each) not in chosen)

    @property
    def buckets(self) -> float:
        """Gradients' all-reduces per step."""
        return sum(each.per_step for each in self.gradients)

    @property
    def gradient_bytes(self) -> float:
        """Bytes of gradients per step."""
        return sum(each.per_step * each.size for each in self.gradients)
