"""Ranks of one job in this process that change their lease: engines, a switch, a controller.

The switch is the reference switch, the controller a model of what the .proto says of changes; its
answers can be lost, delayed and refused.
"""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_switch import Faults, Lease, ReferenceSwitch, UdpSwitch
from wiresum.controller.errors import ControllerError
from wiresum.host_agent.agent.change import change_lease
from wiresum.host_agent.agent.face import Call, Ended
from wiresum.host_agent.agent.join import APART
from wiresum.host_agent.agent.network import WorkerSocket
from wiresum.host_agent.agent.relay import Relay
from wiresum.host_agent.engine import Engine, EngineOptions, UdpSocket
from wiresum.host_agent.engine import Lease as EngineLease

JOB, LANES, LIMIT_S = 3, 64, 40.0

Fault = Callable[[int, str, str], None]
"""Called with (rank, step, "before" or "after"); what it raises, the rank's call raises."""


def unavailable() -> ControllerError:
    """The controller is away."""
    return ControllerError("UNAVAILABLE", "controller 127.0.0.1:1 cannot be reached")


def no_fault(_rank: int, _step: str, _when: str) -> None:
    """Nothing goes wrong."""


@dataclass
class ModelController:
    """One job's leases: a boundary once all ranks have declared, a move once all have joined.

    Cancels a change that not all ranks have declared in ``vote_s``, and none that has a boundary.
    """

    workers: int
    rules: ReferenceSwitch
    fault: Fault = no_fault
    vote_s: float = 2.0
    slots: int = 64
    epoch: int = 100
    change: int = 0
    announced: int = 0
    moves: list[int] = field(default_factory=list)
    declared: dict[int, int] = field(default_factory=dict)
    _boundary: int | None = None
    cancelled: bool = False
    _joined: dict[int, tuple[str, int]] = field(default_factory=dict)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def announce(self, slots: int) -> int:
        """Want another lease."""
        with self._news:
            self.announced += 1
            self.slots = slots
            self.declared, self._joined = {}, {}
            self._boundary, self.cancelled = None, False
            return self.announced

    def declare(self, rank: int, change: int, started: int) -> int | None:
        self.fault(rank, "declare", "before")
        deadline = time.monotonic() + self.vote_s
        with self._news:
            if change != self.announced or self.cancelled:
                return None
            self.declared[rank] = started
            if len(self.declared) == self.workers and self._boundary is None:
                self._boundary = max(self.declared.values())
            assert self._boundary is None or started <= self._boundary, "it has gone on"
            self._news.notify_all()
            while self._boundary is None and not self.cancelled:
                if not self._news.wait(max(deadline - time.monotonic(), 0.0)):
                    self.cancel()
            answer = None if self.cancelled else self._boundary
        self.fault(rank, "declare", "after")
        return answer

    def join(self, rank: int, change: int, address: tuple[str, int], limit_s: float) -> Lease:
        self.fault(rank, "join", "before")
        deadline = time.monotonic() + limit_s
        with self._news:
            assert change == self.announced
            assert self._boundary is not None
            self._joined[rank] = address
            if len(self._joined) == self.workers and self.change != change:
                self._move(change)
            self._news.notify_all()
            while self.change != change:
                late = not self._news.wait(max(deadline - time.monotonic(), 0.0))
                if late and self.change != change:
                    missing = [r for r in range(self.workers) if r not in self._joined]
                    del self._joined[rank]
                    raise ControllerError("DEADLINE_EXCEEDED", f"ranks {missing} did not join")
            lease = self.rules.leases[-1]
        self.fault(rank, "join", "after")
        return lease

    def cancel(self) -> None:
        """Call the change off."""
        with self._news:
            self.cancelled = True
            self._news.notify_all()

    def _move(self, change: int) -> None:
        self.epoch += 1
        self.change = change
        addresses = tuple(self._joined[rank] for rank in range(self.workers))
        base = 0 if self.rules.leases[-1].slot_base else 128
        keys = self.epoch * 7, self.epoch * 11
        made = Lease(JOB, self.epoch, *keys, base, self.slots, addresses)
        self.rules.leases[:] = [made]  # all ranks are there: nobody needs the one before
        self.moves.append(change)


