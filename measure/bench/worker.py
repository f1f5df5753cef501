"""One rank of the all-reduce benchmark, on one side of the comparison.

Started by ``crew.py`` inside the rank's namespace; lives as long as the benchmark. Takes orders as
lines of JSON on stdin and answers each with one on stdout. Not run by hand.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wiresum.common.errors import WiresumError
from wiresum.measure import lines
from wiresum.measure.bench.cases import RANKS
from wiresum.measure.bench.data import Data, Floats, WrongResult
from wiresum.measure.bench.links import INTERFACE
from wiresum.testbed.errors import RackError

if TYPE_CHECKING:
    from wiresum.host_agent.agent.network import WorkerSocket
    from wiresum.host_agent.agent.ranks import RanksEngine
    from wiresum.host_agent.engine import Engine

LEAD_IN = 64 * 1024 // 4
"""Elements of the all-reduce that goes before those whose time is taken: it aligns the ranks, and
leaves the links with no credit from having been idle."""


class Side(ABC):
    """What reduces: wiresum's engine, or gloo."""

    @abstractmethod
    def use(self, order: dict[str, Any]) -> None:
        """Choose the engine or group for the all-reduces that follow."""

    @abstractmethod
    def reduce(self, tensor: Floats) -> None:
        """All-reduce in place, and wait for the result."""

    def counters(self) -> dict[str, float]:
        """The counters of this side."""
        return {}

    def codec(self) -> tuple[int | None, int]:
        """Field and L; None for float32 all the way."""
        return None, 0


class Wiresum(Side):
    """The worker engine, as the torch backend uses it; the leases come from the benchmark."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._sockets: dict[str, WorkerSocket] = {}
        self._engines: dict[str, Engine] = {}
        self._order: dict[str, Any] = {}

    def bind(self, order: dict[str, Any]) -> dict[str, Any]:
        """A socket towards the switch for the job of one side; where it is."""
        from wiresum.host_agent.agent.network import mac_of, shm_socket, udp_socket

        if order["shm"] is None:
            sock = udp_socket(order["ip"], order["udp_port"])
        else:
            size = order["lanes"], order["slots"]
            sock = shm_socket(order["shm"], order["ip"], *size, self._limit_s)
        self._sockets[order["side"]] = sock
        return {"ip": sock.ip, "udp_port": sock.udp_port, "mac": mac_of(sock.ip)}

    def lease(self, order: dict[str, Any]) -> None:
        """Start the engine for a lease."""
        from wiresum.host_agent.engine import Engine, EngineOptions, Lease

        side = order["side"]
        if side in self._engines:
            self._engines.pop(side).close()
        sock = self._sockets.pop(side)
        options = EngineOptions(timeout_s=self._limit_s)
        with sock.socket:
            self._engines[side] = Engine(sock.for_engine(), Lease(**order["lease"]), options)

    def use(self, order: dict[str, Any]) -> None:
        """The engine of one side."""
        self._order = order

    def reduce(self, tensor: Floats) -> None:
        """Through the switch."""
        from wiresum.host_agent.engine import raise_for

        engine = self._engines[self._order["side"]]
        ticket = engine.all_reduce(tensor.ctypes.data, tensor.size, "float32", False)
        done = engine.wait(ticket, self._limit_s)
        if done is None:
            raise RackError(lines.NO_RESULT.of(limit_s=self._limit_s))
        raise_for(done)

    def counters(self) -> dict[str, float]:
        """The engine's."""
        return dict(self._engines[self._order["side"]].stats())

    def codec(self) -> tuple[int | None, int]:
        """Field and L."""
        from wiresum.host_agent._engine import budget

        field = int(self._order["field"])
        return field, budget(self._order["workers"], field)

    def close(self) -> None:
        """End the engines."""
        while self._engines:
            self._engines.popitem()[1].close()


