"""One worker of a soak, started by torchrun: trains the same lap again and again.

A lap is a training of ``--steps`` steps from the same beginning, in a process group of its own.
After each step the worker appends a line of JSON to ``steps.RANK`` in the folder ``--out``: a
:class:`Step`. Rank 0 writes a checkpoint now and then; a worker that is started again goes on from
the last one. The training ends after the lap in which the file ``leave`` appears, or after
``--laps``.
"""

import argparse
import faulthandler
import hashlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wiresum import host_agent

CHECKPOINT_STEPS = 10
INPUTS, CLASSES, BATCH = 32, 10, 8
BUCKET_MB = 0.02  # several buckets, so that several all-reduces are in flight


def _generator(rank: int, step: int) -> torch.Generator:
    """Random numbers of a step: they do not depend on what was drawn before it."""
    return torch.Generator().manual_seed(1_000_000 * (rank + 1) + step)


def _carrier() -> str:
    groups = host_agent.dump()["groups"]
    return str(groups[-1]["lease"]["carrier"]) if groups else "none"  # the newest


def _hash(*tensors: torch.Tensor) -> str:
    seen = hashlib.sha256()
    for each in tensors:
        seen.update(each.numpy().tobytes())
    return seen.hexdigest()[:12]


class Lap:
    """The state of one lap: what a checkpoint holds."""

    def __init__(self, width: int) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(INPUTS, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, CLASSES),
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.width = width

    def step(self, parallel: torch.nn.Module, rank: int, number: int) -> str:
        """Train one step; hashes of all-reduces beside the gradients', and of all parameters."""
        draw = _generator(rank, number)
        inputs = torch.randn(BATCH, INPUTS, generator=draw)
        targets = torch.randint(CLASSES, (BATCH,), generator=draw)
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(parallel(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        others = [
            torch.randn(20 * self.width, generator=draw),
            torch.randn(3, generator=draw),
            torch.randn(4 * self.width, generator=draw).half(),
        ]
        works = [dist.all_reduce(each, async_op=True) for each in others]
        parts = []
        for work, each in zip(works, others, strict=True):
            assert work is not None
            work.wait()
            parts.append(_hash(each))
        parts.append(_hash(*(parameter.detach() for parameter in self.model.parameters())))
        return "-".join(parts)

    def save(self, path: Path, lap: int, step: int) -> None:
        """Write a checkpoint; a reader sees all of it or the one before."""
        state = {
            "lap": lap,
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def train(options: argparse.Namespace) -> None:
    """Train laps until it is time to leave."""
    out: Path = options.out
    checkpoint = out / "checkpoint"
    number = 0
    fresh = True
    while True:
        dist.init_process_group("wiresum", timeout=timedelta(seconds=options.limit))
        rank = dist.get_rank()
        lap, first = Lap(options.width), 0
        if fresh and checkpoint.exists():  # all ranks have joined: nobody writes it any more
            state = torch.load(checkpoint)
            number, first = int(state["lap"]), int(state["step"])
            lap.load(state)
        fresh = False
        # DDP rebuilds its buckets after the first step of a group, but not with this option. Blocks
        # do not end with parameters, so another layout of buckets rounds in another way: a lap that
        # goes on from a checkpoint would differ from one that was never stopped.
        parallel = DistributedDataParallel(
            lap.model, bucket_cap_mb=BUCKET_MB, find_unused_parameters=True
        )
        with (out / f"steps.{rank}").open("a") as report:
            for step in range(first, options.steps):
                if rank == 0 and step % CHECKPOINT_STEPS == 0:
                    lap.save(checkpoint, number, step)
                began = time.monotonic()
                digest = lap.step(parallel, rank, step)
                line = {
                    "pid": os.getpid(),
                    "lap": number,
                    "step": step,
                    "digest": digest,
                    "carrier": _carrier(),
                    "took_s": round(time.monotonic() - began, 3),
                }
                report.write(json.dumps(line) + "\n")
                report.flush()
                time.sleep(options.pause)
        number += 1
        leaves = torch.tensor([number == options.laps or (out / "leave").exists()]).int()
        dist.broadcast(leaves, 0)
        dist.barrier()
        dist.destroy_process_group()
        if leaves.item():
            return


def main() -> None:
    """Entry point of a worker."""
    faulthandler.register(signal.SIGUSR1)  # tells where it hangs, if it does
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--laps", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--forks", type=int, default=0)
    options = parser.parse_args()
    if options.forks:
        sys.exit(forked(options))
    train(options)


def forked(options: argparse.Namespace) -> int:
    """Train with ``--forks`` ranks on the loopback, without torchrun: torch is loaded once.

    Returns 0, or 1 if a rank has failed.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [_fork(options, rank, port) for rank in range(options.forks)]
    return int(any(os.waitpid(pid, 0)[1] for pid in ranks))


def _fork(options: argparse.Namespace, rank: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(options.forks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        train(options)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