class Rank:
    """One rank: a relay, a thread that polls it, and a seat at the controller."""

    def __init__(self, rank: int, rig: "ChangeRig", lease: Lease, sock: socket.socket) -> None:
        self.rank = rank
        self.rig = rig
        self.epoch = lease.epoch
        with sock:
            self._tickets = itertools.count()
            self.relay = rig.relay_of(rank, lease, rig.engine(rank, lease, sock, 0))
        self.ended: dict[int, Ended] = {}
        self.gone = threading.Event()
        self._closed = threading.Event()
        self._news = threading.Condition()
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._poller.start()

    def _poll(self) -> None:
        while True:
            last = self._closed.is_set()  # looked at before: what it ended is still to come
            batch = self.relay.poll(0.1)
            with self._news:
                for each in batch:
                    assert each.ticket not in self.ended, "ended twice"
                    self.ended[each.ticket] = each
                self._news.notify_all()
            if last and not batch:
                return

    def wait(self, ticket: int) -> Ended:
        with self._news:
            assert self._news.wait_for(lambda: ticket in self.ended, LIMIT_S), f"{ticket} hangs"
            return self.ended[ticket]

    def all_reduce(self, data: NDArray[np.float32]) -> int:
        ticket = next(self._tickets)
        self.relay.collect([Call(data.ctypes.data, data.size, "float32", False, ticket)])
        return ticket

    # -- see wiresum.host_agent.agent.change.Seat

    def declare(self, lease: Any, change: int, started: int) -> int | None:
        return self.rig.controller.declare(self.rank, change, started)

    def open_socket(self) -> WorkerSocket:
        sock = bound_socket()
        return WorkerSocket(sock, *sock.getsockname())

    def rejoin(self, change: int, sock: WorkerSocket, waited_s: float) -> Any:
        address = sock.ip, sock.udp_port
        return self.rig.controller.join(self.rank, change, address, self.rig.join_s)

    def start(self, sock: WorkerSocket, lease: Any, done: int) -> Engine:
        self.epoch = lease.epoch
        return self.rig.engine(self.rank, lease, sock.socket, done)

    # --

    def change(self, number: int) -> bool:
        """Make a change; blocks."""
        changed = change_lease(
            self.relay,
            self,
            None,  # type: ignore[arg-type]
            number,
            limit_s=self.rig.limit_s,
            stopped=self.gone.is_set,
        )
        return changed is not None

    def leave(self) -> None:
        self.gone.set()
        self.relay.close()
        self._closed.set()
        self._poller.join(LIMIT_S)


class ChangeRig:
    """``workers`` ranks around one switch; a context manager."""

    def __init__(
        self,
        workers: int,
        *,
        fault: Fault = no_fault,
        limit_s: float = 20.0,
        join_s: float = 2.0,
        timeout_s: float = 20.0,
        faults: Faults | None = None,
        relay_of: Callable[[int, Lease, Engine], Relay] = lambda _rank, _lease, engine: Relay(
            engine
        ),
    ) -> None:
        self.relay_of = relay_of
        self.workers, self.limit_s, self.join_s = workers, limit_s, join_s
        self.timeout_s = timeout_s
        self.rules = ReferenceSwitch(LANES)
        self.switch = UdpSwitch(self.rules, faults)
        self.controller = ModelController(workers, self.rules, fault)
        self.ranks: list[Rank] = []

    def engine(self, rank: int, lease: Lease, sock: socket.socket, done: int) -> Engine:
        ip, port = self.switch.address
        leased = EngineLease(
            switch_ip=ip, switch_udp_port=port, switch_name="s1", rank=rank, workers=self.workers,
            job=lease.job, epoch=lease.epoch, key=lease.key, reply_key=lease.reply_key,
            slots=lease.slot_count, lanes=LANES, field=32,
        )  # fmt: skip
        options = EngineOptions(
            timeout_s=self.timeout_s,
            switch_timeout_s=self.timeout_s,
            first_position=done * APART,
        )
        return Engine(UdpSocket(fd=sock.fileno()), leased, options)

    def __enter__(self) -> "ChangeRig":
        self.switch.__enter__()
        sockets = [bound_socket() for _ in range(self.workers)]
        addresses = tuple(each.getsockname() for each in sockets)
        lease = Lease(JOB, self.controller.epoch, 9, 10, 128, 64, addresses)
        self.rules.leases.append(lease)
        self.ranks = [Rank(rank, self, lease, sock) for rank, sock in enumerate(sockets)]
        return self

    def __exit__(self, *error: Any) -> None:
        for rank in self.ranks:
            rank.leave()
        self.switch.__exit__(*error)

    def change(self, slots: int) -> list[bool]:
        """Announce a change and make it on all ranks: whether each has the new lease."""
        return [outcome.result() for outcome in self.changing(slots)]

    def changing(self, slots: int, *, but: tuple[int, ...] = ()) -> list["Outcome"]:
        """Announce a change and begin it on all ranks (``but`` those)."""
        number = self.controller.announce(slots)
        return [
            Outcome(lambda rank=rank: rank.change(number))  # type: ignore[misc]
            for rank in self.ranks
            if rank.rank not in but
        ]


