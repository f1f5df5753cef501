"""The arguments of the client's longer calls, as immutable values."""

from dataclasses import dataclass

from wiresum.controller.on_full import OnFull


@dataclass(frozen=True)
class SlotRequest:
    """What to ask of the controller when a job is made."""

    slots: int = 0
    """Slots to ask for; 0: the controller's default."""
    min_slots: int = 0
    """The fewest that the job can do with; 0: the smallest lease."""
    on_full: OnFull = OnFull.FAIL
    """What happens when no switch has room."""
    queue_timeout_s: float | None = None
    """With ``WAIT``, how long to wait for room, at most a year; None: for ever."""
    started: bool = False
    """The training goes on while the job waits for room, summed by its ranks."""


DEFAULT_SLOTS = SlotRequest()


@dataclass(frozen=True)
class JoiningRank:
    """A rank that joins one attempt of a job, and where its socket is bound."""

    rank: int
    workers: int
    """Ranks of the attempt."""
    attempt: int
    """Grows with every restart."""
    ip: str
    udp_port: int
    field: int
    """Bits of a quantized element."""
    mac: str = ""
    program_version: str = ""
    """Of the switch program that the agent was built for; empty: not known."""
    owner: str = ""
    """The process group that has claimed the job; empty: the caller has claimed nothing."""
    change: int = 0
    """The change of the lease that all ranks have agreed on; 0: a first lease."""


@dataclass(frozen=True)
class GroupRank:
    """A rank of the process group ``owner``, which has claimed a job."""

    owner: str = ""
    rank: int = 0


NO_RANK = GroupRank()
"""The caller is no rank: a launcher, say."""


@dataclass(frozen=True)
class Declaration:
    """What a rank tells the others of when they agree on the boundary of a change."""

    rank: int
    epoch: int
    """Of the lease in use."""
    change: int
    started: int
    """The collectives that this rank has started since the epoch began."""
