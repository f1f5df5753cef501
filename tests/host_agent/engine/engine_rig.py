"""Several engines of one job in this process, around one reference switch."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reference_switch import Address, Faults, Lease, ReferenceSwitch, UdpSwitch
from wiresum.host_agent import _engine
from wiresum.host_agent.engine import Completion, Engine, EngineOptions, UdpSocket, raise_for
from wiresum.host_agent.engine import Lease as EngineLease

JOB, EPOCH, KEY = 3, 7, 0x0123456789ABCDEF
REPLY_KEY = 0xFEDCBA9876543210
LIMIT_S = 30.0


def engine_threads() -> int:
    """Engine threads of this process, by their name in the kernel."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            count += (task / "comm").read_text().strip() == "wiresum-engine"
    return count


def eventually(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until ``condition`` holds; fails with ``what`` after the limit."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.002)


class Rig:
    """``workers`` engines, a lease of ``slots`` and a switch that has it; a context manager."""

    def __init__(
        self,
        workers: int,
        *,
        field: int = 32,
        lanes: int = 64,
        slots: int = 64,
        faults: Faults | None = None,
        epoch: int = EPOCH,
        rules: ReferenceSwitch | None = None,
        **options: Any,
    ) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(workers)]
        for each in self.sockets:
            each.bind(("127.0.0.1", 0))
        self.addresses: list[Address] = [each.getsockname() for each in self.sockets]
        self.rules = rules or ReferenceSwitch(lanes)
        self.rules.leases.append(
            Lease(JOB, epoch, KEY, REPLY_KEY, 16, slots, tuple(self.addresses))
        )
        self.switch = UdpSwitch(self.rules, faults)
        self.faults = self.switch.faults
        self.workers, self.field, self.lanes, self.slots = workers, field, lanes, slots
        self.trains = {name: options.pop(name) for name in ("gso", "gro") if name in options}
        self.epoch, self.options = epoch, options
        self.engines: list[Engine] = []
        self._kept: list[list[NDArray[Any]]] = []  # the engines write into them

    def engine(self, rank: int) -> Engine:
        """Start the engine of one rank."""
        ip, port = self.switch.address
        lease = EngineLease(
            switch_ip=ip, switch_udp_port=port, switch_name="s1", rank=rank, workers=self.workers,
            job=JOB, epoch=self.epoch, key=KEY, reply_key=REPLY_KEY, slots=self.slots,
            lanes=self.lanes, field=self.field,
        )  # fmt: skip
        sock = UdpSocket(fd=self.sockets[rank].fileno()).replace(**self.trains)
        return Engine(sock, lease, EngineOptions(**self.options))

    def __enter__(self) -> Self:
        self.switch.__enter__()
        self.engines = [self.engine(rank) for rank in range(self.workers)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for engine in self.engines:
            engine.close()
        for each in self.sockets:
            each.close()
        self.switch.__exit__(kind, error, trace)

    def start(
        self, arrays: list[NDArray[Any]], dtype: str = "", average: bool = False
    ) -> list[int]:
        """Queue one all-reduce on all ranks, in place; returns the tickets."""
        self._kept.append(arrays)
        return [
            engine.all_reduce(array.ctypes.data, array.size, dtype or name_of(array), average)
            for engine, array in zip(self.engines, arrays, strict=True)
        ]

    def finish(self, tickets: list[int]) -> None:
        """Wait for one ticket per rank; raises the first error."""
        for completion in self.completions(tickets):
            raise_for(completion)

    def completions(self, tickets: list[int]) -> list[Completion]:
        """Wait for one ticket per rank."""
        done = []
        for engine, ticket in zip(self.engines, tickets, strict=True):
            completion = engine.wait(ticket, LIMIT_S)
            assert completion is not None, "the engine neither finished nor gave up"
            done.append(completion)
        return done

    def total(self, name: str) -> int:
        """A counter over all ranks."""
        return sum(int(engine.stats()[name]) for engine in self.engines)


def normal(workers: int, count: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """One random tensor per rank, some blocks of it zero on all ranks."""
    random = np.random.default_rng(seed)
    arrays = [random.standard_normal(count).astype(np.float32) for _ in range(workers)]
    for block in range(0, count, 256):
        if random.random() < 0.25:
            for each in arrays:
                each[block : block + 256] = 0
    return arrays


def name_of(array: NDArray[Any]) -> str:
    """The engine's name of an array's dtype: of uint32 it finds the largest."""
    return {"uint32": "max_uint32"}.get(array.dtype.name, array.dtype.name)


def words(
    random: np.random.Generator, workers: int, count: int, dtype: type[np.int32] | type[np.uint32]
) -> list[NDArray[Any]]:
    """One random tensor of words per rank, some blocks of it zero on all ranks."""
    limits = np.iinfo(dtype)
    made = [random.integers(limits.min, limits.max, count, dtype, True) for _ in range(workers)]
    for block in range(0, count, 256):
        if random.random() < 0.25:
            for each in made:
                each[block : block + 256] = 0
    return made


def codec_alone(ranks: list[NDArray[Any]], field: int, dtype: str, average: bool) -> bytes:
    """What the collective must give: the codec and a plain sum of its lanes; numpy's of words."""
    if dtype == "int32":
        return sum((each.view(np.uint32) for each in ranks), start=np.uint32(0)).tobytes()
    if dtype == "max_uint32":
        return np.maximum.reduce(ranks).tobytes()
    block, field = _engine.layout(ranks[0].size, field)
    codes = np.maximum.reduce([_engine.exponents(each, dtype, block=block) for each in ranks])
    total = sum(
        (_engine.encode(each, dtype, codes, len(ranks), field, block=block) for each in ranks),
        start=np.uint32(0),
    )
    assert isinstance(total, np.ndarray)
    result = np.empty_like(ranks[0])
    total = total.astype(np.uint32)
    _engine.decode(total, result, dtype, codes, len(ranks), field, average, block=block)
    return result.tobytes()


class InThread(threading.Thread):
    """Run a call in a thread and hand back its result or its exception."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._error: BaseException | None = None
        self._value: Any = None
        self.start()

    def run(self) -> None:
        """Make the call."""
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Wait for the call to end."""
        self.join(LIMIT_S)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._value
