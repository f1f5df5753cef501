"""Trains and all-reduces integers until it is told to stop; checks every sum; writes its results.

``--out FOLDER``: ``steps.RANK`` (how far it is), ``lease.RANK`` (the lease as ``dump()`` has it),
``report.RANK.json`` at the end. It stops at ``--steps``, or at the step after FOLDER/stop is there.
"""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import wiresum.host_agent

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--steps", type=int, default=1_000_000)
parser.add_argument("--pause", type=float, default=0.0, help="seconds between two steps")
parser.add_argument("--flying", type=int, default=8, help="all-reduces in flight per step")
arguments = parser.parse_args()

dist.init_process_group("wiresum")
rank, workers = dist.get_rank(), dist.get_world_size()
torch.manual_seed(7)
model = DistributedDataParallel(
    torch.nn.Sequential(torch.nn.Linear(40, 200), torch.nn.Tanh(), torch.nn.Linear(200, 7)),
    bucket_cap_mb=0.02,
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
digest = hashlib.sha256()
leases: list[dict[str, object]] = []


def integers(step: int, number: int, of: int) -> torch.Tensor:
    made = torch.Generator().manual_seed((step * 64 + number) * 64 + of)
    return torch.randint(-1000, 1000, (1 + 1733 * number % 5000,), generator=made)


def write(name: str, text: str) -> None:
    made = arguments.out / f"{name}.new"
    made.write_text(text)
    made.rename(arguments.out / name)


for step in range(arguments.steps):
    flying = []
    for number in range(arguments.flying):
        tensor = integers(step, number, rank).float()
        flying.append((number, tensor, dist.all_reduce(tensor, async_op=True)))
    x = torch.randn(16, 40, generator=torch.Generator().manual_seed(step * workers + rank))
    optimizer.zero_grad()
    (model(x) - x[:, :7]).square().mean().backward()
    optimizer.step()
    for number, tensor, work in flying:
        work.wait()
        want = sum(integers(step, number, of) for of in range(workers))
        if not torch.equal(tensor.long(), want):
            raise AssertionError(f"rank {rank}, step {step}: all-reduce {number} is wrong")
        digest.update(tensor.numpy().tobytes())
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    lease = wiresum.host_agent.dump()["groups"][0]["lease"]
    if not leases or leases[-1]["epoch"] != lease["epoch"]:
        leases.append({name: lease[name] for name in ("epoch", "slots", "change")})
        write(f"lease.{rank}", json.dumps(lease))
    write(f"step.{rank}", str(step))
    time.sleep(arguments.pause)
    stop = torch.tensor([int((arguments.out / "stop").exists())])
    dist.all_reduce(stop, op=dist.ReduceOp.MAX)
    if stop.item():
        break

report = {
    "steps": step + 1,
    "digest": digest.hexdigest(),
    "leases": leases,
    "stats": wiresum.host_agent.stats(),
    "environment": [name for name in os.environ if name.startswith("WIRESUM_")],
}
write(f"report.{rank}.json", json.dumps(report))
dist.destroy_process_group()
