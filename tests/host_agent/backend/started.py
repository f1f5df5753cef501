"""A switch from Python, workers by ``torch.multiprocessing``, and groups over all kinds of stores.

``started.py FOLDER METHOD``, without torchrun. The method is ``spawn``, or ``fork`` as functions
that are written in a notebook need. It makes a ``Session`` unless ``wiresum run`` has made one.
Each worker leaves FOLDER/RANK.json.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from wiresum.host_agent import JobOptions, Session, stats

WORKERS = 2
LIMIT = timedelta(seconds=120)


def switched() -> int:
    return sum(stats()["switch"].values())


def worlds(rank: int, folder: Path, ports: list[int]) -> Iterator[str]:
    """Make one world after the other; the name of how it was made."""
    me: dict[str, Any] = {"rank": rank, "world_size": WORKERS, "timeout": LIMIT}
    dist.init_process_group("wiresum", init_method=f"file://{folder}/store", **me)
    yield "file"
    dist.init_process_group("wiresum", init_method=f"tcp://127.0.0.1:{ports[0]}", **me)
    yield "tcp"
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[1]),
        "RANK": str(rank), "WORLD_SIZE": str(WORKERS),
    }  # fmt: skip
    dist.init_process_group("wiresum", timeout=LIMIT)
    yield "env"


def reduce(group: dist.ProcessGroup | None = None) -> int:
    """One sum; how many collectives the switch got for it."""
    before = switched()
    ones = torch.ones(5)
    dist.all_reduce(ones, group=group)
    assert ones.tolist() == [WORKERS] * 5
    return switched() - before


def in_a_thread(group: dist.ProcessGroup | None) -> int:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(reduce, group).result()


def in_any_thread_of_a_pool(rank: int) -> int:
    """On one rank the thread that has made the group issues its sum, on the other one another."""
    with ThreadPoolExecutor(1) as maker, ThreadPoolExecutor(1) as other:
        group = maker.submit(dist.new_group, [0, 1]).result()
        return (maker if rank == 0 else other).submit(reduce, group).result()


def main(rank: int, folder: str, ports: list[int]) -> None:
    found = {}
    for name in worlds(rank, Path(folder), ports):
        everybody, alone = (
            dist.new_group([0, 1]),
            dist.new_group([rank], use_local_synchronization=True),
        )
        found[name] = {
            "world": reduce(), "everybody": reduce(everybody),
            "another thread": in_a_thread(everybody), "any thread": in_any_thread_of_a_pool(rank),
            "world again": reduce(),
        }  # fmt: skip
        before = switched()
        dist.all_reduce(torch.ones(1), group=alone)
        dist.all_reduce(torch.ones(1, dtype=torch.int64), group=everybody)
        dist.all_reduce(torch.ones(1, dtype=torch.float64), op=dist.ReduceOp.MAX, group=everybody)
        found[name]["neither"] = switched() - before
        found[name]["world in a thread"] = in_a_thread(None)
        found[name]["everybody after that"] = reduce(everybody)
        dist.destroy_process_group()
    found["why"] = sorted(stats()["fallback"]["all_reduce"])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    folder, method, first = sys.argv[1:]
    ports = [int(first), int(first) + 1]
    with contextlib.ExitStack() as stack:
        if "WIRESUM_JOB" not in os.environ:
            session = stack.enter_context(Session(JobOptions(timeout_s=LIMIT.total_seconds())))
            os.environ.update(session.variables())
        mp.start_processes(main, (folder, ports), nprocs=WORKERS, start_method=method)
