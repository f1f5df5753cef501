"""A training of so many steps that tells how far it is; its weights follow from its arguments.

DDP with several buckets in flight, and beside it collectives of all kinds that are issued together
and waited for later. ``step.RANK`` in the folder ``--out`` has the last step and the carrier;
``report.RANK.json`` the end. Steps are slow while there is a file ``slow``.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wiresum.host_agent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.02)
    options = parser.parse_args()

    dist.init_process_group("wiresum")
    rank, workers = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 256), torch.nn.Tanh(),
        torch.nn.Linear(256, 10),
    )  # fmt: skip
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.1)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05)
    draw = torch.Generator().manual_seed(100 + rank)
    seen = hashlib.sha256()
    longest, carriers = 0.0, []
    for step in range(options.steps):
        began = time.monotonic()
        inputs = torch.randn(16, 64, generator=draw)
        targets = torch.randint(10, (16,), generator=draw)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(ddp(inputs), targets)
        loss.backward()
        optimizer.step()
        others = [
            torch.randn(40_000, generator=draw),
            torch.randn(3, generator=draw),
            torch.randn(2_500, generator=draw).half(),
        ]
        works = [dist.all_reduce(each, async_op=True) for each in others]
        given = torch.randn(workers * 9_000, generator=draw)
        part, whole = torch.empty(9_000), torch.empty(workers * 9_000)
        gathered, sent = torch.empty(workers * 7_000), torch.randn(20_000, generator=draw)
        root = step % workers
        reduced = torch.randn(6_000, generator=draw)
        works += [
            dist.reduce_scatter_tensor(part, given, async_op=True),
            dist.all_gather_into_tensor(gathered, given[:7_000].contiguous(), async_op=True),
            dist.broadcast(sent, root, async_op=True),
            dist.reduce(reduced, root, async_op=True),
        ]
        for work in works:
            work.wait()
        dist.broadcast(reduced, root)
        dist.all_gather_into_tensor(whole, part)
        for each in (*others, whole, gathered, sent, reduced):
            seen.update(each.numpy().tobytes())
        longest = max(longest, time.monotonic() - began)
        carrier = wiresum.host_agent.dump()["groups"][0]["lease"]["carrier"]
        if not carriers or carriers[-1] != carrier:
            carriers.append(carrier)
        (options.out / f"step.{rank}.new").write_text(f"{step} {carrier}")
        (options.out / f"step.{rank}.new").rename(options.out / f"step.{rank}")
        time.sleep(0.3 if (options.out / "slow").exists() else options.pause)
    for parameter in model.parameters():
        seen.update(parameter.detach().numpy().tobytes())
    report = {
        "digest": seen.hexdigest(),
        "longest_s": longest,
        "carriers": carriers,
        "stats": wiresum.host_agent.stats(),
    }
    (options.out / f"report.{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
