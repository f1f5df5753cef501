"""Ranks that are linked over real sockets in this process, with engines that the test sets."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from wiresum.common.errors import WiresumError
from wiresum.host_agent.agent.issued import Issued
from wiresum.host_agent.agent.peers.address import listen
from wiresum.host_agent.agent.peers.meeting import Meeting
from wiresum.host_agent.agent.peers.member import Member
from wiresum.host_agent.agent.peers.peers import Peers
from wiresum.host_agent.agent.peers.wire import new_secret
from wiresum.host_agent.errors import EngineError

LIMIT_S = 30.0


@dataclass
class At:
    """One stream of an engine."""

    oldest: int = 0
    next: int = 0
    wait: tuple[int, int] | None = None
    wait_s: float | None = 0.0


@dataclass
class HandEngine:
    """Is where the test says; notes what it is ended with."""

    asked: int = 0
    ended: int = 0
    completed: int = 0
    data: At = field(default_factory=At)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def positions(self) -> dict[str, At]:
        return {"exponent": At(), "data": self.data}

    def fail(self, kind: str, line: str) -> None:
        self.failed.append((kind, line))

    def waits(self, chunk: int, there: int) -> None:
        """One all-reduce is in flight, and the switch waits for others at this chunk."""
        self.asked, self.data = self.ended + 1, At(chunk, chunk + 1, (chunk, there), 0.0)

    def has(self, chunk: int) -> None:
        """All results below ``chunk``."""
        self.data = At(chunk, chunk)


@dataclass
class Rank:
    """One linked rank."""

    engine: HandEngine
    peers: Peers
    over: list[EngineError]
    left: list[tuple[int, str]]
    """(epoch, why) of each time that it was told to leave the switch."""
    issued_here: list[Issued] = field(default_factory=list)
    aborted: list[WiresumError] = field(default_factory=list)

    def issued(self) -> Sequence[Issued]:
        return tuple(self.issued_here)

    def abort(self, error: WiresumError) -> None:
        self.aborted.append(error)


def meeting() -> Meeting:
    """On loopback."""
    listeners = listen("127.0.0.1", {"GLOO_SOCKET_IFNAME": "lo"})
    address = listeners[0].getsockname()
    return Meeting(new_secret(), "h0", [(address[0], address[1])], listeners)


@contextmanager
def linked(
    workers: int, where: Meeting | None = None, *, leaves: bool = False
) -> Iterator[list[Rank]]:
    """All ranks of a group; rank 0 is made last, as the others must find it whenever it comes.

    ``leaves``: the ranks can leave the switch.
    """
    import threading

    where = where or meeting()
    made: dict[int, Rank] = {}

    def make(rank: int) -> None:
        engine, over = HandEngine(), []
        left: list[tuple[int, str]] = []
        leave = (lambda epoch, why: left.append((epoch, why))) if leaves else None
        theirs = where if rank == 0 else Meeting(where.secret, where.host, where.addresses)
        peers = Peers(theirs, workers, Member(rank, engine, lambda: 7, over.append, leave))
        made[rank] = Rank(engine, peers, over, left)
        peers.watch(made[rank])

    threads = [threading.Thread(target=make, args=[rank]) for rank in reversed(range(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    ranks = [made[rank] for rank in range(workers)]
    assert all(rank.peers.describe()["complete"] for rank in ranks)
    try:
        yield ranks
    finally:
        for rank in reversed(ranks):
            with contextlib.suppress(OSError):
                rank.peers.leave()


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def vanish(rank: Rank) -> None:
    """As a killed process does: the kernel closes its sockets, and nothing is said."""
    rank.peers._role.close()
