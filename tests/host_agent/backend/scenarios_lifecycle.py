"""Scenarios: disagreement, leaving, joining again, no switch."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from scenario_tools import LIMIT, expect, over_switch, rank, same_everywhere, size, trained
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wiresum import host_agent
from wiresum.host_agent import errors


def _disagree(other: Callable[[], None]) -> None:
    """Rank 1 starts an all-reduce of 17 elements, then rank 0 something else."""
    store = dist.distributed_c10d._get_default_store()
    if rank() == 1:
        before = host_agent.stats()["engine"]["packets_sent"]
        dist.all_reduce(torch.ones(17), async_op=True)
        deadline = time.monotonic() + LIMIT.total_seconds()
        while host_agent.stats()["engine"]["packets_sent"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        store.set("sent", "1")
        store.wait(["seen"], LIMIT)
        return
    store.wait(["sent"], LIMIT)
    other()
    try:
        dist.all_reduce(torch.ones(3))
    except errors.EngineClosed as error:
        expect("\n" not in str(error), error)
    else:
        raise AssertionError("the engine goes on after an error")
    assert host_agent.stats()["failed"]["CollectiveMismatch"] == 1
    store.set("seen", "1")


def mismatch_in_wait() -> None:
    """Ranks that disagree get an error from wait()."""

    def other() -> None:
        work = dist.all_reduce(torch.ones(400), async_op=True)
        try:
            work.wait()
        except errors.CollectiveMismatch as error:
            expect("\n" not in str(error), error)
        else:
            raise AssertionError("wait() has swallowed the error")

    _disagree(other)


def mismatch_in_backward() -> None:
    """Ranks that disagree get the error from backward()."""
    model = DistributedDataParallel(nn.Linear(100, 100))

    def other() -> None:
        try:
            model(torch.ones(1, 100)).sum().backward()
        except RuntimeError as error:
            expect("CollectiveMismatch" in str(error), error)
        else:
            raise AssertionError("backward() has swallowed the error")

    _disagree(other)


def leave_in_flight() -> None:
    """The script ends without destroy_process_group while work of both kinds is in flight."""
    dist.barrier()
    if rank() == 0:
        for _ in range(20):
            dist.all_reduce(torch.ones(100_000), async_op=True).get_future()
        dist.all_reduce(torch.ones(100, dtype=torch.int64), async_op=True)
    os.environ["KEEP_GROUP"] = "1"


def again() -> None:
    """A second group in the same process gets an epoch of its own."""
    (first,) = host_agent.dump()["groups"]
    ones = torch.ones(3)
    dist.all_reduce(ones)
    dist.destroy_process_group()
    dist.init_process_group("wiresum", timeout=LIMIT)
    dist.all_reduce(ones)
    assert bool((ones == size() ** 2).all())
    second = host_agent.dump()["groups"][-1]
    assert second["lease"]["epoch"] > first["lease"]["epoch"]
    assert host_agent.stats()["engine"]["collectives"] == 2


def restart() -> None:
    """The first attempt dies in the middle; torchrun starts all ranks again."""
    ones = torch.ones(1000)
    dist.all_reduce(ones)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if rank() == 1:
            os._exit(3)
        dist.all_reduce(ones)  # never completes: torchrun ends this rank
    assert bool((ones == size()).all())
    print("restarted well", flush=True)


def fallback() -> None:
    """No controller: the same calls work, over gloo."""
    ones = torch.ones(3)
    dist.all_reduce(ones)
    assert bool((ones == size()).all())
    ours = trained(None, 2)
    assert same_everywhere(ours)
    assert over_switch() == 0


def count_reductions() -> None:
    """A script that knows nothing of wiresum; says how many all-reduces used the switch."""
    ones = torch.ones(3)
    dist.all_reduce(ones)
    dist.monitored_barrier()
    print(f"rank {rank()} of {size()}: {over_switch()} over the switch", flush=True)


def forked_children() -> None:
    """Children of fork() end at once, and nothing that they do touches the parent's job."""
    dump = os.environ["WIRESUM_DUMP"].replace("{rank}", str(rank()))
    before = torch.ones(1000)
    dist.all_reduce(before)
    child = os.fork()
    if child == 0:
        sys.exit(0)  # runs the handlers of atexit
    expect(os.waitpid(child, 0)[1] == 0, "the child failed")
    child = os.fork()
    if child == 0:
        status = 1
        for tensor in (torch.ones(3), torch.ones(3, dtype=torch.int64)):
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                status = 0 if "fork" in str(error) and "\n" not in str(error) else 2
        dist.destroy_process_group()
        sys.exit(status)
    status = os.waitpid(child, 0)[1]
    expect(status == 0, f"a child that calls a collective: status {status}")
    expect(not Path(dump).exists(), "the child wrote the parent's dump")
    for _ in range(20):
        tensor, counts = torch.ones(1000), torch.ones(3, dtype=torch.int64)
        dist.all_reduce(tensor)
        dist.all_reduce(counts)
        time.sleep(0.1)  # heartbeats go on meanwhile
    expect(bool((tensor == size()).all()) and bool((counts == size()).all()), tensor)
    expect(over_switch() == 21, over_switch())