class Gloo(Side):
    """``torch.distributed.all_reduce`` over gloo, on one thread; or wiresum's lanes over gloo."""

    def __init__(self, rank: int, world: int, store: str, limit_s: float) -> None:
        self._limit_s = limit_s
        self._field: int | None = None
        self._workers = 0
        self._engines: dict[tuple[int, int], RanksEngine] = {}
        self._engine: Any = None
        self._tickets = 0
        os.environ["GLOO_SOCKET_IFNAME"] = INTERFACE
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        self._torch, self._dist = torch, dist
        files = dist.FileStore(store)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", rank=rank, world_size=world, store=files)
        self._groups: dict[tuple[str, int], Any] = {}
        self._group: Any = None

    def group(self, order: dict[str, Any]) -> None:
        """Connect groups of each size, with the congestion control that TCP uses now."""
        for count in order["counts"]:
            group = self._dist.new_group(list(range(count)))
            self._groups[order["side"], count] = group

    def use(self, order: dict[str, Any]) -> None:
        """The group of so many workers; with a field, the engine over one of them."""
        self._field, self._workers = order["field"], order["workers"]
        if self._field is None:
            self._group = self._groups[order["side"], self._workers]
            return
        key = self._field, self._workers
        if key not in self._engines:
            from wiresum.host_agent.agent.ranks import RanksEngine
            from wiresum.host_agent.backend.gloo_sums import GlooSums

            group = self._groups[RANKS, self._workers]
            sums = GlooSums(lambda: group, self._workers, self._limit_s)
            self._engines[key] = RanksEngine(sums, self._workers, self._field)
        self._engine = self._engines[key]

    def codec(self) -> tuple[int | None, int]:
        """Field and L."""
        from wiresum.host_agent._engine import budget

        field = self._field
        return (None, 0) if field is None else (field, budget(self._workers, field))

    def reduce(self, tensor: Floats) -> None:
        """Over gloo's ring."""
        if self._field is not None:
            from wiresum.host_agent.agent.face import Call
            from wiresum.host_agent.errors import engine_error

            self._tickets += 1
            call = Call(tensor.ctypes.data, tensor.size, "float32", False, self._tickets)
            self._engine.collect([call])
            (ended,) = self._engine.poll(self._limit_s) or [None]
            if ended is None:
                raise RackError(lines.NO_RESULT.of(limit_s=self._limit_s))
            if ended.error is not None:
                raise engine_error(ended.kind, ended.error)
            return
        self._dist.all_reduce(self._torch.from_numpy(tensor), group=self._group)


class Worker:
    """Carries out the orders."""

    def __init__(self, side: Side, rank: int, data: Data) -> None:
        self._side = side
        self._rank = rank
        self._data = data
        self._memory = np.empty(0, np.float32)
        self._tensors: list[Floats] = []
        self._lead = np.empty(0, np.float32)
        self._order: dict[str, Any] = {}

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; the answer."""
        answer = getattr(self, f"do_{order['do']}")(order)
        return answer or {}

    def do_bind(self, order: dict[str, Any]) -> dict[str, Any]:
        """See :class:`Wiresum`."""
        assert isinstance(self._side, Wiresum)
        return self._side.bind(order)

    def do_lease(self, order: dict[str, Any]) -> None:
        """See :class:`Wiresum`."""
        assert isinstance(self._side, Wiresum)
        self._side.lease(order)

    def do_group(self, order: dict[str, Any]) -> None:
        """See :class:`Gloo`."""
        assert isinstance(self._side, Gloo)
        self._side.group(order)

    def do_fill(self, order: dict[str, Any]) -> None:
        """Fresh data for ``ops`` all-reduces of ``elements`` elements."""
        self._order = order
        self._side.use(order)
        count, ops = order["elements"], order["ops"]
        if self._memory.size != count * ops:
            self._memory = np.empty(count * ops, np.float32)
        self._tensors = list(self._memory.reshape(ops, count))
        for number, tensor in enumerate(self._tensors):
            key = (order["round"], number)
            self._data.contribution(key, self._rank, 0, tensor, order["integers"])
        self._lead = np.empty(min(count, LEAD_IN), np.float32)
        self._data.contribution((order["round"], -1 & 0xFFFF), self._rank, 0, self._lead, False)

    def do_go(self, _order: dict[str, Any]) -> dict[str, Any]:
        """Reduce: the lead-in, then what is timed, one after the other."""
        side = self._side
        before = side.counters()
        side.reduce(self._lead)
        begin = time.monotonic()  # the same clock for all processes of a machine
        for tensor in self._tensors:
            side.reduce(tensor)
        end = time.monotonic()
        after = side.counters()
        return {
            "begin": begin,
            "end": end,
            "counters": {name: after[name] - before.get(name, 0) for name in after},
            "now": {name: after[name] for name in ("window", "rtt_us") if name in after},
        }

    def do_spoil(self, _order: dict[str, Any]) -> None:
        """Make one result wrong by its lowest bit but four: a control."""
        self._tensors[-1].view(np.uint32)[-1] ^= 16

    def do_digest(self, _order: dict[str, Any]) -> dict[str, Any]:
        """A hash of the results."""
        return {"digest": hashlib.sha256(self._memory.data).hexdigest()}

    def do_check(self, _order: dict[str, Any]) -> None:
        """Compare the results with the sums of what all ranks contributed."""
        order = self._order
        field, level = self._side.codec()
        for number, tensor in enumerate(self._tensors):
            key = (order["round"], number)
            self._data.check(key, order["workers"], tensor, order["integers"], field, level)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=("wiresum", "gloo"), required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--limit", type=float, required=True)
    asked = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the output of a library must not look like an answer
    side: Side
    if asked.side == "wiresum":
        side = Wiresum(asked.limit)
    else:
        side = Gloo(asked.rank, asked.world, asked.store, asked.limit)
    worker = Worker(side, asked.rank, Data(asked.data))
    print(json.dumps({}), file=answers)
    for line in sys.stdin:
        try:
            answer = worker.obey(json.loads(line))
        except (WiresumError, WrongResult, RuntimeError, OSError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            answer = {"error": said, "wrong": isinstance(error, WrongResult)}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