class Outcome(threading.Thread):
    """What a call in another thread comes to."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(LIMIT_S)
        assert not self.is_alive(), "hangs"
        if self._error is not None:
            raise self._error
        return self._value


class Loop:
    """All ranks all-reduce integers for ever, ``depth`` in flight, and check every sum."""

    def __init__(
        self, rig: ChangeRig, depth: int = 8, pause_s: float = 0.0, size: int | None = None
    ) -> None:
        self.rig, self.depth, self.pause_s, self._size = rig, depth, pause_s, size
        self.stop_at: int | None = None
        self.counts = [0] * rig.workers
        self._lock = threading.Lock()
        self.threads = [Outcome(lambda r=r: self._run(r)) for r in rig.ranks]  # type: ignore[misc]

    def size(self, number: int) -> int:
        return self._size or 1 + number * 977 % 3000

    def data(self, rank: int, number: int) -> NDArray[np.float32]:
        random = np.random.default_rng([number, rank])
        return random.integers(-1000, 1000, self.size(number)).astype(np.float32)

    def _run(self, rank: Rank) -> list[str]:
        """All-reduces until told to stop; the errors met (it ends with the first)."""
        flying: list[tuple[int, int, NDArray[np.float32]]] = []
        errors: list[str] = []

        def settle() -> None:
            number, ticket, tensor = flying.pop(0)
            ended = rank.wait(ticket)
            if ended.error is not None:
                errors.append(ended.error)
                return
            want = sum(self.data(r, number).astype(np.int64) for r in range(self.rig.workers))
            assert np.array_equal(tensor.astype(np.int64), want), f"wrong sum of {number}"

        for number in itertools.count():
            with self._lock:
                if number == self.stop_at:
                    break
                self.counts[rank.rank] = number + 1
            if rank.gone.is_set():
                return errors
            tensor = self.data(rank.rank, number)
            try:
                flying.append((number, rank.all_reduce(tensor), tensor))
            except Exception as error:
                errors.append(str(error))
            if len(flying) >= self.depth:
                settle()
            if errors:
                return errors
            time.sleep(self.pause_s * (rank.rank + 1))
        while flying and not errors:
            settle()
        return errors

    def reach(self, count: int) -> None:
        """Wait until all ranks have started so many more."""
        goal = min(self.counts) + count
        eventually(lambda: min(self.counts) >= goal, f"all ranks have started {goal}")

    def stop(self) -> int:
        """End after the same collective on all ranks; how many there were."""
        with self._lock:
            self.stop_at = max(self.counts) + 1
        return self.stop_at

    def finish(self) -> list[list[str]]:
        """The errors that each rank met."""
        return [thread.result() for thread in self.threads]


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until ``condition`` holds; fails with ``what`` after the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s: {what}"
        time.sleep(0.002)


def bound_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextmanager
def looping(rig: ChangeRig, **options: Any) -> Iterator[Loop]:
    """A loop that is ended with the block, whatever happens."""
    with rig:
        loop = Loop(rig, **options)
        try:
            yield loop
        finally:
            loop.stop()
            for rank in rig.ranks:
                with contextlib.suppress(Exception):
                    if any(thread.is_alive() for thread in loop.threads):
                        loop.threads[rank.rank].join(5.0)
