"""Follows the steps of one rank: records some, times others, and writes what it has seen.

A step ends where the first optimizer that takes a step in this process has taken it, or, once that
one is gone, the next. What is written goes into one folder: the Chrome trace ``rankN.json`` and the
facts ``rankN.observed``.
"""

import json
import logging
import os
import socket
import time
import weakref
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from wiresum.host_agent.observe.probe import probe
from wiresum.host_agent.observe.recorder import Apart, Recorder
from wiresum.host_agent.observe.schedule import Phase, Schedule, Took

log = logging.getLogger("wiresum")

KIND = "wiresum observed"

_APART = "apart"
_LIMIT = timedelta(seconds=10)
"""For rank 0, which takes the same steps, to come to the end of this one."""


class Observer:
    """Of one process. Nothing here raises into the training: a failure ends the observation."""

    def __init__(self, folder: Path, wanted: int) -> None:
        """``folder`` is made if it is missing; ``wanted``: steps to record."""
        self._folder = folder
        self._schedule = Schedule(wanted)
        self._optimizer: weakref.ref[torch.optim.Optimizer] | None = None
        self._began = Took(0.0, 0.0)
        self._recorder: Recorder | None = None
        self._with_operators: Recorder | None = None  # if the figures are of steps without them
        self._marked: list[int] = []  # with operators
        self._recording = False
        self._facts: dict[str, Any] = {}
        self._process = os.getpid()
        self._over = False

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer has taken a step."""
        followed = None if self._optimizer is None else self._optimizer()
        if self._over or followed not in (None, optimizer):
            return
        try:
            if self._optimizer is None:
                self._first_step(optimizer)
            if followed is None:
                self._optimizer = weakref.ref(optimizer)
            now = _now()
            self._step_ended(Took(now.wall - self._began.wall, now.cpu - self._began.cpu))
        except Exception as error:
            self._fail(error)
        self._began = _now()

    def finish(self) -> None:
        """Write what has been seen so far, if anything; for the end of the process."""
        if self._over or self._optimizer is None or os.getpid() != self._process:
            return
        try:
            self._end()
        except Exception as error:
            self._fail(error)

    def _first_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._facts = facts(optimizer)
        if self._facts.get("world_size", 1) > 1:
            from torch.distributed.distributed_c10d import _get_default_store

            self._facts |= probe(
                _get_default_store(),
                self._facts["rank"],
                self._facts["world_size"],
            )

    def _step_ended(self, took: Took) -> None:
        ended, following = self._schedule.step_ended(took)
        if ended is Phase.OPERATORS and following is not Phase.OPERATORS:
            following = self._choose()
        if following is Phase.STARTING:
            if self._recorder is not None:
                self._with_operators = self._recorder
            self._recorder = Recorder(operators=not self._schedule.apart)
            self._recorder.start()
            self._recording = True
        elif self._recording and self._recorder is not None:
            if following in (Phase.OPERATORS, Phase.RECORDED):
                if following is Phase.OPERATORS:
                    self._marked.append(self._schedule.seen)
                self._recorder.mark(self._schedule.seen)
            elif ended in (Phase.OPERATORS, Phase.RECORDED):
                self._stop(self._recorder)
        if following is Phase.OVER:
            self._end()

    def _choose(self) -> Phase:
        """Whether the steps of the figures have operators, on all ranks alike; the next phase."""
        schedule = self._schedule
        if self._facts.get("device") == "cpu":
            if self._recorder is not None:
                self._recorder.leave()  # the wait for rank 0 belongs to no step
            schedule.apart = self._of_rank_0(schedule.operators_cost_much)
        return schedule.phase

    def _of_rank_0(self, mine: bool) -> bool:
        """What rank 0 says; if it does not say it in time, no."""
        if self._facts.get("world_size", 1) == 1:
            return mine
        from torch.distributed.distributed_c10d import _get_default_store

        store = PrefixStore("wiresum/measure", _get_default_store())
        if self._facts["rank"] == 0:
            store.set(_APART, "1" if mine else "0")
            return mine
        try:
            store.wait([_APART], _LIMIT)
            return store.get(_APART) == b"1"
        except RuntimeError:  # the store's, of whatever kind
            log.debug("wiresum: rank 0 has not said how it records", exc_info=True)
            return False

    def _stop(self, recorder: Recorder, *, cut: bool = False) -> None:
        self._recording = False
        recorder.stop(cut=cut)

    def _end(self) -> None:
        self._over = True
        if self._recorder is not None and "rank" in self._facts:
            if self._recording:
                self._stop(self._recorder, cut=True)
            self._write_trace(self._recorder, self._folder / f"rank{self._facts['rank']}.json")
        self._recorder = self._with_operators = None
        self._write()

    def _write_trace(self, recorder: Recorder, path: Path) -> None:
        schedule, before = self._schedule, self._with_operators
        if not schedule.recorded:
            return
        if before is None:
            recorder.write(path)
        elif schedule.took(Phase.RECORDED):
            recorder.write(path, Apart(before, self._marked, max(0.0, schedule.added.cpu)))
        else:
            before.write(path)

    def _fail(self, error: Exception) -> None:
        log.debug("wiresum: the steps cannot be observed", exc_info=True)
        self._over = True
        recorder, self._recorder = self._recorder, None
        self._facts["failed"] = f"{type(error).__name__}: {error}"
        try:
            if recorder is not None:
                recorder.close()
            self._write()
        except Exception:
            log.debug("wiresum: nor can that be written", exc_info=True)

    def _write(self) -> None:
        schedule = self._schedule
        document = {
            "kind": KIND,
            "version": 1,
            **self._facts,
            "steps": {
                "wanted": schedule.wanted,
                "needed": schedule.needed,
                "seen": schedule.seen,
                "recorded": len(schedule.recorded),
            },
            "step_s": {
                name: [[took.wall, took.cpu] for took in times]
                for name, times in (
                    ("before", schedule.took(Phase.BEFORE)),
                    ("recorded", schedule.recorded),
                    ("after", schedule.took(Phase.AFTER)),
                )
            },
        }
        who = self._facts.get("rank")
        name = f"process{os.getpid()}" if who is None else f"rank{who}"
        unfinished = self._folder / f"{name}.unfinished"
        unfinished.write_text(json.dumps(document))
        os.replace(unfinished, self._folder / f"{name}.observed")  # noqa: PTH105 (atomic)


def _now() -> Took:
    return Took(time.perf_counter(), time.thread_time())


def facts(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What this process is in its job; without a rank if it has no process group."""
    host = socket.gethostname()
    if not (dist.is_available() and dist.is_initialized()):
        return {"host": host, "cores": len(os.sched_getaffinity(0))}
    devices = {p.device.type for group in optimizer.param_groups for p in group["params"]}
    return {
        "host": host,
        "cores": len(os.sched_getaffinity(0)),
        "rank": dist.get_rank(),
        "world_size": dist.get_world_size(),
        "local_size": int(os.environ.get("LOCAL_WORLD_SIZE") or dist.get_world_size()),
        "backend": dist.get_backend(),
        "device": "cpu" if devices <= {"cpu"} else min(devices - {"cpu"}),
    }
