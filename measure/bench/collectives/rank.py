"""One rank of one side: a process that ``nursery.py`` has forked, inside the rank's namespace.

Takes orders as lines of JSON over a socket, and answers each with one.
"""

import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wiresum.common.errors import WiresumError
from wiresum.measure.bench.collectives.work import Task
from wiresum.measure.bench.data import Data


class Rank:
    """Carries out the orders."""

    def __init__(self, place: dict[str, Any]) -> None:
        """Join the group of the side. Raises what ``init_process_group`` raises."""
        torch.set_num_threads(1)
        from wiresum.host_agent import autoload

        autoload.register()
        self._rank, self._world = place["rank"], place["world"]
        self._field = place["field"]
        self._data = Data(Path(place["data"]))
        store = dist.FileStore(place["store"], self._world)  # type: ignore[attr-defined]
        dist.init_process_group(
            place["backend"],
            store=store,
            rank=self._rank,
            world_size=self._world,
            timeout=timedelta(seconds=place["limit_s"]),
        )
        self._task: Task | None = None

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order; the answer."""
        answer = getattr(self, f"do_{order['do']}")(order)
        return answer or {}

    def do_fill(self, order: dict[str, Any]) -> None:
        """Fresh data for ``ops`` collectives."""
        self._task = None  # free the memory first
        self._task = Task(order, self._rank, self._world, self._data)

    def do_go(self, order: dict[str, Any]) -> dict[str, Any]:
        """At the time ``at`` do all of them: back to back, or one every ``gap_s`` seconds.

        ``times``: say when each has begun and ended.
        """
        task, gap_s = self._filled(), float(order["gap_s"])
        before = _counters()
        times: list[tuple[float, float]] = []
        for number in range(task.ops):
            if number == 0 or gap_s:
                _sleep_until(order["at"] + number * gap_s)
            begun = time.monotonic()  # the same clock for all processes of a machine
            task.run(number)
            times.append((begun, time.monotonic()))
        after = _counters()
        answer: dict[str, Any] = {
            "begin": times[0][0],
            "end": times[-1][1],
            "counters": {name: after[name] - before[name] for name in after},
        }
        if order["times"]:
            answer["times"] = times
        return answer

    def do_check(self, order: dict[str, Any]) -> dict[str, Any]:
        """Compare the results with the reference; how many elements of them are wrong.

        ``spoil``: make one wrong before, as a control.
        """
        task = self._filled()
        if order["spoil"]:
            task.spoil()
        wrong, why = task.check(self._field)
        return {"wrong": wrong, "why": why, "all": task.digest(), "first": task.digest(1)}

    def do_model(self, _order: dict[str, Any]) -> dict[str, Any]:
        """Make the model of ``bench fsdp`` twice: with and without its collectives."""
        from wiresum.measure.bench.collectives.training import Training

        self._trainings = {
            communicates: Training(self._rank, communicates=communicates)
            for communicates in (True, False)
        }
        return {"parameters": self._trainings[True].parameters}

    def do_step(self, order: dict[str, Any]) -> dict[str, Any]:
        """A step of one of them."""
        before = _counters()
        begun, ended, loss = self._trainings[order["communicates"]].step()
        after = _counters()
        return {
            "begin": begun,
            "end": ended,
            "loss": loss,
            "fallback": sum(after[each] - before[each] for each in ("ranks", "fallback")),
        }

    def do_leave(self, _order: dict[str, Any]) -> None:
        """Leave the group."""
        self._task = None
        if dist.get_backend() == "gloo":
            dist.barrier()
        dist.destroy_process_group()

    def _filled(self) -> Task:
        assert self._task is not None
        return self._task


def serve(place: dict[str, Any]) -> None:
    """Connect to the crew, join the group, and obey until the crew is gone."""
    with socket.socket(socket.AF_UNIX) as crew:
        crew.connect(place["socket"])
        stream = crew.makefile("rw", encoding="utf-8")

        def say(words: dict[str, Any]) -> None:
            stream.write(json.dumps(words) + "\n")
            stream.flush()

        say({"rank": place["rank"], "pid": os.getpid()})
        rank: Rank | None = None
        for line in stream:
            order = json.loads(line)
            try:
                if rank is None:
                    rank = Rank(place)
                say(rank.obey(order) if order["do"] != "join" else {})
            except (WiresumError, RuntimeError, OSError, ValueError) as error:
                say({"error": " ".join(str(error).split()) or type(error).__name__})


def _sleep_until(moment: float) -> None:
    left = moment - time.monotonic()
    if left > 0:
        time.sleep(left)


def _counters() -> dict[str, int]:
    """How many collectives each path has taken so far, and what the engine has sent again."""
    from wiresum.host_agent import stats

    said = stats()
    return {
        "switch": sum(said["switch"].values()),
        "ranks": sum(said["ranks"].values()),
        "fallback": sum(sum(each.values()) for each in said["fallback"].values()),
        "retransmissions": int(said["engine"].get("retransmissions", 0)),
    }
