"""Counts and times the optimizer's steps of a script, and ends the script after the last one."""

import atexit
import json
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from wiresum.common.tcp import tcp_bytes
from wiresum.host_agent import reported
from wiresum.host_agent.remedies import hooks
from wiresum.host_agent.trial import seeds
from wiresum.host_agent.trial.order import PROGRESS, Order, Record, read_order

COUNT_EVERY = 5
"""Bytes are counted after so many steps: to count them takes a look at each socket."""


def install() -> None:
    """Record this process, as WIRESUM_TRIAL says."""
    from torch.optim import optimizer

    order = read_order()
    seeds.install(order.seed)
    recorder = Recorder(order)
    optimizer.register_optimizer_step_pre_hook(lambda which, *_: recorder.before(which))
    optimizer.register_optimizer_step_post_hook(lambda which, *_: recorder.after(which))
    reported.listen(recorder.loss)
    atexit.register(recorder.close)


class Recorder:
    """The record of this process, as it grows."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._folder = Path(order.folder)
        self._record = Record()
        self._optimizer: weakref.ref[Any] | None = None  # the first one: its steps are the steps
        self._last = 0.0
        self._told = 0  # losses that are in the file of progress
        self._process = os.getpid()
        self._ending = False

    def before(self, optimizer: Any) -> None:
        """A step begins. If all steps are done, record them and end the script."""
        if self._optimizer is None:
            self._optimizer = weakref.ref(optimizer)
        if self._mine(optimizer) and self._record.steps >= self._order.steps:
            self._end()

    def after(self, optimizer: Any) -> None:
        """A step has ended."""
        if not self._mine(optimizer):
            return
        record, warm, now = self._record, self._order.warm, time.monotonic()
        record.steps += 1
        if record.steps == 1:
            self._note_place()
        if record.steps > warm:
            record.took_s.append(now - self._last)
        done = record.steps - warm
        if done >= 0 and (done % COUNT_EVERY == 0 or record.steps == self._order.steps):
            record.sent.append((record.steps, _sent()))
        if record.rank == 0:
            self._tell()
        self._last = time.monotonic()  # what is done here is no part of a step

    def loss(self, value: float) -> None:
        """The script reports a loss."""
        self._record.losses.append(value)

    def close(self) -> None:
        """Write the record, if there is anything in it. In the process that has made it only."""
        record = self._record
        if os.getpid() != self._process or not record.steps:
            return
        record.hooks = list(hooks.used)
        record.carried = _carried()
        record.write(self._folder)

    def _mine(self, optimizer: Any) -> bool:
        return self._optimizer is not None and self._optimizer() is optimizer

    def _note_place(self) -> None:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            self._record.rank, self._record.world = dist.get_rank(), dist.get_world_size()
        else:
            self._record.rank = int(os.environ.get("RANK") or 0)

    def _tell(self) -> None:
        """Add a line to the file of progress: the launcher reads it while the script runs."""
        record = self._record
        told = {
            "step": record.steps,
            "took_s": record.took_s[-1] if record.took_s else None,
            "losses": record.losses[self._told :],
            "bytes_per_step": record.bytes_per_step,
        }
        self._told = len(record.losses)
        with (self._folder / PROGRESS).open("a") as file:
            file.write(json.dumps(told) + "\n")

    def _end(self) -> None:
        self.close()
        again, self._ending = self._ending, True
        main = threading.current_thread() is threading.main_thread()
        if main and not again:
            raise SystemExit(0)
        # SystemExit ends only this thread, or the script has caught it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _sent() -> int:
    """Bytes that this process has sent to other ranks and to a switch so far, headers left out."""
    from wiresum.host_agent import stats

    skip = [int(os.environ.get("MASTER_PORT") or 0)]
    if controllers := os.environ.get("WIRESUM_CONTROLLER"):
        from wiresum.controller.client.address import parse_addresses

        skip += [each.endpoint.port for each in parse_addresses(controllers)]
    return tcp_bytes(skip).sent + int(stats()["engine"].get("bytes_sent", 0))


def _carried() -> int:
    from wiresum.host_agent import stats

    counts = stats()
    return int(sum(counts["switch"].values()) + sum(counts["ranks"].values()))
